"""How well TS2Vec foretells one long series, with several seeds, beside floors and what the authors report.

    python benchmarks/forecast.py --source=csv:ETTh1.csv --length=216 [--write] [--seeds=3] [--runs=runs/forecast]

`--length` is that of a training piece. Writes a section of docs/results.md. Finished runs are not repeated.
"""

import json
import statistics
from pathlib import Path

from sections import ROOT, machine, paragraph, publish, table
from trials import make, minutes, over_seeds, parser

HORIZONS = 24, 48, 168, 336, 720
REPORTED = {"ETTh1": {24: 0.599}}
"""Squared errors of all channels that Yue et al., 2022, report, by horizon."""
CONFIG = ROOT / "configs" / "series" / "ts2vec.py"


def cell(errors: list[dict]) -> str:
    """Mean, and standard deviation where it differs between seeds, of both errors."""
    shown = []
    for kind in ("mse", "mae"):
        values = [error[kind] for error in errors]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        shown.append(f"{statistics.mean(values):.3f}" + (f" ± {spread:.3f}" if spread > 5e-4 else ""))
    return " / ".join(shown)


def main() -> None:
    flags = parser(__doc__, "forecast")
    flags.add_argument("--length", type=int, required=True)
    flags.add_argument("--name", default="ETTh1", help="what the set is called")
    arguments = flags.parse_args()

    found, seconds = [], []
    foretell = "ssljax.forecast", f"--horizons={','.join(map(str, HORIZONS))}"
    for seed in range(arguments.seeds):
        workdir = arguments.runs / f"ts2vec-{arguments.name}-{arguments.length}-{seed}"
        fields = {"data.source": arguments.source, "data.length": arguments.length, "seed": seed}
        seconds.append(make(workdir, CONFIG, "forecast", fields, foretell))
        found.append(json.loads((workdir / "forecasts.json").read_text()))
    config = json.loads((workdir / "config.json").read_text())
    training, judging = (minutes(of) for of in zip(*seconds, strict=True))
    source = f"csv:{Path(arguments.source.partition(':')[2]).name}"
    spread = over_seeds(arguments.seeds) + (" where there is one" if arguments.seeds > 1 else "")
    head = f"""Made by `python benchmarks/forecast.py --write --source={source} --length={arguments.length}
        --seeds={arguments.seeds}`, with the settings of `:forecast` but for the length of a training piece, which is
        {config["data"]["shape"][0]} steps, {config["batch_size"]} in a batch. Squared / absolute error of scaled
        channels, by how many steps are foretold, {spread}. CPU minutes: pretraining {training}, the rest {judging}."""
    rows = []
    for name in found[0]["errors"]:
        rows.append([name, *(cell([of["errors"][name][str(horizon)] for of in found]) for horizon in HORIZONS)])
    if reported := REPORTED.get(arguments.name):
        rows.append(["authors, squared", *(f"{reported[h]:.3f}" if h in reported else "" for h in HORIZONS)])
    errors = table(["features", *map(str, HORIZONS)], rows)
    blocks = [paragraph(head), errors, paragraph(f"Protocol: {found[0]['protocol']}."), machine()]
    publish("results.md", f"How well a series is foretold: {arguments.name}", blocks)


if __name__ == "__main__":
    main()
