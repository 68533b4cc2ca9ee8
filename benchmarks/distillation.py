"""Run the chains of docs/distillation.md, each run the teacher of the next, and print their table.

    python benchmarks/distillation.py [--write] [--chain=simclr_v2] [--runs=runs/distillation]

What the runs gave is read from their results.json; a finished run is not repeated. With --write the table
goes into docs/distillation.md.
"""

import argparse
import json
from pathlib import Path

import jax
from sections import ROOT, machine, paragraph, publish, table
from trials import EVALUATE, make

import ssljax

CHAINS = {"simclr_v2": ("demo", "fine_tune_demo", "distill_demo"), "dinov2": ("demo", "distill_demo")}
SCORES = "its own classifier", "k-NN", "linear", "random init", "k-NN ahead by", "linear ahead by"
COLUMNS = ["run", ("encoder, M", ".2f"), *((name, ".1f") for name in SCORES)]


def percent(of: dict[str, float], of_what: str = "accuracy") -> tuple[float, float]:
    return 100 * of[of_what], 100 * of["standard_error"]


def row(name: str, workdir: Path) -> list:
    results = json.loads((workdir / "results.json").read_text())
    mine, start = (results["encoders"][name] for name in ("pretrained", "random init"))
    ahead = [percent(results["margins"][protocol]["random init"], "difference") for protocol in ("knn", "linear")]
    parameters = sum(x.size for x in jax.tree.leaves(ssljax.load(workdir).state.params["encoder"])) / 1e6
    return [
        name,
        parameters,
        percent(results["classifier"]) if "classifier" in results else "has none",
        percent(mine["knn"]),
        percent(mine["linear"]),
        f"{100 * start['knn']['accuracy']:.1f}, {100 * start['linear']['accuracy']:.1f}",
        *ahead,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "distillation")
    parser.add_argument("--chain", choices=CHAINS, help="only this one is run")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()

    head = """Made by `python benchmarks/distillation.py --write`, with one seed, in percent of the 2,000 embedded test
        images; ± is the standard error of the test images. Random init is of the same encoder: k-NN, linear."""
    rows, raw = [], {}
    for chain, variants in CHAINS.items():
        teacher = None
        for variant in variants:
            workdir = arguments.runs / f"{chain}-{variant}"
            if arguments.chain in (chain, None):
                fields = {"method.teacher": teacher} if teacher else {}
                make(workdir, ROOT / "configs" / "images" / f"{chain}.py", variant, fields, EVALUATE)
            if (workdir / "results.json").exists():
                rows.append(row(f"`{chain}.py:{variant}`", workdir))
                raw = json.loads((workdir / "results.json").read_text())["encoders"]["raw pixels"]
            teacher = workdir
    floor = ", ".join(f"{name} {100 * of['accuracy']:.1f} %" for name, of in raw.items())
    blocks = [paragraph(head), table(COLUMNS, rows), f"Raw pixels: {floor}.", machine()]
    publish("distillation.md", "What the demos reach", blocks)


if __name__ == "__main__":
    main()
