"""Files of time series, as `ssljax.data.series` lists them: what they hold, split by split."""

import functools
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute

from ssljax.data.schema import numbers_of
from ssljax.data.sources import EVALUATION_SPLITS, DataError, hashed_splits, note_left_out, read_npz
from ssljax.data.tables import read_file

DEMO = Path(__file__).parent / "demo" / "series" / "digits.npz"
WHOLE = "whole"
"""What is in no split yet."""
CALENDAR = ("minute", "hour", "day_of_week", "day", "day_of_year", "month", "iso_week")
"""What a date is to an encoder, as TS2Vec's authors have it."""
UNIT, SILENCE = 0.1, -14.0
"""Of the demo's codes: how much louder one more is, in logarithms of energy, and how loud 0 is."""


@dataclass(frozen=True)
class Found:
    """Series (time, channels) float32, each with at least one step, the name of the class of each, if they have any,
    the names of the channels, if these have any, and what is left out, in sentences."""

    series: list[np.ndarray]
    labels: list[str] | None
    channels: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """What is asked of a file: see `ssljax.data.series.open_series`."""

    parts: tuple[float, ...] = ()
    columns: tuple[str, ...] = ()
    time: str = ""


def read_splits(kind: str, path: Path, reading: Reading) -> dict[str, Found]:
    """The series by split. Raises DataError."""
    if kind != "csv" and (reading.columns or reading.time):
        raise DataError(f"--config.data.columns and time are of csv:PATH, not of {kind}: leave them empty.")
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    splits = _read(kind, path, reading, tuple(file.stat().st_mtime_ns for file in files))
    if reading.parts and (WHOLE not in splits or len(splits[WHOLE].series) > 1):
        raise DataError(f"--config.data.parts={reading.parts} divides a single long series: leave it empty.")
    return _divide(splits[WHOLE], reading.parts, path) if WHOLE in splits else splits


@functools.lru_cache(maxsize=4)
def _read(kind: str, path: Path, reading: Reading, changed: tuple[int, ...]) -> dict[str, Found]:
    """The series by the splits that the files name, or all as `WHOLE`; read again if they changed."""
    if kind == "demo":
        return _demo()
    if kind == "npz":
        return _npz(path)

    def read(file: Path, channels: tuple[str, ...] = ()) -> Found:
        return _present(_ts(file) if kind == "ts" else _csv(file, reading, channels), file)

    if path.is_dir():
        files = dict(_files_of_splits(kind, path))
        if "train" not in files:
            wanted = "NAME_TRAIN.ts, and NAME_TEST.ts" if kind == "ts" else "train.csv, and test.csv"
            raise DataError(f"The folder {str(path)!r} has no {wanted} likewise: name a folder that has them.")
        train = read(files.pop("train"))
        return {"train": train} | {split: read(file, train.channels) for split, file in files.items()}
    if not path.is_file():
        raise DataError(f"There is no file {str(path)!r}: check the path after '{kind}:'.")
    return {WHOLE: read(path)}


def _files_of_splits(kind: str, folder: Path) -> Iterator[tuple[str, Path]]:
    for split in ("train", *EVALUATION_SPLITS):
        ends = [f"_{split}.ts", f"_{split}.ts.gz"] if kind == "ts" else [f"{split}.csv", f"{split}.csv.gz"]
        found = [file for file in sorted(folder.iterdir()) if any(file.name.lower().endswith(end) for end in ends)]
        if len(found) > 1:
            told = " and ".join(file.name for file in found)
            raise DataError(f"The folder {str(folder)!r} has {told}, which are both {split}: name a folder with one.")
        yield from ((split, file) for file in found)


def _present(found: Found, path: Path) -> Found:
    """Without steps at the end that have no number, and without series that have none at all, which are counted. Raises
    DataError for infinite numbers."""
    for number, x in enumerate(found.series, start=1):
        if (infinite := np.isinf(x)).any():
            step = int(np.argmax(infinite.any(axis=1))) + 1
            raise DataError(
                f"Step {step} of series {number} of {str(path)!r} holds infinite numbers, or such as do not fit 32 "
                "bits: correct them, or leave them empty."
            )
    ends = [np.flatnonzero(~np.isnan(x).all(axis=1)) for x in found.series]
    kept = [i for i, end in enumerate(ends) if len(end)]
    if not kept:
        raise DataError(f"{str(path)!r} has no series with a number: check that it is whole.")
    left_out = found.left_out
    if gone := len(ends) - len(kept):
        left_out += (note_left_out(str(path), f"left out {gone} series without any number"),)
    series = [found.series[i][: ends[i][-1] + 1] for i in kept]
    labels = None if found.labels is None else [found.labels[i] for i in kept]
    return replace(found, series=series, labels=labels, left_out=left_out)


