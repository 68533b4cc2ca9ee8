"""What pretraining does on one GPU: images a second and MFU, beside PyTorch doing the same.

    python benchmarks/gpu.py [--only=mae_vit_l] [--compile=whole] [--cifar10=PATH.npz --minutes=60] [--tiny] [--write]

Needs jax, flax, optax and numpy, and for its side PyTorch; downloads nothing. Each side of a row is a process of its
own with a time limit, so that what fails or takes too long costs no other row, and all of it takes less than nine
minutes; --cifar10 then trains for --minutes, or for what is left of the nine. The file has the arrays train_image,
train_label, test_image and test_label. --compile: "parts", each block and the loss by itself, so that what is equal is
compiled once, or "whole", which may take more time than there is. --tiny: all of it on the CPU, with small shapes.
With --write the table goes into docs/performance.md.
"""

import argparse
import contextlib
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from typing import Any

from sections import paragraph, publish, table

BEGUN = time.perf_counter()
MINUTES = 8.7
MODES = {"ssljax": ("ssljax",), "torch": ("eager", "torch.compile")}
"""The columns of each side."""
PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L4": 121e12,
    "T4": 65e12,
    "V100": 125e12,
    "RTX 4090": 165e12,
}
"""Published FLOP/s of dense products in bfloat16 (T4 and V100: float16) by what is in a card's name, the first that
fits."""

COLUMNS = (
    *("what", "batch"),
    *(cell for modes in MODES.values() for mode in modes for cell in ((f"{mode}, /s", ".1f"), ("MFU", ".1%"))),
    *(("ssljax / torch.compile", ".2f"), ("views / step", ".1%")),
)


def peak_of(card: str) -> float | None:
    """None for a card that is not in the table."""
    words = f" {card.replace('-', ' ')} "
    return next((peak for name, peak in PEAKS.items() if f" {name} " in words), None)


# In a child -----------------------------------------------------------------------------------------------------------


