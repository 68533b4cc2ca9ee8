"""What pretraining would need on pods that nobody has rented: a table of docs/scaling.md, compiled ahead of time.

    python benchmarks/pods.py [--cache=FILE] [--write]

Needs `pip install -r requirements-preflight.txt` and no TPU. Each row is one compilation of the real train step, which
takes minutes on a small machine; rows that lie in FILE (JSON lines) are not compiled again. With --write the table
goes into docs/scaling.md.
"""

import argparse
import json
import os
import runpy
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jax
from sections import ROOT, paragraph, publish, table

from ssljax.build import build_run
from ssljax.cost.topologies import Slice, open_slice
from ssljax.cost.units import GIB
from ssljax.engine.mesh import make_mesh
from ssljax.preflight import example_of, measure

SLICES = "v5e:2x4", "v5e:8x8", "v5e:16x16", "v5p:8x8x8"
GIANT = {"name": "vit_h", "width": 1408, "depth": 40, "heads": 16, "mlp_ratio": 48 / 11, "patch": 14}
WORK: list[tuple[str, str, dict, int]] = [
    *(("SimCLR ResNet-50", "simclr", {}, batch) for batch in (4096, 8192, 32768)),
    *((f"MAE ViT-{size.upper()}", "mae", {"name": f"vit_{size}"}, 4096) for size in "blh"),
    ("MAE ViT-g", "mae", GIANT, 4096),
]
STATE_SHARE = 0.25
COLUMNS = (
    *(
        "what",
        "batch",
        "chips",
        "data x fsdp",
        ("peak, GiB", ".2f"),
        ("sent, GiB", ".3f"),
        ("TFLOP", ".3g"),
        ("roofline, ms", ".3g"),
    ),
    *(("MFU at that", ".0%"), ("compiling, s", ".0f")),
)


def config_of(file: str, encoder: dict, batch: int):
    config = runpy.run_path(str(ROOT / "configs" / "images" / f"{file}.py"))["get_config"]("imagenet")
    config.batch_size = batch
    config.encoder.update(encoder)
    if file == "mae":
        config.encoder.update(scan=True, remat="blocks")
    return config


def smallest_fsdp(config, example, where: Slice) -> int:
    """The smallest power of two that leaves the train state on a chip no more than a quarter of its memory."""
    mesh = make_mesh(-1, 1, devices=where.devices)
    abstract = build_run(config, examples=1000 * config.batch_size, example=example, mesh=mesh).abstract
    state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(abstract))
    fsdp = 1
    while state / fsdp > STATE_SHARE * (where.limit or float("inf")):
        fsdp *= 2
    return fsdp


def compiled(config, example, where: Slice, fsdp: int) -> dict:
    """Compile a step: what a row says, and all that a later look at the cache may want to know."""
    start = time.process_time()
    cost = measure(config, example, where, make_mesh(-1, fsdp, devices=where.devices))
    jax.clear_caches()
    numbers = {
        "cpu_seconds": time.process_time() - start,
        "batch": config.batch_size,
        "topology": where.name,
        "data": cost.mesh.shape["data"],
        "fsdp": cost.mesh.shape["fsdp"],
        "peak": cost.memory.peak,
        "limit": cost.memory.limit,
        "fits": cost.memory.fits,
        "flops": cost.work.flops / cost.mesh.devices.size,
    }
    if cost.traffic and cost.roof:
        numbers |= {"sent": cost.traffic.sent, "roofline": cost.roof.seconds, "mfu": cost.roof.mfu}
        numbers["bound"] = cost.roof.bound
    return numbers


class Kept:
    """What is compiled, by names; a file (JSON lines) keeps it, so that one can go on after an interruption."""

    def __init__(self, path: Path | None):
        self.path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self.done: dict[str, dict] = dict(json.loads(line) for line in lines)

    def get(self, name: str, make: Callable[[], dict]) -> dict:
        if name not in self.done:
            self.done[name] = make()
            if self.path:
                with self.path.open("a") as file:
                    file.write(json.dumps([name, self.done[name]]) + "\n")
        return self.done[name]


def row(n: dict) -> list:
    chip, chips = n["topology"].partition(":")[0], n["data"] * n["fsdp"]
    cells = [n["what"], n["batch"], f"{chips} {chip}", f"{n['data']} x {n['fsdp']}"]
    if n["fits"]:
        cells += [n["peak"] / GIB, sum(n["sent"].values()) / GIB, n["flops"] / 1e12, 1000 * n["roofline"], n["mfu"]]
    else:
        peak = f"{n['peak'] / GIB:.2f} of {n['limit'] / GIB:.2f}: does not fit"
        cells += [peak, "", n["flops"] / 1e12, "", ""]
    return [*cells, n["cpu_seconds"]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--write", action="store_true", help="put the table into docs/scaling.md")
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    kept, rows = Kept(options.cache), []

    def make(what: str, file: str, encoder: dict, batch: int, topology: str) -> dict:
        where, config = open_slice(topology), config_of(file, encoder, batch)
        example, _ = example_of(config)
        return {"what": what} | compiled(config, example, where, smallest_fsdp(config, example, where))

    for work in WORK:
        for topology in SLICES:
            rows.append(row(kept.get(f"{work[0]} {work[3]} {topology}", partial(make, *work, topology))))
            print(*rows[-1], flush=True)
    blocks = [
        paragraph(
            """Made by `python benchmarks/pods.py --write`: the train steps of the `:imagenet` configs, compiled by the
            TPU compiler for slices that are not there. All is of one chip and one step: the most memory that is alive
            at once, what all collectives send, the operations of matrix products and convolutions, the time that no
            step can beat (the longest of computing, moving memory and sending, each at its peak), and the utilisation
            that it would mean; compiling is in seconds of one core, tracing included. Nothing here was run."""
        ),
        paragraph(
            f"""The mesh's `fsdp` is the smallest power of two that leaves the train state no more than
            {STATE_SHARE:.0%} of a chip's memory. ViTs have `encoder.scan` and `encoder.remat`; ViT-g is of width 1408,
            with 40 blocks of 16 heads, MLPs of 6144 and patches of 14."""
        ),
        table(COLUMNS, rows),
        f"{os.cpu_count()} CPU cores, jax {jax.__version__}, libtpu {version('libtpu')}.",
    ]
    publish("scaling.md", "Pods before they are rented", blocks)


if __name__ == "__main__":
    main()
