"""What methods make of data that are not images, beside their floors, with several seeds.

    python benchmarks/floors.py --kind=tables --source=csv:adult.csv [--write] [--seeds=3] [--runs=runs/floors]
    python benchmarks/floors.py --kind=nodes --source=demo --write --seeds=5
    python benchmarks/floors.py --kind=text --source=demo --write
    python benchmarks/floors.py --kind=speech --source=npz:fsdd.npz --write

Writes a section of docs/results.md for the kind and the source. Finished runs are not repeated.
"""

import json
import statistics
from pathlib import Path

from sections import ROOT, machine, paragraph, publish, table
from trials import EVALUATE, make, minutes, over_seeds, parser

VARIANTS = {"graphs": "paper", "nodes": "paper", "series": "paper"}
"""The variant that is run, where it is not the demo."""
OWN = {"speech": "fsdd", "text": "sentences"}
"""And for a source that is not the demo's, where that is another one."""
TUNED = {"wav2vec2": "ctc_demo"}
"""And the variant by which a method's demo is fine-tuned."""
JUDGED = {
    "graphs": "all graphs",
    "image_text": "the test images and captions",
    "nodes": "the test nodes",
    "series": "the test series",
    "speech": "the test clips",
    "tables": "the test rows",
    "text": "the test texts",
    "video": "the test clips",
}
DEMOS = {
    "tables": "part of Adult",
    "nodes": "Cora",
    "text": "Tiny Shakespeare",
    "video": "moving camera",
    "image_text": "emoji",
    "speech": "part of FSDD",
    "graphs": "IMDB-BINARY",
    "series": "spoken digits",
}
OTHER_DEMOS = {"demo_mutag": "MUTAG"}
TITLES = {
    "image_text": "images and captions",
    "speech": "clips of speech",
    "text": "texts",
    "video": "clips of video",
}


def tuned(config: Path, variant: str, runs: Path, seeds: int) -> list:
    """A table and what it says: error rates of fine-tuning by that variant, from each seed's demo and from scratch."""
    rows = []
    for name, scratch in (("pretrained", False), ("scratch", True)):
        found = []
        for seed in range(seeds):
            workdir = runs / f"{config.stem}-tuned-{name}-{seed}"
            teacher = runs / f"{config.stem}-demo-{seed}"
            fields = {"method.teacher": teacher, "method.scratch": scratch, "seed": seed}
            make(workdir, config, variant, fields, ("ssljax.evaluate", "--protocol=objective"))
            found.append(json.loads((workdir / "results.json").read_text())["objective"]["of"]["pretrained"])
        rates = {rate: [100 * of[rate]["value"] for of in found] for rate in found[0]}
        rows.append([name, *(spread(of) for of in rates.values())])
    return [
        table([f":{variant} from", *((f"{rate}, %", ".1f") for rate in rates)], rows),
        f"Of the test clips, after the settings of `:{variant}` of {config.stem}, without a list of words.",
    ]


def spread(numbers: list[float]) -> tuple[float, float]:
    """Mean and standard deviation."""
    return statistics.mean(numbers), statistics.stdev(numbers)


def cells(runs: list[dict], encoder: str) -> list:
    """What each protocol gives over seeds, in percent."""
    found, scores = [], [r["encoders"][encoder] for r in runs]
    for protocol in runs[0]["protocols"]:
        numbers = [100 * score[protocol]["accuracy"] for score in scores if protocol in score]
        found.append(spread(numbers) if numbers else None)
    return found


def objectives(runs: dict[str, list[dict]]) -> list:
    """What methods say of themselves on held-out data, in tables; none where they have no such number."""
    tables = []
    for method, of in runs.items():
        if "objective" not in of[0]:
            continue
        first = of[0]["objective"]["of"]
        names, rows = list(first["pretrained"]), []
        for encoder in first:
            row: list = [encoder]
            for name in names:
                values = [r["objective"]["of"][encoder].get(name, {}).get("value") for r in of]
                drawn = encoder in ("pretrained", "random init")
                row.append(None if None in values else spread(values) if drawn else statistics.mean(values))
            rows.append(row)
        tables.append(table([method, *((name, ".3f") for name in names)], rows))
    return [*tables, f"Held-out: {of[0]['objective']['measured on'].split(',')[0]}."] if tables else []


def main() -> None:
    flags = parser(__doc__, "floors")
    flags.add_argument("--kind", choices=JUDGED, required=True)
    arguments = flags.parse_args()

    kind, where = arguments.source.partition(":")[::2]
    name = Path(where).name.partition(".")[0] if where else kind
    rows, seconds, found, fine_tuned = [], {}, {}, []
    variant = (where and OWN.get(arguments.kind)) or VARIANTS.get(arguments.kind, "demo")
    for config in sorted((ROOT / "configs" / arguments.kind).glob("*.py")):
        runs = []
        for seed in range(arguments.seeds):
            workdir = arguments.runs / f"{config.stem}-{name}-{seed}"
            fields = {"data.source": arguments.source, "seed": seed}
            seconds.setdefault(config.stem, []).append(make(workdir, config, variant, fields, EVALUATE)[0])
            runs.append(json.loads((workdir / "results.json").read_text()))
        found[config.stem] = runs
        if not where and config.stem in TUNED:
            fine_tuned = tuned(config, TUNED[config.stem], arguments.runs, arguments.seeds)
        rows += [[config.stem, encoder, *cells(runs, encoder)] for encoder in runs[-1]["encoders"]]
    of_methods = ", ".join(f"{method} {minutes(of)}" for method, of in seconds.items())
    shown = f"{kind}:{Path(where).name}" if where else kind
    head = f"""Made by `python benchmarks/floors.py --write --kind={arguments.kind} --source={shown}
        --seeds={arguments.seeds}`, with the settings of `:{variant}`. Accuracy in percent,
        {over_seeds(arguments.seeds)}, of {JUDGED[arguments.kind]}. CPU minutes of pretraining, the
        least of the seeds': {of_methods}.
        {"Floors differ by how a method scales numbers." if arguments.kind == "tables" else ""}"""
    protocols = runs[-1]["protocols"]
    blocks = [
        paragraph(head),
        table(["method", "features", *((protocol, ".1f") for protocol in protocols)], rows),
        *objectives(found),
        *fine_tuned,
        "Protocols:",
        "\n".join(f"- {protocol}: {text}." for protocol, text in protocols.items()),
        machine(),
    ]
    of = name if where else OTHER_DEMOS.get(kind, DEMOS[arguments.kind])
    publish("results.md", f"What {TITLES.get(arguments.kind, arguments.kind)} give: {of}", blocks)


if __name__ == "__main__":
    main()
