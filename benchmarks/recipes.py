"""What the full recipes of all kinds of data but images need: a table of docs/scaling.md, compiled ahead of time.

    python benchmarks/recipes.py [--cache=FILE] [--only=NAME | --kept] [--write]

Needs `pip install -r requirements-preflight.txt -r requirements-text.txt` and neither a TPU nor the data. Each row is
one compilation of the real train step; rows that lie in FILE (JSON lines) are not compiled again, unless their configs
have changed. --only: those whose name holds NAME; nothing is written then. --kept: nothing is compiled, and what is not
in FILE is named below the table.
"""

import argparse
import hashlib
import os
import runpy
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jax
from ml_collections import ConfigDict
from pods import Kept, compiled
from sections import ROOT, paragraph, publish, table

from ssljax.cost.topologies import open_slice
from ssljax.cost.units import GIB, readable
from ssljax.preflight import example_of

PROTEINS, NCI1 = (620, 3, 2098), (111, 37, 238)
"""Nodes, features and edges of the largest graph, as `open_graphs` finds them in the TU sets of these names."""
WORK: list[tuple[str, str, str, dict]] = [
    ("speech/cpc", "paper", "v5e:2x4", {}),
    ("speech/wav2vec2", "paper", "v5e:8x8", {}),
    ("speech/wav2vec2", "large", "v5e:8x16", {}),
    ("text/bert", "paper", "v5e:4x4", {}),
    ("text/bert", "paper", "v5e:4x4", {"data.length": 512, "method.most_masked": 76}),
    ("text/gpt", "paper", "v5e:2x4", {}),
    ("text/gpt", "shakespeare", "v5e:1x1", {}),
    ("image_text/clip", "paper", "v5e:16x16", {}),
    ("video/videomae", "paper", "v5e:8x8", {}),
    ("nodes/dgi", "paper", "v5e:1x1", {}),
    ("graphs/graphcl", "paper", "v5e:1x1", {}),
    ("graphs/graphcl", "paper", "v5e:1x1", {"data.source": "tu:PATH", "data.shape": PROTEINS}),
    ("graphs/graphcl", "paper", "v5e:1x1", {"data.source": "tu:PATH", "data.shape": NCI1}),
    ("tables/scarf", "paper", "v5e:1x1", {}),
    ("tables/vime", "paper", "v5e:1x1", {}),
    ("series/ts2vec", "paper", "v5e:1x1", {"data.shape": (256, 1)}),
    ("series/ts2vec", "paper", "v5e:1x1", {"data.shape": (3000, 1)}),
]
"""Config, variant, the slice that its table names or the smallest that holds it, and what else is set."""
COLUMNS = (
    *("recipe", "batch", "chips", "peak, GiB", ("TFLOP", ".3g"), ("roofline, ms", ".3g"), "bound by"),
    *("largest collective", ("compiling, s", ".0f")),
)


def config_of(file: str, variant: str, fields: dict) -> ConfigDict:
    config = runpy.run_path(str(ROOT / "configs" / f"{file}.py"))["get_config"](variant)
    config.update_from_flattened_dict(fields)
    return config


def make(config: ConfigDict, topology: str) -> dict:
    where = open_slice(topology)
    example, assumed = example_of(config)
    return compiled(config, example, where, fsdp=1) | {"assumed": [line.partition(": ")[2] for line in assumed]}


def name_of(file: str, variant: str, fields: dict) -> str:
    told = [f"{name.partition('.')[2]}={value}".replace(" ", "") for name, value in fields.items()]
    return f"`{Path(file).name}:{variant}`" + (f" {' '.join(told)}" if told else "")


def row(name: str, n: dict) -> list:
    chip, chips = n["topology"].partition(":")[0], n["data"] * n["fsdp"]
    cells = [name, n["batch"], f"{chips} {chip}", f"{n['peak'] / GIB:.2f} of {n['limit'] / GIB:.2f}"]
    cells[-1] += "" if n["fits"] else ": does not fit"
    cells.append(n["flops"] / 1e12)
    if "sent" in n:
        kind, size = max(n["sent"].items(), key=lambda item: item[1])
        cells += [1000 * n["roofline"], n["bound"]]
        cells.append(f"{kind}, {readable(size, 'B', 1024)}" if size else "none")
    else:
        cells += ["", "", ""]
    return [*cells, n["cpu_seconds"]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--kept", action="store_true")
    parser.add_argument("--write", action="store_true", help="put the table into docs/scaling.md")
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    kept, rows, assumed, missing = Kept(options.cache), [], [], []
    for file, variant, topology, fields in WORK:
        name, config = name_of(file, variant, fields), config_of(file, variant, fields)
        key = f"{name} {topology} {hashlib.sha256(config.to_json().encode()).hexdigest()[:12]}"
        if options.kept and key not in kept.done:
            missing.append(name)
        elif options.only in name:
            found = kept.get(key, partial(make, config, topology))
            rows.append(row(name, found))
            print(*rows[-1], flush=True)
            assumed += [f"{name}: {line}" for line in found["assumed"]]
    if options.only:
        return
    blocks = [
        paragraph(
            """Made by `python benchmarks/recipes.py --write`: the train steps of the full recipes of all kinds of data
            but images, compiled by the TPU compiler for slices that are not there. All is of one chip and one step,
            and the columns are those of the section above; `fsdp` is 1 everywhere. Nothing here was run; of data not
            there:"""
        ),
        "\n".join(f"- {line}" for line in assumed),
        table(COLUMNS, rows),
        *([f"Not compiled: {', '.join(missing)}."] if missing else []),
        paragraph(
            """`videomae:ssv2` is the same step as `:paper`. Only products and convolutions are counted: sums over the
            neighbours in a graph are not, nor is the time that one recurrent step waits for another."""
        ),
        f"{os.cpu_count()} CPU cores, jax {jax.__version__}, libtpu {version('libtpu')}.",
    ]
    publish("scaling.md", "Full recipes of other kinds of data", blocks)


if __name__ == "__main__":
    main()
