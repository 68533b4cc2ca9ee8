"""Whether TS2Vec's score finds what is known to be wrong in a long series, with several seeds, beside a floor.

    python benchmarks/anomalies.py --source=csv:135_UCR_Anomaly_InternalBleeding16_TEST.csv --train=1200 [--write]

The file has columns `value` and `is_anomaly`, as the package aeon has a series of the UCR anomaly archive; nothing is
wrong in its first `--train` steps, which are trained on. Writes a section of docs/results.md. Finished runs are not
repeated.
"""

import csv
from pathlib import Path

import numpy as np
from sections import ROOT, machine, paragraph, publish, table
from trials import make, parser

PIECE, STEPS, CONTEXT = 200, 200, 201
NEAR = 100
"""Steps beside the wrong ones that the archive counts as found, too."""


def row(name: str, scores: np.ndarray, stands_out: np.ndarray, wrong: np.ndarray) -> list:
    (places,) = np.nonzero(wrong)
    near = (np.arange(len(wrong)) >= places[0] - NEAR) & (np.arange(len(wrong)) <= places[-1] + NEAR)
    found = "yes" if near[scores.argmax()] else "no"
    rank = 1 + int((scores[~near] > scores[near].max()).sum())
    return [name, found, rank, int((stands_out & near).sum()), int((stands_out & ~near).sum())]


def main() -> None:
    flags = parser(__doc__, "anomalies")
    flags.add_argument("--train", type=int, required=True)
    arguments = flags.parse_args()

    path = Path(arguments.source.partition(":")[2])
    with path.open() as file:
        wrong = np.array([line["is_anomaly"] == "1" for line in csv.DictReader(file)])[arguments.train :]
    rows = []
    for seed in range(arguments.seeds):
        workdir = arguments.runs / f"ts2vec-{path.stem}-{seed}"
        fields = {
            "data.source": arguments.source,
            "data.columns": "('value',)",
            "data.time": "",
            "data.parts": f"({arguments.train},{len(wrong)})",
            "data.length": PIECE,
            "steps": STEPS,
            "seed": seed,
        }
        config = ROOT / "configs" / "series" / "ts2vec.py"
        make(workdir, config, "forecast", fields, ("ssljax.forecast", "--horizons=24", f"--context={CONTEXT}"))
        scores = np.genfromtxt(workdir / "anomalies.csv", delimiter=",", names=True)
        rows.append(row(f"TS2Vec, seed {seed}", scores["score"], scores["stands_out"] == 1, wrong))
    rows.append(row("change of the values", scores["change"], scores["change_stands_out"] == 1, wrong))
    head = f"""Made by `python benchmarks/anomalies.py --write --source=csv:{path.name} --train={arguments.train}
        --seeds={arguments.seeds}`, with the settings of `:forecast` but {STEPS} steps of training, on pieces of
        {PIECE}. Of the {len(wrong)} steps that are tested the archive marks {int(wrong.sum())} as wrong. Found: whether
        the largest score of all is within {NEAR} steps of these; rank: which largest that within is, among the scores
        of all others; and how many steps stand out there, and elsewhere."""
    columns = "score", "found", "rank", "stand out there", "elsewhere"
    title = f"What stands out in a series: {path.stem.removesuffix('_TEST')}"
    publish("results.md", title, [paragraph(head), table(columns, rows), machine()])


if __name__ == "__main__":
    main()
