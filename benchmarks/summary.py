"""README's table of what the demos reach, from what other scripts have measured and kept in docs/measured/.

    python benchmarks/summary.py [--write]

One row for each kind of data and method but images, of which there are many: theirs is docs/results.md's first table.
"""

import argparse
import json

from sections import paragraph, publish, record, table

from ssljax.judging import SCRATCH

IMAGES = {"simclr": "resnet8", "moco_v2": "resnet8", "mae": "vit_micro"}
"""Methods, and their encoders."""
OF_IMAGES = "What the demos reach"
ROWS = [
    ("spoken digits", "What clips of speech give: part of FSDD", "cpc", "linear", "digits by a linear probe, %"),
    ("spoken digits", "What clips of speech give: part of FSDD", "wav2vec2", "linear", "as above"),
    ("plays", "What texts give: Tiny Shakespeare", "bert", "hidden-token accuracy", "hidden letters found"),
    ("plays", "What texts give: Tiny Shakespeare", "gpt", "next-token nats", "nats a letter: less is better"),
    ("emoji", "What images and captions give: emoji", "clip", "zero_shot", "classes without an example, %"),
    ("citations", "What nodes give: Cora", "dgi", "linear", "topics by a linear probe, %"),
    ("casts of films", "What graphs give: IMDB-BINARY", "graphcl", "svm", "genres by an SVM, %"),
    ("census", "What tables give: part of Adult", "vime", "finetune_1", "incomes with 1 % of the labels, %"),
    ("census", "What tables give: part of Adult", "scarf", "finetune_1", "as above"),
    ("voices as series", "What series give: spoken digits", "ts2vec", "svm", "digits by an SVM, %"),
    ("moving camera", "What clips of video give: moving camera", "videomae", "linear", "directions, linear probe, %"),
]
"""Data, section of docs/results.md, method, column, and what that is."""
LESS_IS_BETTER = {"next-token nats"}
ENCODERS = "pretrained", "random init", SCRATCH
FLOORS = {"finetune_1": "linear_1"}
"""Where floors are in another column."""


def tables(title: str) -> list[dict]:
    return [block for block in json.loads(record("results.md", title).read_text())["blocks"] if isinstance(block, dict)]


def spread(of: list[float] | None, form: str) -> str:
    """Mean and standard deviation."""
    return f"{of[0]:{form}} ± {of[1]:{form}}" if of else "–"


def found(title: str, method: str, column: str) -> list:
    """The encoder's number, random init's, that of the same network from scratch if it has one, and the best of the
    others', with what that is."""
    for each in tables(title):
        names = [name for name, _ in each["columns"]]
        if column not in names:
            continue
        at, of_floors = names.index(column), names.index(FLOORS.get(column, column))
        form = each["columns"][at][1]
        if names[0] not in ("method", method):
            continue
        place = names.index("features") if names[0] == "method" else 0
        own = {row[place]: row[at] for row in each["rows"] if place == 0 or row[0] == method}
        encoders = [own.get(name) for name in ENCODERS]
        # Floors may differ by how a method scales numbers: the best of all counts.
        rows = [row for row in each["rows"] if row[place] not in ENCODERS and row[of_floors] is not None]
        value, best = (min if column in LESS_IS_BETTER else max)((row[of_floors], row[place]) for row in rows)
        value = value[0] if isinstance(value, list) else value
        return [*(spread(of, form) for of in encoders), f"{value:{form}} ({best})"]
    raise SystemExit(f"no table under '{title}' has {column} of {method}: measure it first.")


def blocks() -> list:
    """Of README's section."""
    (images,) = tables(OF_IMAGES)
    at = [name for name, _ in images["columns"]].index("linear, %")
    of = {row[0]: row[at : at + 2] for row in images["rows"]}
    of_scratch = {row[1]: row[at] for row in images["rows"] if row[0] == SCRATCH}
    floor = f"{of['raw pixels'][0]:.1f} (raw pixels)"
    rows = []
    for method, encoder in IMAGES.items():
        numbers = [spread(each, ".1f") for each in (*of[method], of_scratch[encoder])]
        rows.append(["small photographs", method, "classes by a linear probe, %", *numbers, floor])
    rows += [[data, method, what, *found(title, method, column)] for data, title, method, column, what in ROWS]
    head = """Minutes on two CPU cores, on data that comes with ssljax, several seeds, beside the same encoder before
        its first step, the same network trained with all labels and no pretraining, and the best of what needs no
        encoder. All numbers, what each is, and what is behind its floor and why: [docs/results.md](docs/results.md).
        Made by `python benchmarks/summary.py --write`."""
    columns = "data", "method", "measured", "encoder", "random init", SCRATCH, "best floor"
    return [paragraph(head), table(columns, rows)]


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--write", action="store_true")
    flags.parse_args()
    publish("../README.md", "What the demos reach", blocks())


if __name__ == "__main__":
    main()