def timed(once: Callable[[], Any], wait: Callable[[Any], Any], rounds: int, seconds: float) -> float:
    """Of one call: the median of rounds that each take so many `seconds`, after three calls that are not counted."""

    def several(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            last = once()
        wait(last)
        return (time.perf_counter() - start) / count

    for _ in range(3):
        first = several(1)
    count = max(1, math.ceil(seconds / first))
    return statistics.median(several(count) for _ in range(rounds))


def fitting(measure: Callable[[int], dict], batch: int) -> dict:
    """`measure` at a batch that is halved until it fits."""
    while True:
        try:
            return measure(batch) | {"batch": batch}
        except Exception as error:
            text = str(error)
            if batch == 1 or not ("RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()):
                raise
        batch //= 2


def say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


def probe() -> None:
    """Print what there is."""
    import flax
    import jax
    import optax

    device = jax.devices()[0]
    found = {"jax": jax.__version__, "flax": flax.__version__, "optax": optax.__version__}
    cards = {"ssljax": device.device_kind if device.platform == "gpu" else None}
    with contextlib.suppress(ImportError):
        import torch

        found["torch"] = torch.__version__
        cards["torch"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    say(versions=found, cards=cards)


def child(arguments: argparse.Namespace) -> None:
    """One side of a row: a line of JSON for each of its columns."""
    if arguments.side == "probe":
        return probe()
    import gpu_ssljax

    tiny = arguments.tiny
    if arguments.side == "cifar10":
        return gpu_ssljax.cifar10(arguments.cifar10, arguments.epochs, arguments.every, tiny, BEGUN)
    recipe = gpu_ssljax.RECIPES[arguments.only]
    method, shape = recipe.build(tiny), recipe.example_shape(tiny)
    clock = partial(timed, rounds=1, seconds=0.0) if tiny else partial(timed, rounds=3, seconds=1.0)
    flops = gpu_ssljax.flops(recipe, tiny)
    for mode in MODES[arguments.side]:
        if mode == "ssljax":
            measure = partial(gpu_ssljax.measure, recipe, tiny, clock)
        else:
            import gpu_torch

            measure = partial(gpu_torch.measure, method, shape[0], arguments.compile * (mode != "eager"), clock)
        try:
            say(mode=mode, flops=flops, **fitting(measure, 4 if tiny else recipe.batch))
        except Exception as error:
            traceback.print_exc()
            say(mode=mode, failed=f"failed: {type(error).__name__}")


# In the parent --------------------------------------------------------------------------------------------------------


def run(side: str, options: Sequence[str], limit: float, tiny: bool) -> tuple[list[dict], str]:
    """What a child says in so many seconds, and why it says no more: "" where it came to its end."""
    if limit <= 0:
        return [], "no time left"
    variables = dict(os.environ)
    variables["CUDA_VISIBLE_DEVICES"] = "" if tiny else variables.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    variables.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
    if tiny or side == "torch":  # whose child asks ssljax for sizes alone
        variables["JAX_PLATFORMS"] = "cpu"
    with tempfile.TemporaryFile("w+") as out:
        command = [sys.executable, __file__, f"--side={side}", *options, *["--tiny"] * tiny]
        process = subprocess.Popen(command, stdout=out, env=variables, start_new_session=True)
        try:
            why = f"failed ({process.returncode})" if process.wait(limit) else ""
        except subprocess.TimeoutExpired:
            why = f"no end in {limit:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        lines = [json.loads(line) for line in out if line.startswith("{")]
    return lines, why


def row(title: str, found: dict[str, dict], missing: dict[str, str], peak: float | None) -> list:
    """missing: of each column, why it has no number."""
    cells: list[Any] = []
    rate = {}
    for mode in (mode for modes in MODES.values() for mode in modes):
        result = found.get(mode, {})
        if "seconds" in result:
            rate[mode] = result["batch"] / result["seconds"]
            cells += [rate[mode], result["flops"] * rate[mode] / peak if peak else None]
        else:
            cells += [result.get("failed", missing[mode]), None]
    batches = [str(result["batch"]) for result in found.values() if "batch" in result]
    ours = found.get("ssljax", {})
    return [
        title,
        " / ".join(batches if len(set(batches)) > 1 else batches[:1]) or None,
        *cells,
        rate["ssljax"] / rate["torch.compile"] if {"ssljax", "torch.compile"} <= rate.keys() else None,
        ours["views"] / (ours["views"] + ours["seconds"]) if "views" in ours else None,
    ]


def end_to_end(lines: list[dict], why: str) -> str | dict:
    """When an accuracy was reached."""
    if not lines:
        return f"SimCLR ResNet-18 on CIFAR-10, from nothing to 85 % and 90 % by k-NN: {why}."
    rows: list[list] = []
    for goal in (0.85, 0.90):
        first = next((line for line in lines if line["accuracy"] >= goal), None)
        rows.append([f"{goal:.0%}", *((first["minutes"], first["epoch"]) if first else ("not reached", None))])
    rows.append([f"{lines[-1]['accuracy']:.1%}, the last", lines[-1]["minutes"], lines[-1]["epoch"]])
    return table(["SimCLR ResNet-18 on CIFAR-10, k-NN", ("minutes", ".1f"), ("epochs", "d")], rows)


def measured(arguments: argparse.Namespace, names: Sequence[str], absent: dict[str, str], peak: float | None) -> list:
    """The rows. absent: which sides cannot run, and why. A child has twice its share of the time that is left."""
    from gpu_ssljax import RECIPES

    jobs, rows = len(names) * (len(MODES) - len(absent)), []
    for name in names:
        found: dict[str, dict] = {}
        missing: dict[str, str] = {}
        for side, modes in MODES.items():
            why = absent.get(side, "")
            if not why:
                left = BEGUN + 60 * MINUTES - time.perf_counter()
                options = [f"--only={name}", f"--compile={arguments.compile}"]
                lines, why = run(side, options, min(left, 2 * left / jobs), arguments.tiny)
                found |= {line.pop("mode"): line for line in lines}
                jobs -= 1
            missing |= dict.fromkeys(modes, why)
        rows.append(row(RECIPES[name].title, found, missing, peak))
        print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    return rows


def main() -> None:
    from gpu_ssljax import RECIPES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*RECIPES, "cifar10"], help="one row, or none but CIFAR-10's")
    parser.add_argument("--compile", choices=("parts", "whole"), default="parts")
    parser.add_argument("--cifar10", help="an npz file")
    parser.add_argument("--minutes", type=float, help="for CIFAR-10")
    parser.add_argument("--epochs", type=int, default=200, help="of CIFAR-10")
    parser.add_argument("--every", type=int, default=5, help="epochs between evaluations on CIFAR-10")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--side", choices=("probe", "cifar10", *MODES), help="measure here, in this process")
    arguments = parser.parse_args()
    tiny = arguments.tiny
    if arguments.write and (tiny or arguments.only):
        parser.error("--write is for all rows in full.")
    if arguments.side:
        return child(arguments)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that its child ends too
    probed, why = run("probe", [], 60, tiny)
    if not probed:
        sys.exit(f"nothing can run here: {why}")
    versions, cards = probed[0]["versions"], probed[0]["cards"]
    absent = {side: "not run: no PyTorch" for side in MODES if side not in cards}
    absent |= {side: "not run: no GPU" for side, card in cards.items() if not card and not tiny}
    card = next((name for name in cards.values() if name), None)
    peak = peak_of(card or "")
    names = [name for name in RECIPES if arguments.only in (None, name)]
    rows = measured(arguments, names, absent, peak)
    lines, why = [], "not run: no CIFAR-10 at hand"
    if arguments.cifar10 and "ssljax" in absent:
        why = absent["ssljax"]
    elif arguments.cifar10:
        left = BEGUN + 60 * MINUTES - time.perf_counter() if arguments.minutes is None else 60 * arguments.minutes
        options = [f"--{name}={getattr(arguments, name)}" for name in ("cifar10", "epochs", "every")]
        lines, why = run("cifar10", options, left, tiny)
    parts = "each block and the loss by themselves" if arguments.compile == "parts" else "the whole network"
    blocks = [
        paragraph(
            f"""Made by `python benchmarks/gpu.py --write`: images (or clips) a second that the networks, the loss and
            the optimiser take, in bfloat16 with parameters in float32, views drawn before; medians of 3 rounds. PyTorch
            is under autocast, in eager mode and with {parts} compiled. MFU: two operations for each multiply-add of the
            products and convolutions of loss and gradient, over the card's published peak. Views: the
            share of ours in a step that draws them. Where a batch did not fit, the halves that did are given, in the
            order of the columns."""
        ),
        table(COLUMNS, rows),
        end_to_end(lines, why),
        ", ".join(
            [
                card or "No GPU",
                *([] if peak or not card else ["whose peak is not known"]),
                f"{os.cpu_count()} CPU cores",
                *(f"{name} {version}" for name, version in versions.items()),
                f"Python {platform.python_version()}",
                f"{date.today()}.",
            ]
        ),
    ]
    publish("performance.md", "On one GPU", blocks)


if __name__ == "__main__":
    main()
