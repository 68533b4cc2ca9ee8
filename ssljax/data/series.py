"""Time series, of different lengths and with gaps.

    ts:PATH      the archives' format: a folder with ``NAME_TRAIN.ts`` and ``NAME_TEST.ts``, or one file (also .gz)
    csv:PATH     a row for each time step, in order, and a column of numbers for each channel; a column ``series`` says
                 whose step it is (without it all are of one series), a column ``label`` its class (also .gz)
    npz:PATH     arrays ``train_series`` (n, time) or (n, time, channels), ``train_label`` (n,), ``test_series`` …
    demo         Japanese Vowels, which ships with ssljax

For ``csv:``, PATH may also be a folder with ``train.csv`` and ``test.csv``. Of what is not split, one series in ten
is the test split, by a hash of its place; of a single long one the last tenth of its time. What is missing is NaN (or
empty, or ``?``); steps without any number at the end of a series are taken for padding.
"""

import functools
import gzip
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ssljax.data.sources import (
    EVALUATION_SPLITS,
    DataError,
    Example,
    Shapes,
    Source,
    hashed_splits,
    read_npz,
    resolve_split,
    split_spec,
)
from ssljax.data.tables import read_file

logger = logging.getLogger(__name__)

FORMS = {"demo": "demo", "ts": "ts:PATH", "csv": "csv:PATH", "npz": "npz:PATH"}
DEMO_FOLDER = Path(__file__).parent / "demo" / "series"


