"""How the time and the memory of a step grow with what is asked of it, beside how they must: plots in docs/scaling.md.

    python benchmarks/growth.py [--part=steps] [--write]
    pip install -r requirements-preflight.txt && python benchmarks/growth.py --part=devices [--write]

Steps are those of demos, run on this machine; for several devices they are compiled, for virtual CPU devices and for
TPU slices that are not there.
"""

import argparse
import runpy
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter
from memory import MIB, least_of
from sections import DOCS, ROOT, compared, machine, paragraph, publish, table

from ssljax.build import build_run, build_source, example_batch, settle
from ssljax.commands import keep_memory
from ssljax.cost.bill import Cost
from ssljax.cost.flops import count_work
from ssljax.cost.memory import memory_of
from ssljax.cost.topologies import open_slice
from ssljax.data.pipeline import train_batches
from ssljax.engine.mesh import abstract_batch, make_mesh, to_devices
from ssljax.preflight import example_of, measure
from ssljax.report.figures import BLUE, MUTED, WRONG

REPEATS = 5


@dataclass(frozen=True)
class Axis:
    """A field of a demo that takes values."""

    name: str
    config: str
    field: str
    values: tuple[int, ...]

    @property
    def title(self) -> str:
        return f"{Path(self.config).name}: {self.name}"


AXES = (
    Axis("batch", "images/simclr", "batch_size", (64, 128, 256, 512)),
    Axis("batch", "images/mae", "batch_size", (64, 128, 256, 512)),
    Axis("image size", "images/simclr", "views.size", (32, 48, 64, 96)),
    Axis("image size", "images/mae", "views.size", (32, 48, 64, 96)),
    Axis("channels", "images/simclr", "encoder.channels", (16, 32, 64, 128)),
    Axis("width", "images/mae", "encoder.width", (64, 128, 256, 512)),
    Axis("blocks", "images/mae", "encoder.depth", (2, 4, 8, 16)),
    Axis("queue", "images/moco_v2", "method.queue", (2048, 8192, 32768, 131072)),
    Axis("local crops", "images/dino", "views.local_crops", (2, 4, 8, 16)),
)
DEMOS = "images/simclr", "images/mae"
SLICES = {"CPU": ("cpu:2", "cpu:4", "cpu:8"), "v5e": ("v5e:2x2", "v5e:2x4", "v5e:4x4", "v5e:8x8")}
EACH = 64
"""Examples for a device."""


def demo(path: str):
    return runpy.run_path(str(ROOT / "configs" / f"{path}.py"))["get_config"]("demo")


# With more to do ------------------------------------------------------------------------------------------------------


def step_of(axis: Axis, value: int) -> dict[str, float]:
    """Seconds of a step and the bytes at its peak, and what these follow from: its FLOPs, and bytes it cannot spare."""
    config = demo(axis.config)
    config.update_from_flattened_dict({axis.field: value})
    source = build_source(config, "train")
    settle(config, source)
    run = build_run(config, examples=len(source), example=example_batch(config, source))
    shapes = abstract_batch(example_batch(config, source), config.batch_size, run.mesh)
    traced = run.step.trace(run.abstract, shapes)
    step = traced.lower().compile()
    batch = to_devices(next(train_batches(source, batch_size=config.batch_size, seed=0)), run.mesh)
    state, times = run.init(), []
    for _ in range(REPEATS + 1):
        begun = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        times.append(time.perf_counter() - begun)
    found = {
        "seconds": statistics.median(times[1:]),
        "flops": count_work(traced.jaxpr).flops,
        "peak": memory_of(step, None).peak,
        "least": least_of(run, shapes, config.batch_size)[-1],
    }
    print(axis.title, value, found, flush=True)
    jax.clear_caches()
    return found


def panel(figure: Figure, shape: tuple[int, int, int], title: str, unit: str, x: Sequence[float], lines: dict) -> None:
    """Lines by what they are; the last is what the others must follow, drawn from the first point of the first on."""
    axes = figure.add_subplot(*shape)
    *drawn, (label, must) = lines.items()
    for (name, y), colour in zip(drawn, (BLUE, WRONG), strict=False):
        axes.loglog(x, y, "o-", color=colour, linewidth=1.6, markersize=4, label=name)
    axes.loglog(x, [y * drawn[0][1][0] / must[0] for y in must], "--", color=MUTED, linewidth=1.2, label=label)
    low, high = axes.dataLim.intervaly
    middle = (low * high) ** 0.5
    axes.set_ylim(min(low / 1.2, middle / 3), max(high * 1.2, middle * 3))  # what hardly grows looks so
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_title(unit, loc="right", fontsize=9, color=MUTED)
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=MUTED)
    axes.legend(frameon=False, fontsize=8)


