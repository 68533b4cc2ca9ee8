"""Tables: rows of numbers and categories, some of which may be missing.

    csv:PATH       a CSV file (also .gz), its first line the names of the columns
    parquet:PATH   a Parquet file
    demo           8,000 rows of Adult for training and 2,000 for testing, which ship with ssljax

PATH may also be a folder with ``train.csv`` and ``test.csv`` (or ``.csv.gz``, ``.parquet``); of a single file one row
in ten is the test split, by a hash of its place. What a column is, how numbers are scaled and which categories there
are, is learnt from the training rows (`ssljax.data.schema`) and then holds for all others.
"""

import functools
import io
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ssljax.data.schema import MISSING, Schema, kind_of, learn
from ssljax.data.sources import (
    EVALUATION_SPLITS,
    DataError,
    Example,
    Shapes,
    Source,
    hashed_splits,
    note_left_out,
    require_closed_quotes,
    resolve_split,
    split_spec,
)
from ssljax.wording import counted

FORMS = {"demo": "demo", "csv": "csv:PATH", "parquet": "parquet:PATH"}
SUFFIXES = {"csv": (".csv", ".csv.gz"), "parquet": (".parquet",)}
BUFFER = 2**20
DEMO_FOLDER = Path(__file__).parent / "demo" / "tables"


