"""How well TS2Vec foretells one long series, with several seeds, beside floors and what the authors report.

    python benchmarks/forecast.py --source=csv:ETTh1.csv --length=216 [--write] [--seeds=3] [--runs=runs/forecast]

`--length` is that of a training piece. Writes a section of docs/results.md. Runs whose folder has forecasts are not
repeated.
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

from sections import ROOT, machine, publish

HORIZONS = 24, 48, 168, 336, 720
REPORTED = {"ETTh1": {24: 0.599}}
"""Squared errors of all channels that Yue et al., 2022, report, by horizon."""
CONFIG = ROOT / "configs" / "series" / "ts2vec.py"


def run(arguments: argparse.Namespace, seed: int, workdir: Path) -> None:
    train = [
        "ssljax.train",
        f"--config={CONFIG}:forecast",
        f"--config.data.source={arguments.source}",
        f"--config.data.length={arguments.length}",
        f"--config.seed={seed}",
        "--config.evaluate.every=0",
    ]
    foretell = ["ssljax.forecast", f"--horizons={','.join(map(str, HORIZONS))}"]
    seconds = []
    for command in (train, foretell):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        command = [sys.executable, "-m", *command, f"--workdir={workdir}"]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
        seconds.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
    (workdir / "seconds.json").write_text(json.dumps(seconds))


def cell(errors: list[dict]) -> str:
    """Mean, and standard deviation where it differs between seeds, of both errors."""
    shown = []
    for kind in ("mse", "mae"):
        values = [error[kind] for error in errors]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        shown.append(f"{statistics.mean(values):.3f}" + (f" ± {spread:.3f}" if spread > 5e-4 else ""))
    return " / ".join(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "forecast")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--name", default="ETTh1", help="what the set is called")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()

    found, minutes = [], []
    for seed in range(arguments.seeds):
        workdir = arguments.runs / f"ts2vec-{arguments.name}-{arguments.length}-{seed}"
        if not (workdir / "seconds.json").exists():
            run(arguments, seed, workdir)
        found.append(json.loads((workdir / "forecasts.json").read_text()))
        minutes.append([seconds / 60 for seconds in json.loads((workdir / "seconds.json").read_text())])
    config = json.loads((workdir / "config.json").read_text())
    training, judging = (statistics.mean(of) for of in zip(*minutes, strict=True))
    source = f"csv:{Path(arguments.source.partition(':')[2]).name}"
    head = f"""Made by `python benchmarks/forecast.py --write --source={source} --length={arguments.length}
        --seeds={arguments.seeds}`, with the settings of `:forecast` but for the length of a training piece, which is
        {config["data"]["shape"][0]} steps, {config["batch_size"]} in a batch. Squared / absolute error of scaled
        channels, by how many steps are foretold, ± the standard deviation of {arguments.seeds} seeds where there is
        one. CPU minutes: pretraining {training:.1f}, the rest {judging:.1f}."""
    rows = []
    for name in found[0]["errors"]:
        rows.append([name, *(cell([of["errors"][name][str(horizon)] for of in found]) for horizon in HORIZONS)])
    if reported := REPORTED.get(arguments.name):
        rows.append(["authors, squared", *(f"{reported[h]:.3f}" if h in reported else "" for h in HORIZONS)])
    lines = [
        *textwrap.wrap(" ".join(head.split()), 118),
        "",
        f"| features | {' | '.join(map(str, HORIZONS))} |",
        "|---" * (1 + len(HORIZONS)) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        *textwrap.wrap(f"Protocol: {found[0]['protocol']}.", 118),
        "",
        machine(),
    ]
    publish("results.md", f"How well a series is foretold: {arguments.name}", lines)


if __name__ == "__main__":
    main()