def steps(write: bool) -> None:
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # both as `python -m ssljax.train` does
    keep_memory()
    found = {axis: [step_of(axis, value) for value in axis.values] for axis in AXES}
    figure = Figure((3.1 * len(AXES), 5.6), dpi=90, facecolor="white", layout="constrained")
    rows = []
    for i, (axis, points) in enumerate(found.items()):
        of = {key: [point[key] for point in points] for key in points[0]}
        seconds = {"a step": of["seconds"], "its FLOPs": of["flops"]}
        peak = {"peak": [x / MIB for x in of["peak"]], "what it must hold": of["least"]}
        panel(figure, (2, len(AXES), i + 1), axis.title, "s", axis.values, seconds)
        panel(figure, (2, len(AXES), len(AXES) + i + 1), axis.title, "MiB", axis.values, peak)
        grew = {key: numbers[-1] / numbers[0] for key, numbers in of.items()}
        span = f"{axis.values[0]:,} to {axis.values[-1]:,}"
        rows.append([axis.title, span, *(grew[key] for key in ("seconds", "flops", "peak", "least"))])
    if write:
        figure.savefig(DOCS / "growth.png")
    head = f"""Made by `python benchmarks/growth.py --write`: steps of demos with one field changed, median of
        {REPEATS}, and their peak of memory as the compiler laid it out. Dashed is what they must follow, from the first
        point on: the FLOPs of products and convolutions, and what a step must hold (state, batch, gradients, and what
        the forward pass leaves for the backward pass)."""
    picture = "![Time and memory of steps against batch, image size, model size, queue and crops](growth.png)"
    columns = ["what", "from, to", *((f"{key} x", ".1f") for key in ("time", "FLOPs", "memory", "must hold"))]
    publish("scaling.md", "Growth", [paragraph(head), picture, table(columns, rows), machine()])


# On more devices ------------------------------------------------------------------------------------------------------


def on(path: str, name: str, axis: str) -> tuple[int, Cost]:
    """How many devices there are, and what a step costs whose batch or, for `fsdp`, whose state is split over them."""
    where = open_slice("cpu:8" if name.startswith("cpu") else name)
    devices = where.devices[: int(name[4:])] if name.startswith("cpu") else where.devices
    n, config = len(devices), demo(path)
    config.batch_size = EACH * n
    mesh = make_mesh(n, 1, devices) if axis == "data" else make_mesh(1, n, devices)
    cost = measure(config, example_of(config)[0], where, mesh)
    jax.clear_caches()
    return n, cost


def devices(write: bool) -> None:
    open_slice("cpu:8")  # before JAX looks for devices
    figure = Figure((3.4 * len(DEMOS) * len(SLICES), 5.6), dpi=90, facecolor="white", layout="constrained")
    rows, columns = [], [(path, chip) for chip in SLICES for path in DEMOS]
    for i, (path, chip) in enumerate(columns):
        method = Path(path).name
        peaks: dict[str, list[float]] = {"data": [], "fsdp": []}
        sent: dict[str, list[float]] = {"data": [], "fsdp": []}
        for axis in peaks:
            counts = []
            for name in SLICES[chip]:
                n, cost = on(path, name, axis)
                assert cost.traffic, f"{method} does not fit {name}"
                counts.append(n)
                peaks[axis].append(cost.memory.peak / MIB)
                sent[axis].append(cost.traffic.total / MIB)
                flops = cost.work.flops / n / 1e9
                rows.append([method, f"{n} x {chip}", axis, flops, peaks[axis][-1], sent[axis][-1]])
                print(*rows[-1], flush=True)
        alike = {"as many": [1.0] * len(counts)}
        panel(figure, (2, len(columns), i + 1), f"{method}: {chip}, peak of a device", "MiB", counts, peaks | alike)
        below = (2, len(columns), len(columns) + i + 1)
        panel(figure, below, f"{method}: {chip}, sent by a device", "MiB", counts, sent | alike)
    if write:
        figure.savefig(DOCS / "devices.png")
    head = f"""Made by `python benchmarks/growth.py --part=devices --write`: steps of demos with {EACH} examples a
        device, compiled for virtual CPU devices and, by the TPU compiler, for slices that are not there; batch
        (`data`) or state (`fsdp`) are split over all devices. FLOPs, the peak of memory and what collectives send are
        of one device. Dashed is no growth. Nothing here was run."""
    picture = "![Memory and communication of a device against the number of devices](devices.png)"
    named = ["method", "devices", "split over", ("GFLOP", ".1f"), ("peak, MiB", ".1f"), ("sent, MiB", ".2f")]
    blocks = [paragraph(head), picture, table(named, rows), compared("libtpu")]
    publish("scaling.md", "Growth with devices", blocks)


PARTS = {"steps": steps, "devices": devices}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, default="steps")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    PARTS[arguments.part](arguments.write)


if __name__ == "__main__":
    main()
