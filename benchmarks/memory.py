"""What each demo's step holds at its peak, beside what no step could do without.

    python benchmarks/memory.py [--only=simclr] [--write]

Steps are compiled for this machine's CPU and not run.
"""

import argparse
import math
import runpy

import jax
import jax.extend
from sections import ROOT, machine, paragraph, publish, table

from ssljax.build import Run, build_run, build_source, example_batch, settle
from ssljax.collectives import example_keys
from ssljax.cost.memory import memory_of
from ssljax.engine.mesh import abstract_batch
from ssljax.typing import PyTree

MIB = 2**20


def size_of(tree: PyTree) -> int:
    """Bytes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def kept(run: Run, batch: PyTree, size: int) -> int:
    """Bytes of what the forward pass leaves for the backward pass, but parameters: of the loss of all views at once."""
    keys = jax.eval_shape(lambda: example_keys(jax.random.key(0), size))
    views = jax.eval_shape(run.method.views, keys, batch)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def pullback(params, state, views, key):
        return jax.vjp(lambda params: run.method.loss(params, state, views, key, None), params, has_aux=True)[1]

    traced = jax.make_jaxpr(pullback)(run.abstract.params, run.abstract, views, key).jaxpr
    given = set(traced.invars)
    left = {x for x in traced.outvars if not isinstance(x, jax.extend.core.Literal) and x not in given}
    return sum(x.aval.size * x.aval.dtype.itemsize for x in left)


def least_of(run: Run, batch: PyTree, size: int) -> tuple[int, int, int]:
    """Bytes of the state, of what is kept, and of these with the batch and a gradient for each parameter."""
    state, left = size_of(run.abstract), kept(run, batch, size)
    return state, left, state + size_of(batch) + size_of(run.abstract.params) + left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="the name of a method")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for path in sorted((ROOT / "configs").glob("*/*.py")):
        if arguments.only not in (None, path.stem):
            continue
        config = runpy.run_path(str(path))["get_config"]("demo")
        source = build_source(config, "train")
        settle(config, source)
        run = build_run(config, examples=len(source), example=example_batch(config, source))
        batch = abstract_batch(example_batch(config, source), config.batch_size, run.mesh)
        state, left, least = least_of(run, batch, config.batch_size)
        peak = memory_of(run.step.lower(run.abstract, batch).compile(), None).peak
        rows.append([path.stem, config.batch_size, *(x / MIB for x in (state, left, least, peak)), peak / least])
        print(*rows[-1], flush=True)
    head = """Made by `python benchmarks/memory.py --write`: MiB of each `:demo`'s step, as the compiler laid it out.
        Least is the state, the batch, a gradient for each parameter, and all that the forward pass, as it is written,
        leaves for the backward pass; a compiler that makes some of that anew, instead of keeping it, needs less."""
    columns = ["method", ("batch", "d"), *((name, ".1f") for name in ("state", "left for backward", "least", "peak"))]
    publish("performance.md", "Memory", [paragraph(head), table([*columns, ("peak / least", ".2f")], rows), machine()])


if __name__ == "__main__":
    main()