@dataclass(frozen=True)
class Found:
    """Series (time, channels) float32, each with at least one step, the name of the class of each, if they have any,
    and the names of the channels, if these have any."""

    series: list[np.ndarray]
    labels: list[str] | None
    channels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scale:
    """What each channel is less, and over: (channels,) both."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def pad(self, series: Sequence[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
        """(n, length, channels) float32, zeros behind the end and NaN where a number is missing, and which steps are
        there: (n, length) bool."""
        values = np.zeros((len(series), length, len(self.mean)), np.float32)
        valid = np.arange(length) < np.array([len(x) for x in series])[:, None]
        for row, x in zip(values, series, strict=True):
            row[: len(x)] = (x - np.array(self.mean)) / np.array(self.std)
        return values, valid


class SeriesSource(Source):
    """`series` (time, channels) and `valid` (time,), padded to the longest of all splits."""

    in_memory, things = True, "series"

    def __init__(self, name: str, found: Found, classes: tuple[str, ...] | None, scale: Scale, length: int):
        self.scale, self.channels = scale, len(scale.mean)
        shapes: Shapes = {"series": ((length, self.channels), np.float32), "valid": ((length,), np.bool_)}
        super().__init__(name, has_labels=classes is not None, class_names=classes, shapes=shapes)
        self._values, self._valid = scale.pad(found.series, length)
        self._values.setflags(write=False)
        self._labels = None if classes is None else _numbered(found.labels or [], classes, name)

    def labels(self) -> np.ndarray:
        return super().labels() if self._labels is None else self._labels

    def __len__(self) -> int:
        return len(self._values)

    def _where(self, index: int) -> str:
        return f"{self.name}[{index}]"

    def _load(self, index: int) -> Example:
        example: Example = {"series": self._values[index], "valid": self._valid[index]}
        return example if self._labels is None else example | {"label": self._labels[index]}


def open_series(spec: str, split: str, *, scale: str = "standard", length: int = 0) -> SeriesSource:
    """The split of a set of series, spelt as the head of this module says.

    scale: "standard": each channel less the mean and over the standard deviation of the training split's; "none".
    length: longer series are cut into pieces of at most so many steps, which have their label; 0: none is.

    Raises:
        ValueError: the scale or the length cannot be.
        DataError: the kind is unknown, there is no such file or split, or what it holds cannot be used; the message
            says what to change.
    """
    if scale not in ("standard", "none"):
        raise ValueError(f"--config.data.scale={scale} is unknown; use standard or none.")
    if length < 0:
        raise ValueError(f"--config.data.length={length} must be a number of steps, or 0 to cut nothing.")
    kind, where = split_spec(spec, FORMS)
    kind, path = ("ts", DEMO_FOLDER) if kind == "demo" else (kind, Path(where).expanduser())
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    splits = _splits(kind, path, tuple(file.stat().st_mtime_ns for file in files))
    splits = {name: _cut(found, length) for name, found in splits.items()}
    found, name = splits[resolve_split(split, splits, spec)], f"{spec} ({split})"
    channels = {name: x.shape[1] for name, part in splits.items() for x in part.series}
    if len(set(channels.values())) > 1:
        told = " and ".join(f"{count} in {name}" for name, count in channels.items())
        raise DataError(f"The series of {spec} have {told} channels: give all of them the same.")
    longest = max(len(x) for part in splits.values() for x in part.series)
    labels = splits["train"].labels
    classes = None if labels is None or found.labels is None else tuple(sorted(set(labels)))
    return SeriesSource(name, found, classes, _learn(splits["train"], scale, spec), longest)


def _learn(train: Found, scale: str, spec: str) -> Scale:
    values = np.concatenate(train.series).astype(np.float64)
    if (empty := np.isnan(values).all(axis=0)).any():
        raise DataError(f"Channel {int(empty.argmax()) + 1} of {spec} has no number in the training split: drop it.")
    if scale == "none":
        return Scale((0.0,) * values.shape[1], (1.0,) * values.shape[1])
    std = np.nanstd(values, axis=0)
    return Scale(tuple(np.nanmean(values, axis=0).tolist()), tuple(np.where(std > 0, std, 1.0).tolist()))


def _numbered(labels: list[str], classes: tuple[str, ...], name: str) -> np.ndarray:
    places = {label: place for place, label in enumerate(classes)}
    if unknown := sorted(set(labels) - set(places)):
        raise DataError(f"The labels of {name} hold {unknown[0]!r}, which no training series has: correct the file.")
    return np.array([places[label] for label in labels], np.int32)


def _cut(found: Found, length: int) -> Found:
    if not length:
        return found
    starts = [range(0, len(x), length) for x in found.series]
    pieces = [x[at : at + length] for x, places in zip(found.series, starts, strict=True) for at in places]
    if found.labels is None:
        return Found(pieces, None)
    return Found(pieces, [label for label, places in zip(found.labels, starts, strict=True) for _ in places])


@functools.lru_cache(maxsize=4)
def _splits(kind: str, path: Path, changed: tuple[int, ...]) -> dict[str, Found]:
    """The series by split, read again if their files have changed."""
    if kind == "npz":
        return _npz(path)

    def read(file: Path, channels: tuple[str, ...] = ()) -> Found:
        return _present(_ts(file) if kind == "ts" else _csv(file, channels), file)

    if path.is_dir():
        files = dict(_files_of_splits(kind, path))
        if "train" not in files:
            wanted = "NAME_TRAIN.ts, and NAME_TEST.ts" if kind == "ts" else "train.csv, and test.csv"
            raise DataError(f"The folder {str(path)!r} has no {wanted} likewise: name a folder that has them.")
        train = read(files.pop("train"))
        return {"train": train} | {split: read(file, train.channels) for split, file in files.items()}
    if not path.is_file():
        raise DataError(f"There is no file {str(path)!r}: check the path after '{kind}:'.")
    return _divide(read(path))


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
            step = int(infinite.any(axis=1).argmax()) + 1
            raise DataError(
                f"Step {step} of series {number} of {str(path)!r} holds infinite numbers, or such as do not fit 32 "
                "bits: correct them, or leave them empty."
            )
    ends = [np.flatnonzero(~np.isnan(x).all(axis=1)) for x in found.series]
    kept = [i for i, end in enumerate(ends) if len(end)]
    if not kept:
        raise DataError(f"{str(path)!r} has no series with a number: check that it is whole.")
    if left_out := len(ends) - len(kept):
        logger.warning("%s: %d series without any number are left out", path, left_out)
    series = [found.series[i][: ends[i][-1] + 1] for i in kept]
    return Found(series, None if found.labels is None else [found.labels[i] for i in kept], found.channels)


def _divide(found: Found) -> dict[str, Found]:
    """Of one file: one series in ten to test, or of a single one the last tenth of its time."""
    if len(found.series) == 1 and len(found.series[0]) > 1:
        (whole,) = found.series
        end = len(whole) - max(1, len(whole) // 10)
        return {"train": Found([whole[:end]], found.labels), "test": Found([whole[end:]], found.labels)}
    places = hashed_splits([str(index) for index in range(len(found.series))])

    def part(rows: list[int]) -> Found:
        return Found([found.series[i] for i in rows], None if found.labels is None else [found.labels[i] for i in rows])

    return {split: part(rows) for split, rows in places.items()}


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


def _csv(path: Path, channels: tuple[str, ...] = ()) -> Found:
    """Rows of time steps; columns of text, such as a date, are left out.

    channels: those of the training file, which another one must have too, in any order; a column of them may be empty.
    """
    table = read_file("csv", path)
    names = [name for name in table.column_names if name not in ("series", "label")]
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
        logger.warning("%s: columns without numbers are left out: %s", path, ", ".join(sorted({*names} - {*numbers})))
    values = _float32(np.stack([table[name].cast(pa.float64()).to_numpy() for name in numbers], axis=1))
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
        return Found(series, None, tuple(numbers))
    texts = table["label"].to_pylist()
    for k in order:
        found = {texts[i] for i in steps[k]}
        if len(found) > 1 or None in found:
            raise DataError(f"Series {whose[first[k]]} of {str(path)!r} has several labels or gaps: give it one.")
    return Found(series, [str(texts[first[k]]) for k in order], tuple(numbers))


def _npz(path: Path) -> dict[str, Found]:
    arrays = read_npz(path)
    splits = {s: f"{s}_" for s in ("train", *EVALUATION_SPLITS) if f"{s}_series" in arrays}
    if "train" not in splits and "series" not in arrays:
        told = ", ".join(arrays) or "nothing"
        raise DataError(f"{str(path)!r} has {told}: give train_series and test_series, or series, (n, time, channels).")
    if "train" not in splits:
        return _divide(_from_arrays(arrays, "", path))
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
