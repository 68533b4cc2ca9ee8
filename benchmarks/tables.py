"""What SCARF and VIME make of a table, beside their floors, with several seeds; writes a section of docs/results.md.

    python benchmarks/tables.py --source=csv:adult.csv [--write] [--seeds=3] [--runs=runs/tables]

The settings are those of `:demo`, for the whole table: one row in ten is held out, and probes see 1 %, 10 % and all of
the labels of the others. A run whose folder has results is not repeated.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import textwrap
from pathlib import Path

from sections import machine, publish

ROOT = Path(__file__).parents[1]
METHODS = "scarf", "vime"
PROTOCOLS = {"knn": "k-NN", "linear_1": "1 % of labels", "linear_10": "10 % of labels", "linear": "all labels"}


def run(method: str, source: str, seed: int, workdir: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    config = f"--config={ROOT / 'configs' / 'tables' / f'{method}.py'}:demo"
    fields = [f"--config.data.source={source}", f"--config.seed={seed}", "--config.evaluate.every=0"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    for command in (["ssljax.train", config, *fields], ["ssljax.evaluate"]):
        subprocess.run([sys.executable, "-m", *command, f"--workdir={workdir}"], check=True, env=environment)
        if command[0] == "ssljax.train":
            seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    (workdir / "seconds.json").write_text(json.dumps(seconds))


def cells(runs: list[dict], encoder: str) -> list[str]:
    """Mean and standard deviation over seeds, in percent."""
    found = []
    scores = [r["encoders"][encoder] for r in runs]
    for protocol in PROTOCOLS:
        numbers = [100 * score[protocol]["accuracy"] for score in scores if protocol in score]
        found.append(f"{statistics.mean(numbers):.1f} ± {statistics.stdev(numbers):.1f}" if numbers else "–")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "tables")
    parser.add_argument("--seeds", type=int, default=3, help="two at least")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()

    name = Path(arguments.source.partition(":")[2]).name or arguments.source
    rows, minutes = [], {}
    for method in METHODS:
        runs = []
        for seed in range(arguments.seeds):
            workdir = arguments.runs / f"{method}-{seed}"
            if not (workdir / "seconds.json").exists():
                run(method, arguments.source, seed, workdir)
            runs.append(json.loads((workdir / "results.json").read_text()))
            minutes.setdefault(method, []).append(json.loads((workdir / "seconds.json").read_text()) / 60)
        rows += [[method, encoder, *cells(runs, encoder)] for encoder in runs[-1]["encoders"]]
    counts = runs[-1]["examples"]
    of_methods = ", ".join(f"{method} {statistics.mean(of):.1f}" for method, of in minutes.items())
    train, test = f"{counts['train']:,}", f"{counts['test']:,}"
    head = f"""Made by `python benchmarks/tables.py --write --source=csv:{name}`: the settings of `:demo` on {train}
        rows of {name}, judged on {test} that are held out. Accuracy in percent, ± the standard deviation of
        {arguments.seeds} seeds; probes are logistic regressions on frozen features, parts of the labels the mean of
        five draws. Methods scale numbers differently, and so their raw columns differ. CPU minutes of pretraining:
        {of_methods}."""
    lines = [
        *textwrap.wrap(" ".join(head.split()), 118),
        "",
        f"| method | features | {' | '.join(PROTOCOLS.values())} |",
        "|---" * (2 + len(PROTOCOLS)) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        machine(),
    ]
    publish("results.md", "What tables give", lines)


if __name__ == "__main__":
    main()
