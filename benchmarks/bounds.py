"""What takes the time of each demo's step, beside the time that its floating-point operations and bytes need here.

    python benchmarks/bounds.py [--only=simclr,mae] [--write]

With --write the table goes into docs/performance.md.
"""

import argparse
import re
import runpy
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from memory import least_of, size_of
from sections import ROOT, machine, paragraph, publish, table

from ssljax.build import build_run, build_source, example_batch, settle
from ssljax.cost.flops import count_work
from ssljax.data.pipeline import train_batches
from ssljax.engine.mesh import abstract_batch, to_devices

REPEATS = 10
SIDE, NUMBERS = 2048, 2**26
"""Of the product and of the sum that show what the machine can do: 17 GFLOP, and 768 MiB read and written."""
PRODUCTS = re.compile("ynn|dot|conv")
MOVES = frozenset(
    "bitcast broadcast concatenate copy dynamic gather pad reshape reverse scatter slice transpose".split()
)
MADE = frozenset(("fusion", "wrapped", "clone"))
"""Of which a fusion's name is made besides."""


def median_seconds(once: Callable[[], Any]) -> float:
    """Of a call, after two that are not counted."""
    times = []
    for _ in range(REPEATS + 2):
        begun = time.perf_counter()
        jax.block_until_ready(once())
        times.append(time.perf_counter() - begun)
    return statistics.median(times[2:])


def peaks() -> tuple[float, float]:
    """FLOP/s of a large product in float32, and bytes/s of adding two arrays."""
    square, line = jnp.ones((SIDE, SIDE)), jnp.ones(NUMBERS)
    product, add = jax.jit(jnp.matmul), jax.jit(jnp.add)
    return (
        2 * SIDE**3 / median_seconds(lambda: product(square, square)),
        3 * line.nbytes / median_seconds(lambda: add(line, line)),
    )


def shares(once: Callable[[], Any]) -> dict[str, float]:
    """Of the time of all operations, by XLA's names for them: products and convolutions, what moves numbers without
    reckoning, and what goes from number to number."""
    took: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(once())
        (path,) = Path(folder).rglob("*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for event in (event for line in plane.lines for event in line.events):
                name = dict(event.stats).get("hlo_op")
                if name:
                    moves = set(re.findall("[a-z]+", name)) - MADE <= MOVES
                    kind = "products" if PRODUCTS.search(name) else "moves" if moves else "rest"
                    took[kind] += event.duration_ns
    return {kind: took[kind] / took.total() for kind in ("products", "moves", "rest")}


def row(path: Path, flops_peak: float, bytes_peak: float) -> list:
    config = runpy.run_path(str(path))["get_config"]("demo")
    source = build_source(config, "train")
    settle(config, source)
    run = build_run(config, examples=len(source), example=example_batch(config, source))
    shapes = abstract_batch(example_batch(config, source), config.batch_size, run.mesh)
    flops = count_work(run.step.trace(run.abstract, shapes).jaxpr).flops
    # What is kept is written once and read once; so are gradients; the state is read, and written anew.
    moved = 2 * least_of(run, shapes, config.batch_size)[-1]
    batch = to_devices(next(train_batches(source, batch_size=config.batch_size, seed=0)), run.mesh)
    state = run.init()

    def once():
        nonlocal state
        state, metrics = run.step(state, batch)
        return metrics

    seconds = median_seconds(once)
    floor = max(flops / flops_peak, moved / bytes_peak)
    times = (1000 * x for x in (seconds, flops / flops_peak, moved / bytes_peak))
    numbers = [flops / 1e9, moved / 2**20, *times, seconds / floor]
    return [path.stem, size_of(run.abstract.params) / 4e6, *numbers, *shares(once).values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda names: names.split(","), help="names of methods")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    flops_peak, bytes_peak = peaks()
    rows = []
    for path in sorted((ROOT / "configs").glob("*/*.py")):
        if not arguments.only or path.stem in arguments.only:
            rows.append(row(path, flops_peak, bytes_peak))
            print(*rows[-1], flush=True)
            jax.clear_caches()
    head = f"""Made by `python benchmarks/bounds.py --write`: a step of each `:demo` as it is run, views and all, median
        of {REPEATS}. FLOPs are those of its matrix products and convolutions, bytes twice what a step must hold at its
        peak ("least" of the table of memory): each is written once and read once. The floors are these at what this
        machine does when it does nothing else: {flops_peak / 1e9:.0f} GFLOP/s in a product of {SIDE} x {SIDE} numbers,
        {bytes_peak / 1e9:.1f} GB/s when two long arrays are added. The step is given as a multiple of the larger one.
        The last columns are shares of the time that XLA's operations take: products and convolutions; those that move
        numbers (copies, transposes, gathers); and all others, which go from number to number or add up."""
    columns = ["method", ("parameters, millions", ".2f"), ("GFLOP", ".2f"), ("MiB", ".1f"), ("step, ms", ".1f")]
    columns += [("floor of FLOPs, ms", ".1f"), ("floor of bytes, ms", ".1f"), ("step / floor", ".1f")]
    columns += [(kind, ".0%") for kind in ("products", "moves", "the rest")]
    publish("performance.md", "What takes the time", [paragraph(head), table(columns, rows), machine()])


if __name__ == "__main__":
    main()
