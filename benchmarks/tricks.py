"""What a CPU gains by each of the things that are done for it alone: with and without, in turns.

    python benchmarks/tricks.py [--write]

With --write the table goes into docs/performance.md.
"""

import argparse
import json
import os
import runpy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from resource import RUSAGE_SELF, getrusage
from types import ModuleType
from typing import Any
from unittest.mock import patch

import flax.linen as nn
import jax
import jax.numpy as jnp
from sections import ROOT, machine, paragraph, publish, table

from ssljax.build import build_run, build_source, example_batch, settle
from ssljax.commands import keep_memory
from ssljax.data.pipeline import train_batches
from ssljax.engine.mesh import to_devices
from ssljax.models import convolution, vit
from ssljax.views import images

REPEATS, ROUNDS = 5, 3
NEVER = sys.maxsize


def times(once: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    jax.block_until_ready(once())
    return time.perf_counter() - begun


def kernels_gradient() -> Callable[[], Any]:
    """Of a convolution of 128 images of 32 x 32 with 64 channels."""
    x, kernel = jnp.ones((128, 32, 32, 64)), jnp.ones((3, 3, 64, 64))

    def total(kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        y = convolution.conv_general_dilated(x, kernel, (1, 1), [(1, 1), (1, 1)], dimension_numbers=numbers)
        return jnp.sum(jnp.sin(y))

    return partial(jax.jit(jax.grad(total)).lower(kernel).compile(), kernel)


def kernels_of_one_place() -> Callable[[], Any]:
    """As `kernels_gradient`, of one place, to 256 channels, of 32 images."""
    x, kernel = jnp.ones((32, 32, 32, 64)), jnp.ones((1, 1, 64, 256))

    def total(kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jnp.sum(jnp.sin(convolution.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=numbers)))

    return partial(jax.jit(jax.grad(total)).lower(kernel).compile(), kernel)


def lines() -> Callable[[], Any]:
    """224 of 256, of 8 images."""
    matrix = jax.vmap(lambda start: images.resize_matrix(start, 200.0, 256, 224))(jnp.arange(8.0))
    pictures = jnp.ones((8, 256, 256, 3))
    resize = jax.jit(partial(images.resize_lines, reach=1)).lower(matrix, pictures).compile()
    return partial(resize, matrix, pictures)


def block() -> Callable[[], Any]:
    """The gradient of a Transformer's block, 128 x 65 tokens of width 192."""
    x, of_vit = jnp.ones((128, 65, 192)), vit.Block(heads=3)
    params = of_vit.init(jax.random.key(0), x)

    def total(params, x):
        return jnp.sum(jnp.sin(of_vit.apply(params, x)))

    return partial(jax.jit(jax.grad(total, argnums=(0, 1))).lower(params, x).compile(), params, x)


def of_flax(heads, kernel_init, out_init, **fields) -> nn.Module:
    """Attention with a product each for queries, keys and values."""
    return nn.MultiHeadDotProductAttention(
        heads, kernel_init=kernel_init, out_kernel_init=out_init, deterministic=True, **fields
    )


def turns(make: Callable[[], Callable[[], Any]], module: ModuleType, name: str, without: Any = NEVER) -> list[float]:
    """Median milliseconds with it, and without: with another value of that name, by default a size from which on it is
    done that is never reached."""
    ways = [make()]
    with patch.object(module, name, without):
        ways.append(make())
    rounds = [[times(once) for once in ways] for _ in range(REPEATS + 1)][1:]
    return [1000 * statistics.median(of) for of in zip(*rounds, strict=True)]


def step(keep: bool) -> list[float]:
    """Median milliseconds of a step of simclr:demo, and how many pages it was given."""
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # as in training
    if keep:
        keep_memory()
    config = runpy.run_path(str(ROOT / "configs" / "images" / "simclr.py"))["get_config"]("demo")
    source = build_source(config, "train")
    settle(config, source)
    run = build_run(config, examples=len(source), example=example_batch(config, source))
    batch = to_devices(next(train_batches(source, batch_size=config.batch_size, seed=0)), run.mesh)
    state, taken, given = run.init(), [], []
    for _ in range(REPEATS + 2):
        before, begun = getrusage(RUSAGE_SELF).ru_minflt, time.perf_counter()
        state, _ = jax.block_until_ready(run.step(state, batch))
        taken.append(1000 * (time.perf_counter() - begun))
        given.append(getrusage(RUSAGE_SELF).ru_minflt - before)
    return [statistics.median(taken[2:]), statistics.median(given[2:])]


PARTS: dict[str, Callable[[], list[float]]] = {
    "kernels": partial(turns, kernels_gradient, convolution, "PLACES"),
    "one place": partial(
        turns, kernels_of_one_place, convolution, "conv_general_dilated", jax.lax.conv_general_dilated
    ),
    "lines": partial(turns, lines, images, "BLOCK"),
    "rows": partial(turns, block, vit, "Dense", nn.Dense),
    "products": partial(turns, block, vit, "Attention", of_flax),
    "kept": partial(step, True),
    "given back": partial(step, False),
}


def measured(part: str, cores: int) -> list[float]:
    """By a Python of its own, on so many cores."""
    command = [sys.executable, __file__, f"--part={part}", f"--cores={cores}"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--part", choices=PARTS, help="measure here, in this process")
    parser.add_argument("--cores", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.part:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
        return print(json.dumps(PARTS[arguments.part]()))
    rows = [
        [what, cores, *measured(part, cores)]
        for what, part in (
            ("a kernel's gradient, in groups of images", "kernels"),
            ("the same of one place, as a product", "one place"),
            ("lines of a crop, in blocks", "lines"),
            ("a Transformer's block, its rows as one matrix in the MLP", "rows"),
            ("the same, queries, keys and values in one product", "products"),
        )
        for cores in (1, 2)
    ]
    found: dict[str, list[list[float]]] = {"kept": [], "given back": []}
    for _ in range(ROUNDS):
        for part, of in found.items():
            of.append(measured(part, 2))
    kept, given_back = ([statistics.median(column) for column in zip(*of, strict=True)] for of in found.values())
    rows.append(["a step of simclr:demo, freed memory is kept", 2, kept[0], given_back[0]])
    columns = ["what", ("cores", "d"), ("with, ms", ".1f"), ("without, ms", ".1f"), ("without / with", ".2f")]
    head = f"""Made by `python benchmarks/tricks.py --write`: what is done for CPUs alone, and the same without, in
        turns; medians of {REPEATS}, for the step of {ROUNDS} runs besides. In that step the process is given
        {kept[1]:,.0f} pages with it, and {given_back[1]:,.0f} without."""
    table_of = table(columns, [[*row, row[3] / row[2]] for row in rows])
    publish("performance.md", "What is done for a CPU", [paragraph(head), table_of, machine()])


if __name__ == "__main__":
    main()
