"""Time series, of different lengths and with gaps.

    ts:PATH      the archives' format: a folder with ``NAME_TRAIN.ts`` and ``NAME_TEST.ts``, or one file (also .gz)
    csv:PATH     a row for each time step, in order, and a column of numbers for each channel; a column ``series`` says
                 whose step it is (without it all are of one series), a column ``label`` its class (also .gz)
    npz:PATH     arrays ``train_series`` (n, time) or (n, time, channels), ``train_label`` (n,), ``test_series`` …
    demo         600 spoken digits as log-mel spectrograms, which ship with ssljax

For ``csv:``, PATH may also be a folder with ``train.csv`` and ``test.csv``. Of what is not split, one series in ten
is the test split, by a hash of its place; of a single long one the last tenth of its time. What is missing is NaN (or
empty, or ``?``); steps without any number at the end of a series are taken for padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ssljax.data.series_files import CALENDAR, Found, Reading, read_splits
from ssljax.data.sources import DataError, Example, Shapes, Source, resolve_split, split_spec

FORMS = {"demo": "demo", "ts": "ts:PATH", "csv": "csv:PATH", "npz": "npz:PATH"}


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


def open_series(
    spec: str,
    split: str,
    *,
    scale: str = "standard",
    length: int = 0,
    parts: Sequence[float] = (),
    columns: Sequence[str] = (),
    time: str = "",
) -> SeriesSource:
    """The split of a set of series, spelt as the head of this module says.

    scale: "standard": each channel less the mean and over the standard deviation of the training split's; "none".
    length: longer series are cut into equal pieces of at most so many steps, which have their label; 0: none is.
    parts: of a single long series, how many steps are to train on, to choose by and to test, in this order, or to train
    and to test; or shares of it, below 1. What follows them is not used. Empty: the last tenth is to test.
    columns: of `csv:`, those that are channels; empty: all that hold numbers.
    time: of `csv:`, the column of dates, from which each step has seven channels more, behind the others: minute, hour,
    day of the week, of the month and of the year, month and week; "": no dates are used.

    Raises:
        ValueError: the scale or the length cannot be.
        DataError: the kind is unknown, there is no such file, column or split, or what it holds cannot be used; the
            message says what to change.
    """
    splits, learnt = _open(spec, scale, Reading(tuple(parts), tuple(columns), time))
    if length < 0:
        raise ValueError(f"--config.data.length={length} must be a number of steps, or 0 to cut nothing.")
    splits = {name: _cut(found, length) for name, found in splits.items()}
    found, name = splits[resolve_split(split, splits, spec)], f"{spec} ({split})"
    longest = max(len(x) for part in splits.values() for x in part.series)
    labels = splits["train"].labels
    classes = None if labels is None or found.labels is None else tuple(sorted(set(labels)))
    source = SeriesSource(name, found, classes, learnt, longest)
    source.left_out = found.left_out
    return source


@dataclass(frozen=True)
class Long:
    """One long series, scaled: values (steps, channels), of which the last `covariates` are not to be foretold, and the
    step at which each split ends."""

    values: np.ndarray
    covariates: int
    ends: dict[str, int]


def open_long(
    spec: str, *, scale: str = "standard", parts: Sequence[float] = (), columns: Sequence[str] = (), time: str = ""
) -> Long:
    """All of one long series; the arguments are those of `open_series`, and so is what it raises, also for many."""
    splits, learnt = _open(spec, scale, Reading(tuple(parts), tuple(columns), time))
    if any(len(found.series) > 1 or found.labels for found in splits.values()) or len(splits) < 2:
        raise DataError(f"{spec} has many series: forecasts need one long one, csv:PATH without labels.")
    in_time = [splits[name].series[0] for name in ("train", "val", "test") if name in splits]
    ends = np.cumsum([len(x) for x in in_time]).tolist()
    values, _ = learnt.pad([np.concatenate(in_time)], ends[-1])
    names = ("train", "val", "test") if len(ends) == 3 else ("train", "test")
    return Long(values[0], len(CALENDAR) if time else 0, dict(zip(names, ends, strict=True)))


def _open(spec: str, scale: str, reading: Reading) -> tuple[dict[str, Found], Scale]:
    if scale not in ("standard", "none"):
        raise ValueError(f"--config.data.scale={scale} is unknown; use standard or none.")
    kind, where = split_spec(spec, FORMS)
    splits = read_splits(kind, Path(where).expanduser(), reading)
    channels = {name: x.shape[1] for name, part in splits.items() for x in part.series}
    if len(set(channels.values())) > 1:
        told = " and ".join(f"{count} in {name}" for name, count in channels.items())
        raise DataError(f"The series of {spec} have {told} channels: give all of them the same.")
    return splits, _learn(splits["train"], scale, spec)


def _learn(train: Found, scale: str, spec: str) -> Scale:
    values = np.concatenate(train.series).astype(np.float64)
    if (empty := np.isnan(values).all(axis=0)).any():
        raise DataError(f"Channel {int(np.argmax(empty)) + 1} of {spec} has no number in the training split: drop it.")
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
    cut = [np.array_split(x, -(-len(x) // length)) for x in found.series]
    pieces = [piece for of_one in cut for piece in of_one]
    if found.labels is None:
        return replace(found, series=pieces)
    labels = [label for label, of_one in zip(found.labels, cut, strict=True) for _ in of_one]
    return replace(found, series=pieces, labels=labels)
