"""Pretrain and evaluate every demo, and print the table of docs/results.md.

    python benchmarks/demos.py [--write] [--runs=runs/demos]

Runs that are complete already are not repeated. With --write the table goes into docs/results.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"
HEAD = """# What the demos reach

Made by `python benchmarks/demos.py --write`: each `:demo` pretrained on the 8,000 embedded training images with its
default seed, and judged on the 2,000 embedded test images by its last checkpoint. ± is one standard error over test
images; the margins are paired differences in standard errors. The embedded images are a re-encoded part of CIFAR-10
(`ssljax/data/demo/README.md`), so these are not CIFAR-10 numbers.

"""


def percent(cell: dict) -> str:
    return f"{100 * cell['accuracy']:.1f} ± {100 * cell['standard_error']:.1f}"


def margins(row: dict) -> str:
    return ", ".join(f"{m['difference'] / m['standard_error']:.0f} over {floor}" for floor, m in row.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "demos")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()

    lines = ["| method | features | k-NN, % | linear, % |", "|---|---|---|---|"]
    notes = []
    for config in sorted((ROOT / "configs").glob("*/*.py")):
        workdir = arguments.runs / config.stem
        for command in (["ssljax.train", f"--config={config}:demo"], ["ssljax.evaluate"]):
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            subprocess.run([sys.executable, "-m", *command, f"--workdir={workdir}"], check=True, env=environment)
        results = json.loads((workdir / "results.json").read_text())
        for name, row in results["encoders"].items():
            lines.append(f"| {config.stem} | {name} | {percent(row['knn'])} | {percent(row['linear'])} |")
        notes.append(
            f"- {config.stem}, {results['step']} steps: pretrained is ahead by (standard errors) "
            f"k-NN {margins(results['margins']['knn'])}; linear {margins(results['margins']['linear'])}."
        )
    protocols = [f"- {name}: {text}." for name, text in results["protocols"].items()]
    versions = f"Python {platform.python_version()}, jax {__import__('jax').__version__}, {os.cpu_count()} CPU cores."
    page = HEAD + "\n".join([*lines, "", *notes, "", "Protocols:", "", *protocols, "", versions, ""])
    print(page)
    if arguments.write:
        PAGE.write_text(page)


if __name__ == "__main__":
    main()
