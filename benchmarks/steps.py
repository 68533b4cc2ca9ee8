"""Train steps beside PyTorch's: the same networks, losses, optimisers and batches in float32, on the same cores.

    pip install -r requirements.txt -r benchmarks/requirements.txt
    python benchmarks/steps.py [--only=NAME,NAME] [--batch=0] [--repeats=5] [--cores=2] [--write]

With --write the table goes into docs/performance.md. What is timed is a step on views that were drawn before: networks,
loss, gradients, optimiser, and what follows them (a momentum network, a queue). Each side is a process of its own; they
take turns. The other side's networks are in `torch_steps.py`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SECONDS = 4.0
"""For which a side takes its turn, or for one step, if that is longer."""
SIDES = "ssljax", "eager", "channels-last", "compiled"
THEIRS = "lightly", "timm", "torch", "torchvision", "transformers"
SGD = {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4}
ADAMW = {"name": "adamw", "momentum": 0.9, "b2": 0.95, "weight_decay": 0.05}
RESNET = {"name": "resnet18", "stem": "cifar"}
VIT = {"patch": 4, "positions": "learned"}


@dataclass(frozen=True)
class Row:
    """Sections of a config. `torch_steps.py` has the same numbers."""

    method: dict[str, Any]
    encoder: dict[str, Any]
    views: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=lambda: SGD)
    batch: int = 64
    shape: tuple[int, ...] = (32, 32, 3)

    @property
    def convolutions(self) -> bool:
        """Whether channels-last makes a difference."""
        return self.encoder is RESNET


ROWS = {
    "SimCLR ResNet-18": Row({"name": "simclr", "projector": (512, 128)}, RESNET, {"name": "simclr"}),
    "SimCLR ViT-Ti/4": Row(
        {"name": "simclr", "projector": (512, 128)}, {"name": "vit_ti", **VIT}, {"name": "simclr"}, ADAMW
    ),
    "MAE ViT-S/4": Row({"name": "mae"}, {"name": "vit_s", "patch": 4}, {"name": "mae"}, ADAMW),
    "MoCo v2 ResNet-18": Row(
        {"name": "moco_v2", "projector": (512, 128), "queue": 4096, "momentum": 0.99}, RESNET, {"name": "moco_v2"}
    ),
    "BYOL ResNet-18": Row(
        {"name": "byol", "projector": (1024, 256), "predictor": (1024, 256), "momentum": 0.99},
        RESNET,
        {"name": "byol"},
    ),
    "DINO ViT-Ti/4": Row(
        {"name": "dino", "count": 8192, "momentum": 0.99},
        {"name": "vit_ti", **VIT, "position_offset": 0.1},
        {"name": "dino", "local_crops": 6, "local_size": 16},
        ADAMW,
        batch=32,
    ),
    "wav2vec 2.0 Base": Row({"name": "wav2vec2"}, {"name": "wav2vec2_base"}, {}, ADAMW, batch=4, shape=(32_000,)),
}


class Drawn:
    """A method that is given views, not examples."""

    def __init__(self, method):
        self.method = method

    def __getattr__(self, name):
        return getattr(self.method, name)

    def views(self, keys, batch):
        return batch


def with_ssljax(name: str, batch: int) -> tuple[Callable[[], None], int]:
    """(a step, how many numbers are learnt)"""
    import jax
    import numpy as np
    import optax

    from ssljax.build import build_method
    from ssljax.collectives import example_keys
    from ssljax.commands import keep_memory
    from ssljax.config import base_config
    from ssljax.engine.mesh import make_mesh
    from ssljax.engine.optim import make_optimizer
    from ssljax.engine.step import make_train

    jax.config.update("jax_cpu_enable_async_dispatch", False)  # both as `python -m ssljax.train` does
    keep_memory()
    row = ROWS[name]
    config = base_config(row.method["name"])
    config.method.update(row.method)
    config.encoder.update(row.encoder)
    if row.views:
        config.views.update(size=32, **row.views)
    method = build_method(config, total_steps=10_000, steps_per_epoch=100)
    optimizer = make_optimizer(schedule=optax.constant_schedule(1e-4), exclude=(), **row.optimizer)
    random = np.random.RandomState(0)
    if row.views:
        examples = {"image": random.randint(0, 255, (batch, *row.shape)).astype(np.uint8)}
    else:
        examples = {"audio": random.normal(size=(batch, *row.shape)).astype(np.float32)}
    views = jax.jit(method.views)(example_keys(jax.random.key(0), batch), examples)
    init, step, _ = make_train(Drawn(method), optimizer, make_mesh(1, 1), jax.tree.map(lambda x: x[:2], examples))
    state = init()

    def once() -> None:
        nonlocal state
        state, metrics = step(state, views)
        assert int(metrics["step"]) > 0, "a loss was not finite"

    return once, sum(x.size for x in jax.tree.leaves(state.params))


def with_torch(name: str, batch: int, kind: str) -> tuple[Callable[[], None], int]:
    from torch_steps import make

    return make(name, batch, kind, len(os.sched_getaffinity(0)))


def serve(side: str, name: str, batch: int, cores: int) -> None:
    """Say how many numbers are learnt; then for each line that comes, how many seconds a step takes."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    once, learnt = with_ssljax(name, batch) if side == "ssljax" else with_torch(name, batch, side)
    once()
    once()
    print(learnt, flush=True)
    for _ in sys.stdin:
        begun, steps = time.perf_counter(), 0
        while not steps or time.perf_counter() - begun < SECONDS:
            once()
            steps += 1
        print((time.perf_counter() - begun) / steps, flush=True)


