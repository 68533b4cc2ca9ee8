"""What augmentation costs: time of each demo's views beside its whole train step, on this machine.

    python benchmarks/views.py [--write]

With --write the table goes into docs/views.md. Each row is one process and one compilation; the ratio is of medians
over alternating runs.
"""

import runpy
import statistics
import time

import jax
from sections import ROOT, machine, publish, table

from ssljax.build import build_run, build_source, example_batch
from ssljax.collectives import example_keys
from ssljax.data.pipeline import train_batches
from ssljax.engine.mesh import to_devices

REPEATS = 10


def seconds(function) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def main() -> None:
    rows = []
    for path in sorted((ROOT / "configs" / "images").glob("*.py")):
        config = runpy.run_path(str(path))["get_config"]("demo")
        source = build_source(config, "train")
        run = build_run(config, examples=len(source), example=example_batch(config, source))
        batch = to_devices(next(train_batches(source, batch_size=config.batch_size, seed=0)), run.mesh)
        keys = example_keys(jax.random.key(0), config.batch_size)
        views = jax.jit(run.method.views)
        state = run.init()
        times: dict[str, list[float]] = {"views": [], "step": []}
        for i in range(REPEATS + 1):
            drawn = seconds(lambda views=views, batch=batch, keys=keys: views(keys, batch))
            start = time.perf_counter()
            state, _ = jax.block_until_ready(run.step(state, batch))
            if i:  # the first of each compiles
                times["views"].append(drawn)
                times["step"].append(time.perf_counter() - start)
        v, s = (1000 * statistics.median(times[name]) for name in ("views", "step"))
        rows.append([path.stem, v, s, v / s])
    head = "Made by `python benchmarks/views.py --write`: median times of each demo's views and of its whole step."
    columns = "demo", ("views, ms", ".1f"), ("step, ms", ".1f"), ("views / step", ".3f")
    publish("views.md", "Of the demos on a CPU", [head, table(columns, rows), machine()])


if __name__ == "__main__":
    main()