def _divide(found: Found, parts: tuple[float, ...], path: Path) -> dict[str, Found]:
    """Of one file: one series in ten to test; of a single one the last tenth of its time, or the parts that are
    asked for."""
    if len(found.series) == 1 and len(found.series[0]) > 1:
        (whole,) = found.series
        ends = _ends(len(whole), parts, path)
        names = ("train", "test") if len(ends) == 2 else ("train", "val", "test")
        pieces = np.split(whole[: ends[-1]], ends[:-1])
        return {name: replace(found, series=[piece]) for name, piece in zip(names, pieces, strict=True)}
    places = hashed_splits([str(index) for index in range(len(found.series))])

    def part(rows: list[int]) -> Found:
        labels = None if found.labels is None else [found.labels[i] for i in rows]
        return replace(found, series=[found.series[i] for i in rows], labels=labels)

    return {split: part(rows) for split, rows in places.items()}


def _ends(steps: int, parts: tuple[float, ...], path: Path) -> list[int]:
    if not parts:
        return [steps - max(1, steps // 10), steps]
    if all(part < 1 for part in parts):
        parts = tuple(part * steps for part in parts)
    ends = [int(end + 1e-6) for end in np.cumsum(parts)]
    if len(parts) not in (2, 3) or min(np.diff([0, *ends])) < 1 or ends[-1] > steps:
        raise DataError(
            f"--config.data.parts={parts} must be the steps to train on, to choose by (or none) and to test, or shares "
            f"below 1, of the {steps} of {str(path)!r}."
        )
    return ends


def _demo() -> dict[str, Found]:
    found = {}
    with np.load(DEMO) as arrays:
        for split in ("train", "test"):
            values = UNIT * arrays[f"{split}_codes"].astype(np.float32) + SILENCE
            series = np.split(values, np.cumsum(arrays[f"{split}_length"], dtype=int)[:-1])
            found[split] = Found(series, arrays[f"{split}_label"].tolist())
    return found


def _ts(path: Path) -> Found:
    """A file of the UCR and UEA archives: a head of lines with @, then a line for each series, its channels and its
    class parted by colons."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{str(path)!r} cannot be read as text in UTF-8 ({error}).") from error
    lines = ((i, line.strip()) for i, line in enumerate(io.StringIO(text, newline=None), start=1))
    head: dict[str, str] = {}
    for _, line in lines:
        if line.lower().startswith("@data"):
            break
        if line.startswith("@"):
            field, _, value = line[1:].partition(" ")
            head[field.lower()] = value.strip().lower()
    else:
        raise DataError(f"{str(path)!r} has no line '@data', after which the series come: it is no .ts file.")
    if head.get("timestamps") == "true":
        raise DataError(f"{str(path)!r} has time stamps, which are not read: write the numbers alone, at even steps.")
    labelled = head.get("classlabel", "false").startswith("true")
    series: list[np.ndarray] = []
    labels: list[str] = []
    valued = labelled or head.get("targetlabel", "false").startswith("true")  # a number to predict is no class
    for number, line in lines:
        if not line or line.startswith(("#", "%")):
            continue
        *channels, last = line.split(":")
        channels, label = (channels, last.strip()) if valued else ([*channels, last], "")
        try:
            rows = [_float32([_number(x) for x in channel.split(",")]) for channel in channels]
        except ValueError as error:
            raise DataError(f"Line {number} of {str(path)!r} holds what is no number ({error}).") from error
        if not rows or (series and len(rows) != series[0].shape[1]):
            expected = series[0].shape[1] if series else 1
            raise DataError(f"Line {number} of {str(path)!r} has {len(rows)} channels, where {expected} are expected.")
        if labelled and label in ("", "?"):
            raise DataError(f"Line {number} of {str(path)!r} has no class: fill it in, or set '@classLabel false'.")
        longest = max(len(row) for row in rows)
        series.append(np.stack([np.pad(r, (0, longest - len(r)), constant_values=np.nan) for r in rows], axis=1))
        labels.append(label)
    return Found(series, labels if labelled else None)


def _float32(numbers: np.ndarray | list[float]) -> np.ndarray:
    with np.errstate(over="ignore"):  # infinite, which `_present` tells of
        return np.asarray(numbers).astype(np.float32, copy=False)


def _number(text: str) -> float:
    text = text.strip()
    return float("nan") if text in ("", "?") else float(text)


def _csv(path: Path, reading: Reading, channels: tuple[str, ...] = ()) -> Found:
    """Rows of time steps; columns of text are left out, and dates become covariates where that is asked for.

    channels: those of the training file, which another one must have too, in any order; a column of them may be empty.
    """
    table, left_out = read_file("csv", path)
    if unknown := {*reading.columns, *filter(None, [reading.time])} - {*table.column_names}:
        raise DataError(f"{str(path)!r} has no column {min(unknown)!r}: it has {', '.join(table.column_names)}.")
    names = [name for name in table.column_names if name not in ("series", "label", reading.time)]
    names = [name for name in names if name in reading.columns] if reading.columns else names
    kinds = {name: table.schema.field(name).type for name in names}
    numbers = [name for name, kind in kinds.items() if pa.types.is_integer(kind) or pa.types.is_floating(kind)]
    if channels:
        empty = [name for name, kind in kinds.items() if pa.types.is_null(kind) and name in channels]
        if odd := {*numbers, *empty} ^ {*channels}:
            ours, theirs = ("no", "one") if min(odd) in channels else ("a", "none")
            raise DataError(
                f"{str(path)!r} has {ours} column of numbers {min(odd)!r}, and the training file has {theirs}: give "
                "both the same."
            )
        numbers = list(channels)
    if not numbers:
        raise DataError(f"{str(path)!r} has no column of numbers: it has {', '.join(table.column_names)}.")
    if len(numbers) < len(names):
        told = ", ".join(sorted({*names} - {*numbers}))
        left_out += (note_left_out(str(path), f"columns without numbers are left out: {told}"),)
    values = _float32(np.stack([numbers_of(table[name]) for name in numbers], axis=1))
    if reading.time:
        values = np.concatenate([values, _calendar(table[reading.time], reading.time, path)], axis=1)
    whose = np.zeros(len(values), int)
    if "series" in table.column_names:
        if gaps := table["series"].null_count:
            row = table["series"].is_null().index(True).as_py() + 1
            raise DataError(f"Column 'series' of {str(path)!r} has {gaps} gaps, the first in row {row}: fill them in.")
        whose = np.array(table["series"].to_pylist())
    _, first, of, counts = np.unique(whose, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first)  # as they come in the file
    steps = np.split(np.argsort(of, kind="stable"), np.cumsum(counts)[:-1])
    series = [values[steps[k]] for k in order]
    if "label" not in table.column_names:
        return Found(series, None, tuple(numbers), left_out)
    texts = table["label"].to_pylist()
    for k in order:
        found = {texts[i] for i in steps[k]}
        if len(found) > 1 or None in found:
            raise DataError(f"Series {whose[first[k]]} of {str(path)!r} has several labels or gaps: give it one.")
    return Found(series, [str(texts[first[k]]) for k in order], tuple(numbers), left_out)


def _calendar(dates: pa.ChunkedArray, name: str, path: Path) -> np.ndarray:
    """(steps, 7): the `CALENDAR` of each date."""
    if not pa.types.is_temporal(dates.type) or dates.null_count:
        raise DataError(
            f"Column {name!r} of {str(path)!r} is {dates.type} with {dates.null_count} gaps: write a date and time for "
            "each step, as in 2016-07-01 13:00:00, or set --config.data.time='' to do without."
        )
    numbers = [getattr(pa.compute, field)(dates.cast(pa.timestamp("s"))) for field in CALENDAR]
    return np.stack([column.to_numpy() for column in numbers], axis=1).astype(np.float32)


def _npz(path: Path) -> dict[str, Found]:
    arrays = read_npz(path)
    splits = {s: f"{s}_" for s in ("train", *EVALUATION_SPLITS) if f"{s}_series" in arrays}
    if "train" not in splits and "series" not in arrays:
        told = ", ".join(arrays) or "nothing"
        raise DataError(f"{str(path)!r} has {told}: give train_series and test_series, or series, (n, time, channels).")
    if "train" not in splits:
        return {WHOLE: _from_arrays(arrays, "", path)}
    return {split: _from_arrays(arrays, prefix, path) for split, prefix in splits.items()}


def _from_arrays(arrays: dict[str, np.ndarray], prefix: str, path: Path) -> Found:
    name, series, labels = f"{prefix}series", arrays[f"{prefix}series"], arrays.get(f"{prefix}label")
    if series.ndim not in (2, 3) or not series.size or series.dtype.kind not in "fiu":
        raise DataError(
            f"{name} of {str(path)!r} is {series.shape} of {series.dtype}: give numbers, (n, time) or (n, time, "
            "channels), NaN where there is none."
        )
    if labels is not None and labels.shape != (len(series),):
        raise DataError(f"{prefix}label of {str(path)!r} is {labels.shape}, but there are {len(series)} series.")
    rows = list(_float32(series).reshape(*series.shape[:2], -1))
    return _present(Found(rows, None if labels is None else [str(label) for label in labels.tolist()]), path)