class Side:
    """A process that serves, and how long its steps took. `failure`: why it does not serve, as it said itself."""

    def __init__(self, side: str, name: str, batch: int, cores: int):
        command = [sys.executable, __file__, f"--side={side}", f"--only={name}", f"--batch={batch}", f"--cores={cores}"]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "JAX_PLATFORMS": "cpu"}
        said, pipe = tempfile.TemporaryFile("w+"), subprocess.PIPE
        self.process = subprocess.Popen(command, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=said)
        learnt = self.process.stdout.readline()
        said.seek(0)
        self.failure = "" if learnt else said.read().strip().splitlines()[-1]
        self.learnt, self.times = int(learnt or 0), []

    def turn(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.times.append(float(self.process.stdout.readline()))

    def end(self) -> None:
        self.process.communicate()


def measure(name: str, batch: int, repeats: int, cores: int) -> tuple[list, dict[str, str]]:
    """(a row of the table, why sides failed)"""
    row = ROWS[name]
    batch = batch or row.batch
    started = {side: Side(side, name, batch, cores) for side in SIDES if side != "channels-last" or row.convolutions}
    failures = {side: of.failure for side, of in started.items() if of.failure}
    sides = {side: of for side, of in started.items() if not of.failure}
    if missing := {"ssljax", "eager"} - set(sides):
        raise RuntimeError(f"{name}: {', '.join(f'{side}: {failures[side]}' for side in sorted(missing))}")
    for _ in range(repeats):
        for of in sides.values():
            of.turn()
    for of in sides.values():
        of.end()
    ours, theirs = sides["ssljax"].learnt, sides["eager"].learnt
    if abs(ours / theirs - 1) > 0.01:
        raise RuntimeError(f"{name}: {ours} numbers are learnt here and {theirs} there: these are two networks.")
    rates = {side: batch / statistics.median(of.times) for side, of in sides.items()}
    best = max(rate for side, rate in rates.items() if side != "ssljax")
    print(name, {side: round(rate, 2) for side, rate in rates.items()}, failures, flush=True, file=sys.stderr)
    return [name, batch, ours / 1e6, theirs / 1e6, *(rates.get(s) for s in SIDES), rates["ssljax"] / best], failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda names: names.split(","), default=list(ROWS), help=", ".join(ROWS))
    parser.add_argument("--batch", type=int, default=0, help="0: what each row has")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--side", choices=SIDES, help="serve one side, in this process")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(ROWS):
        parser.error(f"--only={','.join(sorted(unknown))} is unknown; there are {', '.join(ROWS)}.")
    if arguments.side:
        serve(arguments.side, arguments.only[0], arguments.batch, arguments.cores)
        return
    if missing := [package for package in THEIRS if not find_spec(package)]:
        install = "pip install -r requirements.txt -r benchmarks/requirements.txt"
        parser.error(f"there is no {', '.join(missing)}: {install}")

    from sections import compared, paragraph, publish, table

    found = {name: measure(name, arguments.batch, arguments.repeats, arguments.cores) for name in arguments.only}
    failed = [f"{name}, {side}: {why}" for name, (_, of) in found.items() for side, why in of.items()]
    head = f"""Made by `python benchmarks/steps.py --write`: examples a second that a train step takes in float32 on
        {arguments.cores} cores, of medians of {arguments.repeats} turns. An example is an image with all of its views
        of 32 pixels (DINO's are two, and six of 16), or a clip of two seconds at 16 kHz. Views were drawn before.
        PyTorch is given both views at once where the method allows it, and fused optimisers; "compiled" is
        `torch.compile` of networks and loss, channels-last where there are convolutions. The ratio is to its
        fastest."""
    learnt = ("learnt, millions", ".2f"), ("PyTorch's", ".2f")
    columns = ["step", ("batch", "d"), *learnt, *((side, ".1f") for side in SIDES), ("ratio", ".2f")]
    blocks = [paragraph(head), table(columns, [row for row, _ in found.values()])]
    blocks += [paragraph(f"Did not work: {'; '.join(failed)}.")] if failed else []
    publish("performance.md", "Steps", [*blocks, compared(*THEIRS)])


if __name__ == "__main__":
    main()