class TableSource(Source):
    """Rows of values (columns,), each with `donors` (columns,): in a training batch, every column's value of another
    row, drawn uniformly from the training rows for each column by itself."""

    in_memory, things = True, "rows"

    def __init__(self, name: str, values: np.ndarray, labels: np.ndarray | None, schema: Schema):
        shape: Shapes = {"values": (values.shape[1:], np.float32)}
        super().__init__(name, has_labels=labels is not None, class_names=schema.classes, shapes=shape)
        self.drawn = {"donors": (values.shape[1:], np.float32)}
        self.schema = schema
        values.setflags(write=False)
        self._values, self._labels = values, labels

    def labels(self) -> np.ndarray:
        return super().labels() if self._labels is None else self._labels

    def samples(
        self, names: Collection[str], indices: np.ndarray, places: np.ndarray, key: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        """All rows at once: one by one they would take longer than a step of a small network."""
        columns = self._values.shape[1]
        # In the order of the places: those of a process are a part of what all draw.
        donors = np.random.default_rng(key).integers(len(self), size=(places.max() + 1, columns))[places]
        made = {"values": self._values[indices], "donors": self._values[donors, np.arange(columns)]}
        if self._labels is not None:
            made["label"] = self._labels[indices]
        return {name: made[name] for name in names}

    def __len__(self) -> int:
        return len(self._values)

    def _where(self, index: int) -> str:
        return f"{self.name}[{index}]"

    def _load(self, index: int) -> Example:
        example: Example = {"values": self._values[index]}
        return example if self._labels is None else example | {"label": self._labels[index]}


def open_table(
    spec: str,
    split: str,
    *,
    label: str = "",
    ignore: tuple[str, ...] = (),
    scale: str = "standard",
    schema: Schema | None = None,
) -> TableSource:
    """The split of a table, spelt as the head of this module says.

    label: the column of the classes; "": the last one; "none": there is none. ignore: columns that are not used. scale:
    what numbers are less, and over: "standard" (mean, standard deviation) or "minmax" (least, range). schema: what
    columns and classes are, as another table's training rows had it; the other arguments then say nothing.

    Raises:
        ValueError: the scale is unknown.
        DataError: the kind is unknown, there is no such file, split or column, or a column cannot be used; the
            message says what to change.
    """
    if scale not in ("standard", "minmax"):
        raise ValueError(f"--config.data.scale={scale} is unknown; use standard or minmax.")
    kind, where = split_spec(spec, FORMS)
    folder_kind, path = ("csv", DEMO_FOLDER) if kind == "demo" else (kind, Path(where).expanduser())
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    tables, left_out = _splits(folder_kind, path, tuple(file.stat().st_mtime_ns for file in files))
    name = f"{spec} ({split})"
    table = tables[resolve_split(split, tables, spec)]
    schema = schema or learn(tables["train"], spec, label, ignore, scale)
    source = TableSource(name, schema.values(table, name), schema.labels(table, name), schema)
    source.left_out = left_out
    return source


@functools.lru_cache(maxsize=8)
def _splits(kind: str, path: Path, changed: tuple[int, ...]) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
    """The tables by split, and what is left out of them; read again if their files have changed."""
    if path.is_dir():
        found: dict[str, pa.Table] = {}
        left_out: tuple[str, ...] = ()
        for split in ("train", *EVALUATION_SPLITS):
            for suffix in SUFFIXES[kind]:
                if (file := path / f"{split}{suffix}").is_file():
                    found[split], notes = read_file(kind, file, like=found.get("train"))
                    left_out += notes
        if "train" not in found:
            raise DataError(f"The folder {str(path)!r} has no train{SUFFIXES[kind][0]}: write one, and test likewise.")
        return found, left_out
    if not path.is_file():
        raise DataError(f"There is no file {str(path)!r}: check the path after '{kind}:'.")
    table, left_out = read_file(kind, path)
    places = hashed_splits([str(index) for index in range(len(table))])
    return {split: table.take(rows) for split, rows in places.items()}, left_out


def read_file(kind: str, path: Path, like: pa.Table | None = None) -> tuple[pa.Table, tuple[str, ...]]:
    """The rows of a file, and what is left out, in sentences: rows of a CSV file with another number of fields.

    like: rows whose columns of text are text in a CSV file here, too, even if all of it could be numbers (01, 02).
    """
    texts = {} if like is None else {field.name: field.type for field in like.schema if kind_of(field.type) == "text"}
    skipped: list[int | None] = []

    def skip(row: Any) -> str:
        skipped.append(row.number)
        return "skip"

    try:
        if kind == "parquet":
            table = pa.parquet.read_table(path)
        else:
            _require_text(path)
            table = pa.csv.read_csv(
                path,
                parse_options=pa.csv.ParseOptions(invalid_row_handler=skip, newlines_in_values=True),
                convert_options=pa.csv.ConvertOptions(
                    null_values=MISSING, strings_can_be_null=True, column_types=texts
                ),
            )
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{str(path)!r} cannot be read as {kind} ({str(error).splitlines()[0]}): check that it is whole."
        ) from error
    names = table.column_names
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{str(path)!r} has {names.count(twice[0])} columns {twice[0]!r}: give each a name of its own.")
    if not len(table) and skipped:
        raise DataError(
            f"Every row of {str(path)!r} has another number of fields than its first line: separate them with commas, "
            "and put those that hold commas in quotes."
        )
    if kind == "csv" and len(names) == 1 and re.search("[;\t]", names[0]):
        raise DataError(f"{str(path)!r} has one column, {names[0]!r}: separate its fields with commas.")
    if not len(table):
        raise DataError(f"{str(path)!r} has no rows: it needs a line of names, and a line for each row.")
    told = f"skipped {counted(len(skipped), 'rows')} with another number of fields"
    return table, (note_left_out(str(path), told),) if skipped else ()


def _require_text(path: Path) -> None:
    """Raises DataError unless a file, which may be compressed, is text in UTF-8, its quotes closed, and OSError if it
    cannot be read."""
    quotes = False
    with io.BufferedReader(pa.input_stream(path), BUFFER) as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode()
                text = b"\0" not in line
            except UnicodeDecodeError:
                text = False
            if not text:
                raise DataError(
                    f"Line {number} of {str(path)!r} is not text in UTF-8: convert the file, or name another one if "
                    "it is no CSV file."
                )
            quotes |= b'"' in line
    if quotes:
        with pa.input_stream(path) as whole:
            require_closed_quotes(whole.read().decode("utf-8-sig"), repr(str(path)))
