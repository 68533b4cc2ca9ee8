"""What a CPU gains by each of the things that are done for it alone: with and without, in turns.

    python benchmarks/tricks.py [--write]

With --write the table goes into docs/performance.md.
"""

import argparse
import runpy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from resource import RUSAGE_SELF, getrusage
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
from sections import ROOT, machine, paragraph, publish, table

from ssljax.build import build_run, build_source, example_batch, settle
from ssljax.commands import keep_memory
from ssljax.data.pipeline import train_batches
from ssljax.engine.mesh import to_devices
from ssljax.models import convolution
from ssljax.views import images

REPEATS = 5
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


def lines() -> Callable[[], Any]:
    """224 of 256, of 8 images."""
    matrix = jax.vmap(lambda start: images.resize_matrix(start, 200.0, 256, 224))(jnp.arange(8.0))
    pictures = jnp.ones((8, 256, 256, 3))
    resize = jax.jit(partial(images.resize_lines, reach=1)).lower(matrix, pictures).compile()
    return partial(resize, matrix, pictures)


def steps(keep: bool) -> None:
    """Print the seconds of a step of simclr:demo, and how many pages it was given."""

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
        taken.append(time.perf_counter() - begun)
        given.append(getrusage(RUSAGE_SELF).ru_minflt - before)
    print(statistics.median(taken[2:]), statistics.median(given[2:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--steps", choices=("kept", "given-back"), help="measure here, in this process")
    arguments = parser.parse_args()
    if arguments.steps:
        return steps(arguments.steps == "kept")
    rows = []
    for what, make, module, name in (
        ("a kernel's gradient, in groups of images", kernels_gradient, convolution, "PLACES"),
        ("lines of a crop, in blocks", lines, images, "BLOCK"),
    ):
        once = {"with": make()}
        with patch.object(module, name, NEVER):
            once["without"] = make()
        rounds = [{way: times(of) for way, of in once.items()} for _ in range(REPEATS + 1)][1:]
        rows.append([what, *(1000 * statistics.median(of[way] for of in rounds) for way in once)])
    of_steps: dict[str, list[list[float]]] = {"kept": [], "given-back": []}
    for _ in range(3):
        for way, found in of_steps.items():
            command = [sys.executable, __file__, f"--steps={way}"]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found.append([float(x) for x in said.split()])
    seconds, pages = ([statistics.median(of[i] for of in found) for found in of_steps.values()] for i in (0, 1))
    rows.append(["a step of simclr:demo, freed memory is kept", *(1000 * x for x in seconds)])
    columns = ["what", ("with, ms", ".1f"), ("without, ms", ".1f"), ("without / with", ".2f")]
    head = f"""Made by `python benchmarks/tricks.py --write`: what is done for CPUs alone, and the same without, in
        turns; medians of {REPEATS}. In that step the process is given {pages[0]:,.0f} pages with it, and
        {pages[1]:,.0f} without."""
    table_of = table(columns, [[*row, row[2] / row[1]] for row in rows])
    publish("performance.md", "What is done for a CPU", [paragraph(head), table_of, machine()])


if __name__ == "__main__":
    main()
