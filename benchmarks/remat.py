"""What a chip holds, and how much more it computes, where blocks are computed again.

    pip install -r requirements-preflight.txt && TPU_SKIP_MDS_QUERY=1 python benchmarks/remat.py [--write]

Steps are compiled for a TPU ahead of time, and not run.
"""

import argparse
import runpy
from pathlib import Path

import jax
from sections import ROOT, compared, paragraph, publish, table

from ssljax.cost.flops import count_work
from ssljax.cost.memory import memory_of
from ssljax.cost.topologies import open_slice
from ssljax.cost.units import GIB
from ssljax.engine.mesh import make_mesh
from ssljax.models.remat import POLICIES
from ssljax.preflight import _trace, example_of

SLICE, PER_CHIP = "v5e:2x2", 64
RECIPES = ("images/mae", "imagenet", "vit_l"), ("text/bert", "paper", "bert_base")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    where = open_slice(SLICE)
    mesh = make_mesh(len(where.devices), 1, where.devices)
    rows = []
    for name, variant, encoder in RECIPES:
        config = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"](variant)
        config.encoder.update(name=encoder, scan=True)
        config.batch_size, config.dtype = PER_CHIP * len(where.devices), "bfloat16"
        example, once = example_of(config)[0], 0.0
        for remat in ("", *POLICIES):
            config.encoder.remat = remat
            _, traced = _trace(config, example, mesh)
            work = count_work(traced.jaxpr).flops
            once = once or work
            memory = memory_of(traced.lower().compile(), None)
            here = f"{Path(name).name}, {encoder}"
            rows.append([here, remat or "–", memory.temporaries / GIB, memory.peak / GIB, work / once])
            print(*rows[-1], flush=True)
    head = f"""Made by `python benchmarks/remat.py --write`: GiB that a chip of {SLICE} holds in a step of {PER_CHIP}
        examples a chip, in bfloat16 and with `encoder.scan`: what comes besides its arguments (the state and the
        batch), and all of it; and the work of the step, as a multiple of what it is where nothing is computed again.
        `products` keeps what products with weights give, `blocks` each block's input alone."""
    columns = ["recipe", "encoder.remat", ("temporary", ".2f"), ("peak", ".2f"), ("work", ".3f")]
    publish("scaling.md", "Blocks that are computed again", [paragraph(head), table(columns, rows), compared("libtpu")])


if __name__ == "__main__":
    main()
