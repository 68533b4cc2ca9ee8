"""What methods make of data that are not images, beside their floors, with several seeds.

    python benchmarks/floors.py --kind=tables --source=csv:adult.csv [--write] [--seeds=3] [--runs=runs/floors]
    python benchmarks/floors.py --kind=nodes --source=demo --write --seeds=5
    python benchmarks/floors.py --kind=text --source=demo --write
    python benchmarks/floors.py --kind=speech --source=npz:fsdd.npz --write [--scratch]
    python benchmarks/floors.py --kind=image_text --source=demo --variant=demo_sigmoid --write

Writes a section of docs/results.md for the kind and the source, and the variant if it is named. Finished runs are not
repeated. --scratch measures encoders from scratch only, for the section that is there.
"""

import json
import re
import statistics
from argparse import Namespace
from pathlib import Path

from sections import ROOT, machine, paragraph, publish, record, table
from trials import EVALUATE, make, minutes, over_seeds, parser

from ssljax.judging import SCRATCH

VARIANTS = {"graphs": "paper", "nodes": "paper", "series": "paper"}
"""The variant that is run, where it is not the demo."""
OWN = {"speech": "fsdd", "text": "sentences"}
"""And for a source that is not the demo's, where that is another one."""
TUNED = {"wav2vec2": "ctc_demo"}
"""And the variant by which a method's demo is fine-tuned."""
LABELLED = ("image_text", "series", "speech", "text", "video")
"""Kinds whose encoders are trained from scratch, too. (Tables have their fine-tuned random init; graphs are judged by
folds, and nodes are all in one example.)"""
LABELS_ALONE = "ssljax.evaluate", "--protocol=linear", "--scratch", "--noreport"
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


def from_scratch(config: Path, variant: str, name: str, arguments: Namespace) -> tuple[tuple[float, float], str]:
    """What a method's encoder comes to by all labels and no pretraining, in percent, and the protocol in words. (Of a
    run, two steps are enough.)"""
    reached = []
    for seed in range(arguments.seeds):
        workdir = arguments.runs / f"{config.stem}-{name}-scratch-{seed}"
        fields = {"data.source": arguments.source, "seed": seed, "steps": 2, "optimizer.warmup_epochs": 0.0}
        make(workdir, config, variant, fields, LABELS_ALONE)
        results = json.loads((workdir / "results.json").read_text())
        reached.append(100 * results["encoders"][SCRATCH]["linear"]["accuracy"])
    return spread(reached), results["protocols"]["linear"]


def with_scratch(blocks: list, config: Path, reached: tuple[float, float], told: str) -> None:
    """Puts it below the method's other rows of the first table, in the column `linear`; and what that is."""
    of_table = next(block for block in blocks if isinstance(block, dict))
    names = [column for column, _ in of_table["columns"]]
    row = [config.stem, SCRATCH, *(reached if column == "linear" else None for column in names[2:])]
    rows = [row for row in of_table["rows"] if row[:2] != [config.stem, SCRATCH]]
    last = max(i for i, row in enumerate(rows) if row[0] == config.stem)
    of_table["rows"] = [*rows[: last + 1], row, *rows[last + 1 :]]
    at = blocks.index("Protocols:") + 1
    blocks[at] = re.sub("(?m)^- linear: .*$", lambda _: f"- linear: {told}.", blocks[at])


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
    flags.add_argument("--variant", default="")
    flags.add_argument("--scratch", action="store_true")
    arguments = flags.parse_args()

    kind, where = arguments.source.partition(":")[::2]
    name = Path(where).name.partition(".")[0] if where else kind
    rows, seconds, found, fine_tuned = [], {}, {}, []
    usual = (where and OWN.get(arguments.kind)) or VARIANTS.get(arguments.kind, "demo")
    variant = arguments.variant or usual
    shown = f"{kind}:{Path(where).name}" if where else kind
    of = name if where else OTHER_DEMOS.get(kind, DEMOS[arguments.kind])
    if variant != usual:
        name, of, shown = f"{name}-{variant}", f"{of}, {variant}", f"{shown} --variant={variant}"
    title = f"What {TITLES.get(arguments.kind, arguments.kind)} give: {of}"
    configs = sorted((ROOT / "configs" / arguments.kind).glob("*.py"))
    if arguments.scratch:
        blocks = json.loads(record("results.md", title).read_text())["blocks"]
        for config in configs:
            with_scratch(blocks, config, *from_scratch(config, variant, name, arguments))
        publish("results.md", title, blocks)
        return
    for config in configs:
        runs = []
        for seed in range(arguments.seeds):
            workdir = arguments.runs / f"{config.stem}-{name}-{seed}"
            fields = {"data.source": arguments.source, "seed": seed}
            seconds.setdefault(config.stem, []).append(make(workdir, config, variant, fields, EVALUATE)[0])
            runs.append(json.loads((workdir / "results.json").read_text()))
        found[config.stem] = runs
        if not where and variant == usual and config.stem in TUNED:
            fine_tuned = tuned(config, TUNED[config.stem], arguments.runs, arguments.seeds)
        rows += [[config.stem, encoder, *cells(runs, encoder)] for encoder in runs[-1]["encoders"]]
    of_methods = ", ".join(f"{method} {minutes(of)}" for method, of in seconds.items())
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
    for config in configs if arguments.kind in LABELLED else ():
        with_scratch(blocks, config, *from_scratch(config, variant, name, arguments))
    publish("results.md", title, blocks)


if __name__ == "__main__":
    main()
