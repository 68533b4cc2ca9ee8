"""What the columns of a table are, learnt from its training rows, and the rows of any table as these have them."""

import dataclasses
import json
import logging
import re

import numpy as np
import pyarrow as pa

from ssljax.data.sources import DataError

logger = logging.getLogger(__name__)

MISSING = ("", "?", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
MOST_CATEGORIES = 1000
MOST_CLASSES = 1000
MOST_FRACTIONS = 20
"""How many classes real numbers may be, as marks in half steps are; more are taken for a target of regression."""
NEARLY_ALL = 0.9
"""Such a share of numbers makes it likely that a column of text was to be one of numbers."""
FITTING = {
    "numbers": ("numbers", "nothing"),
    "dates": ("dates", "nothing"),
    "text": ("text", "numbers", "dates", "nothing"),
}
"""For each kind of column in the training rows, the kinds that it may be of in others."""


@dataclasses.dataclass(frozen=True)
class Column:
    """A number is (value - zero) / unit, a missing one 0; a date is its seconds, likewise; a category is its place in
    `categories` plus 1, and 0 where it is missing or was not among the training rows."""

    name: str
    zero: float = 0.0
    unit: float = 1.0
    categories: tuple[str, ...] | None = None
    dates: bool = False

    @property
    def kind(self) -> str:
        return "text" if self.categories is not None else "dates" if self.dates else "numbers"


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
            if (kind := kind_of(values.type)) not in FITTING[column.kind]:
                raise DataError(
                    f"Column {column.name!r} of {where} holds {kind}, but {column.kind} in the training rows."
                )
            if column.categories is None:
                with np.errstate(over="ignore"):
                    scaled = ((numbers_of(values) - column.zero) / column.unit).astype(np.float32)
                if np.isinf(scaled).any():
                    raise _infinite(column.name, where)
                found.append(np.where(np.isnan(scaled), 0, scaled))
            else:
                places = {name: place for place, name in enumerate(column.categories, start=1)}
                texts = _texts(values)
                found.append(np.array([places.get(text, 0) for text in texts]))
                if new := [text for text in texts if text and text not in places]:
                    told = "%s: column %r has %d values, the first %r, that no training row has: they count as missing"
                    logger.warning(told, where, column.name, len(new), new[0])
        found += [1.0 + np.isnan(numbers_of(table[name])) for name in self.gaps]
        return np.stack(found, axis=1).astype(np.float32)

    def labels(self, table: pa.Table, where: str) -> np.ndarray | None:
        """Of the rows (n,), int32. Raises DataError for a gap, and for a class that the training rows do not have."""
        if self.classes is None:
            return None
        places = {_whole(name): place for place, name in enumerate(self.classes)}
        places |= {name: place for place, name in enumerate(self.classes)}
        texts = _texts(_column(table, self.label, where))
        texts = [text if text in places else _whole(text) for text in texts]
        if "" in texts:
            raise _gaps_in_labels(self.label, where)
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


def learn(table: pa.Table, name: str, label: str, ignore: tuple[str, ...], scale: str) -> Schema:
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
        kind = kind_of(values.type)
        if kind not in (*FITTING, "nothing"):
            raise DataError(
                f"Column {column!r} of {name} holds {kind}: write it as numbers or text, or leave it out with "
                f"--config.data.ignore={column}."
            )
        text = kind == "text"
        if values.null_count == len(values) or (not text and np.isnan(numbers_of(values)).all()):
            logger.warning("%s: column %r has no values in the training rows, and is left out", name, column)
        elif text:
            columns.append(Column(column, categories=_categories(values, name, column)))
        else:
            found = numbers_of(values)
            if np.isinf(found).any():
                raise _infinite(column, name)
            present = found[~np.isnan(found)]
            zero, unit = (present.min(), np.ptp(present)) if scale == "minmax" else (present.mean(), present.std())
            columns.append(Column(column, float(zero), float(unit) or 1.0, dates=kind == "dates"))
            if len(present) < len(found):
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


def _gaps_in_labels(column: str, where: str) -> DataError:
    return DataError(
        f"The labels of {where}, column {column!r}, have gaps: fill them in, or name another column with "
        "--config.data.label (none: there are no labels)."
    )


def _classes(table: pa.Table, name: str, target: str) -> tuple[str, ...]:
    values = table[target]
    kind, texts = kind_of(values.type), _texts(values)
    classes = tuple(sorted({*texts}))
    wrong = ""
    if kind not in ("text", "numbers", "nothing"):
        wrong = f"holds {kind}"
    elif "" in texts:
        raise _gaps_in_labels(target, name)
    elif kind == "numbers" and len(classes) > MOST_FRACTIONS and not _all_whole(values):
        wrong = f"holds {len(classes)} different numbers, not all whole (a target of regression)"
    elif len(classes) > MOST_CLASSES:
        wrong = f"has {len(classes)} values"
    if wrong:
        raise DataError(
            f"Column {target!r} of {name} {wrong}, which are no classes: name the column of the labels with "
            "--config.data.label (none: there are no labels)."
        )
    if len(classes) == 1:
        told = "%s: all rows are of one class, %r in column %r, which leaves nothing to tell apart in an evaluation"
        logger.warning(told, name, classes[0], target)
    return classes


def _all_whole(values: pa.ChunkedArray) -> bool:
    numbers = numbers_of(values)
    return bool((numbers == np.rint(numbers)).all())


def _whole(text: str) -> str:
    """1 for 1.0, and what is no such number as it is."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _categories(values: pa.ChunkedArray, name: str, column: str) -> tuple[str, ...]:
    present = [text for text in _texts(values) if text]
    words = [text for text in present if not _is_number(text)]
    if 0 < len(words) <= (1 - NEARLY_ALL) * len(present):
        told = "%s: column %r is taken for a category, since %d of its %d values are no numbers, the first %r"
        logger.warning(told, name, column, len(words), len(present), words[0])
    categories = tuple(sorted(set(present)))
    if len(categories) > MOST_CATEGORIES:
        raise DataError(
            f"Column {column!r} of {name} holds {len(categories)} different texts: if it is no category, leave it out "
            f"with --config.data.ignore={column}."
        )
    return categories


def kind_of(of: pa.DataType) -> str:
    """numbers, dates (or times), text (or truth values), nothing, or in words what is none of these."""
    types = pa.types
    if types.is_null(of):
        return "nothing"
    if types.is_integer(of) or types.is_floating(of) or types.is_decimal(of):
        return "numbers"
    if types.is_temporal(of) and not types.is_interval(of):
        return "dates"
    plain = of.value_type if types.is_dictionary(of) else of
    texts = types.is_boolean, types.is_string, types.is_large_string, types.is_string_view
    if any(is_text(plain) for is_text in texts) or (plain != of and kind_of(plain) in FITTING):
        return "text"
    return f"values of type {of}"


def numbers_of(values: pa.ChunkedArray) -> np.ndarray:
    """float64, the closest there is to a large integer and the seconds of a date or time, NaN where there is none."""
    if kind_of(values.type) != "dates":
        return values.cast(pa.float64(), safe=False).to_numpy()
    if pa.types.is_duration(values.type):
        fine = pa.duration("us")
    else:
        fine = pa.time64("us") if pa.types.is_time(values.type) else pa.timestamp("us")
    return values.cast(fine, safe=False).cast(pa.int64()).cast(pa.float64(), safe=False).to_numpy() / 1e6


def _texts(values: pa.ChunkedArray) -> list[str]:
    """Without blanks around them, empty where there is none."""
    trimmed = ("" if text is None else str(text).strip() for text in values.to_pylist())
    return ["" if text in MISSING else text for text in trimmed]
