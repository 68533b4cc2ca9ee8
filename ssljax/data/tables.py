"""Tables: rows of numbers and categories, some of which may be missing.

    csv:PATH       a CSV file (also .gz), its first line the names of the columns
    parquet:PATH   a Parquet file
    demo           8,000 rows of Adult for training and 2,000 for testing, which ship with ssljax

PATH may also be a folder with ``train.csv`` and ``test.csv`` (or ``.csv.gz``, ``.parquet``); of a single file one row
in ten is the test split, by a hash of its place. What a column is, how numbers are scaled and which categories there
are, is learnt from the training rows (`Schema`) and then holds for all others.
"""

import dataclasses
import functools
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ssljax.data.sources import (
    EVALUATION_SPLITS,
    DataError,
    Example,
    Shapes,
    Source,
    hashed_splits,
    note_left_out,
    resolve_split,
    split_spec,
)

logger = logging.getLogger(__name__)

FORMS = {"demo": "demo", "csv": "csv:PATH", "parquet": "parquet:PATH"}
SUFFIXES = {"csv": (".csv", ".csv.gz"), "parquet": (".parquet",)}
MISSING = ("", "?", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
DEMO_FOLDER = Path(__file__).parent / "demo" / "tables"
MOST_CATEGORIES = 1000
MOST_CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class Column:
    """A number is (value - zero) / unit, a missing one 0; a category is its place in `categories` plus 1, and 0 where
    it is missing or was not among the training rows."""

    name: str
    zero: float = 0.0
    unit: float = 1.0
    categories: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Schema:
    """What the columns of a table are.

    columns: those that are used. gaps: names of the number columns that have missing values, each of which gets a
    further column, 1 where it has a value and 2 where not. classes: names of the classes, None without labels.
    """

    columns: tuple[Column, ...]
    gaps: tuple[str, ...]
    label: str
    classes: tuple[str, ...] | None

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Of each column of the values: 0 for numbers, else how many categories there are, with the one for none."""
        own = tuple(0 if column.categories is None else len(column.categories) + 1 for column in self.columns)
        return (*own, *(3 for _ in self.gaps))

    @property
    def names(self) -> tuple[str, ...]:
        return (*(column.name for column in self.columns), *(f"{name} is missing" for name in self.gaps))

    def values(self, table: pa.Table, where: str) -> np.ndarray:
        """The rows of a table (n, columns), float32; categories that are not those of the training rows are counted in
        the log. Raises DataError for a column that is not there or of another kind, and for infinite numbers."""
        found = []
        for column in self.columns:
            values = _column(table, column.name, where)
            if column.categories is None:
                if _is_text(values.type):
                    raise DataError(f"Column {column.name!r} of {where} holds text, but numbers in the training rows.")
                with np.errstate(over="ignore"):
                    numbers = ((_numbers(values) - column.zero) / column.unit).astype(np.float32)
                if np.isinf(numbers).any():
                    raise _infinite(column.name, where)
                found.append(np.where(np.isnan(numbers), 0, numbers))
            else:
                places = {name: place for place, name in enumerate(column.categories, start=1)}
                texts = _texts(values)
                found.append(np.array([places.get(text, 0) for text in texts]))
                if new := [text for text in texts if text and text not in places]:
                    told = "%s: column %r has %d values, the first %r, that no training row has: they count as missing"
                    logger.warning(told, where, column.name, len(new), new[0])
        found += [1.0 + np.isnan(_numbers(table[name])) for name in self.gaps]
        return np.stack(found, axis=1).astype(np.float32)

    def labels(self, table: pa.Table, where: str) -> np.ndarray | None:
        """Of the rows (n,), int32. Raises DataError for a class that the training rows do not have."""
        if self.classes is None:
            return None
        places = {name: place for place, name in enumerate(self.classes)}
        texts = _texts(_column(table, self.label, where))
        if unknown := sorted({str(text) for text in texts if text not in places}):
            raise DataError(f"The labels of {where} hold {unknown[0]!r}, which no training row has: correct the file.")
        return np.array([places[text] for text in texts], np.int32)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Schema":
        fields = json.loads(text)
        columns = tuple(
            Column(**column | {"categories": None if column["categories"] is None else tuple(column["categories"])})
            for column in fields["columns"]
        )
        classes = None if fields["classes"] is None else tuple(fields["classes"])
        return cls(columns, tuple(fields["gaps"]), fields["label"], classes)


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

    def draw(self, rng: np.random.Generator, example: Example) -> Example:
        columns = np.arange(self._values.shape[1])
        return {"donors": self._values[rng.integers(len(self), size=len(columns)), columns]}

    def __len__(self) -> int:
        return len(self._values)

    def _where(self, index: int) -> str:
        return f"{self.name}[{index}]"

    def _load(self, index: int) -> Example:
        example: Example = {"values": self._values[index]}
        return example if self._labels is None else example | {"label": self._labels[index]}


def open_table(
    spec: str, split: str, *, label: str = "", ignore: tuple[str, ...] = (), scale: str = "standard"
) -> TableSource:
    """The split of a table, spelt as the head of this module says.

    label: the column of the classes; "": the last one; "none": there is none. ignore: columns that are not used. scale:
    what numbers are less, and over: "standard" (mean, standard deviation) or "minmax" (least, range).

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
    schema = _learn(tables["train"], spec, label, ignore, scale)
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
    texts = {} if like is None else {field.name: field.type for field in like.schema if _is_text(field.type)}
    skipped: list[int | None] = []

    def skip(row: Any) -> str:
        skipped.append(row.number)
        return "skip"

    try:
        if kind == "parquet":
            table = pa.parquet.read_table(path)
        else:
            table = pa.csv.read_csv(
                path,
                parse_options=pa.csv.ParseOptions(invalid_row_handler=skip, newlines_in_values=True),
                convert_options=pa.csv.ConvertOptions(
                    null_values=MISSING, strings_can_be_null=True, column_types=texts
                ),
            )
        names = table.column_names  # which fails for UTF-16
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        wanted = "whole and in UTF-8" if kind == "csv" else "whole"
        raise DataError(
            f"{str(path)!r} cannot be read as {kind} ({str(error).splitlines()[0]}): check that it is {wanted}."
        ) from error
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{str(path)!r} has {names.count(twice[0])} columns {twice[0]!r}: give each a name of its own.")
    if undecoded := [field.name for field in table.schema if pa.types.is_binary(field.type)]:
        raise DataError(f"Column {undecoded[0]!r} of {str(path)!r} is not text in UTF-8: convert the file.")
    if not len(table):
        raise DataError(f"{str(path)!r} has no rows: it needs a line of names, and a line for each row.")
    told = f"{len(skipped)} rows with another number of fields are skipped"
    return table, (note_left_out(str(path), told),) if skipped else ()


def _learn(table: pa.Table, name: str, label: str, ignore: tuple[str, ...], scale: str) -> Schema:
    """What the training rows say of the columns. Raises DataError."""
    names = table.column_names
    for column in (*ignore, *([label] if label not in ("", "none") else [])):
        _column(table, column, name)
    target = names[-1] if label == "" else label
    classes = None if target == "none" else _classes(table, name, target)
    columns, gaps = [], []
    for column in names:
        if column in ignore or column == target:
            continue
        values = table[column]
        text = _is_text(values.type)
        if values.null_count == len(values) or (not text and np.isnan(_numbers(values)).all()):
            logger.warning("%s: column %r has no values in the training rows, and is left out", name, column)
        elif text:
            columns.append(Column(column, categories=_categories(values, name, column)))
        else:
            numbers = _numbers(values)
            if np.isinf(numbers).any():
                raise _infinite(column, name)
            present = numbers[~np.isnan(numbers)]
            zero, unit = (present.min(), np.ptp(present)) if scale == "minmax" else (present.mean(), present.std())
            columns.append(Column(column, float(zero), float(unit) or 1.0))
            if len(present) < len(numbers):
                gaps.append(column)
    if not columns:
        raise DataError(f"{name} has no columns besides the label {target!r}: --config.data.label names another one.")
    return Schema(tuple(columns), tuple(gaps), target, classes)


def _column(table: pa.Table, column: str, where: str) -> pa.ChunkedArray:
    if column not in table.column_names:
        raise DataError(f"{where} has no column {column!r}: it has {', '.join(table.column_names)}.")
    return table[column]


def _infinite(column: str, where: str) -> DataError:
    return DataError(
        f"Column {column!r} of {where} holds infinite numbers, or some that are too large: correct them, or leave it "
        f"out with --config.data.ignore={column}."
    )


def _classes(table: pa.Table, name: str, target: str) -> tuple[str, ...]:
    classes = _distinct(table[target])
    if table[target].null_count:
        raise DataError(
            f"The labels of {name}, column {target!r}, have gaps: fill them in, or name another column with "
            "--config.data.label (none: there are no labels)."
        )
    if len(classes) > MOST_CLASSES:
        raise DataError(
            f"Column {target!r} of {name} has {len(classes)} values, which are no classes: name the column of the "
            "labels with --config.data.label (none: there are no labels)."
        )
    return classes


def _categories(values: pa.ChunkedArray, name: str, column: str) -> tuple[str, ...]:
    categories = _distinct(values)
    if len(categories) > MOST_CATEGORIES:
        raise DataError(
            f"Column {column!r} of {name} holds {len(categories)} different texts: if it is no category, leave it out "
            f"with --config.data.ignore={column}."
        )
    return categories


def _distinct(values: pa.ChunkedArray) -> tuple[str, ...]:
    return tuple(sorted({text for text in _texts(values) if text}))


def _is_text(kind: pa.DataType) -> bool:
    """A column of nothing has the type null, and is none of text."""
    numbers = pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null
    return not any(is_kind(kind) for is_kind in numbers)


def _numbers(values: pa.ChunkedArray) -> np.ndarray:
    """float64, NaN where there is none."""
    return values.cast(pa.float64()).to_numpy()


def _texts(values: pa.ChunkedArray) -> list[str]:
    """Without blanks around them, empty where there is none."""
    trimmed = ("" if text is None else str(text).strip() for text in values.to_pylist())
    return ["" if text in MISSING else text for text in trimmed]
