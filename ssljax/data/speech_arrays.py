"""Clips of speech in arrays: a file of one's own, and the demo.

An archive for `npz:PATH` holds

    wave     the samples of all clips, one clip after the other: whole numbers of 8, 16 or 32 bits, whichever type holds
             them (`narrowed`), or floats in [-1, 1]
    offset   (clips + 1,): where in it each clip begins, and the last one ends
    rate     samples in a second, from 1,000 to 768,000; without it, that is what --config.data.rate says
    split    (clips,): the name of the split that each clip is in; or test (clips,), bool

and any arrays (clips,) of whole numbers or text, by which classes, speakers and splits may be named: as a split,
`take<5` has the clips whose `take` is less than 5 (also <=, >, >=, =). Where nothing says how to split, one clip in ten
is the test split, by a hash of its place. What an array `NAME_name` holds at place k is what a k in NAME is called.
"""

import lzma
import operator
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssljax.data.sources import DataError, hashed_splits, read_npz, resolve_split

DEMO = Path(__file__).parent / "demo" / "speech" / "digits.npz"
RATES = (1000, 768_000)
"""Samples in a second, at least and at most."""
SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq}
LOUDEST = 10.0
"""Of samples that are floats, 20 dB beyond full scale: what is above are whole numbers as floats."""
CONDITION = re.compile(r"(\w+)(<=|>=|<|>|=)(-?\d+)")

Numbered = tuple[np.ndarray | None, tuple[str, ...]]
"""A number for each clip, int32, and what each number is called; None and () where that is not known."""


class Clips(NamedTuple):
    """Of a split: what its clips are called, rate and samples of a clip by what it is called, and whose they are."""

    files: list[str]
    read: Callable[[str], tuple[int, np.ndarray]]
    labels: Numbered
    groups: Numbered


class Joined:
    """Reads clips that lie one after the other, from each bound in `offset` to the next."""

    def __init__(self, files: list[str], wave: np.ndarray, offset: np.ndarray, rate: int):
        self._rate, self._clips = rate, dict(zip(files, np.split(wave, offset[1:-1]), strict=True))

    def __call__(self, file: str) -> tuple[int, np.ndarray]:
        return self._rate, self._clips[file]


def read_demo() -> tuple[list[str], Joined]:
    """What its clips are called, as paths in a folder, and their samples, which are kept as μ-law of 8 bits."""
    with np.load(DEMO) as arrays:
        codes = np.frombuffer(lzma.decompress(arrays["codes"].tobytes()), np.uint8)
        files = arrays["files"].tolist()
        return files, Joined(files, expand(codes), np.cumsum([0, *arrays["length"]]), int(arrays["rate"]))


def read_arrays(path: Path, split: str, *, rate: int, label: str, group: str) -> Clips:
    """The clips of a split of an archive. label, group: names of arrays, or empty.

    Raises DataError, which says what to change, if there is no such file, split or array, or one is not as the head of
    this module says.
    """
    arrays, spec = read_npz(path), f"npz:{path}"
    if missing := [name for name in ("wave", "offset") if name not in arrays]:
        raise DataError(
            f"{spec} has no array {missing[0]!r}, but {', '.join(arrays) or 'none'}: join the samples of all clips as "
            "'wave', and give as 'offset' where each begins, and where the last one ends."
        )
    wave, offset = arrays["wave"], arrays["offset"]
    if wave.ndim != 1 or not (wave.dtype == np.uint8 or wave.dtype.kind in "if"):
        raise DataError(
            f"The wave {wave.shape} of {wave.dtype} of {spec} must be (samples,): integers of 8 bits, signed ones of "
            "more, or floats in [-1, 1]."
        )
    (wave,) = narrowed([wave], f"The wave of {spec}")
    if wave.dtype.kind == "f" and (peak := np.abs(wave[np.isfinite(wave)]).max(initial=0)) > LOUDEST:
        raise DataError(
            f"The wave of {spec} must be whole numbers, or floats in about [-1, 1], but one is {peak:.6g}: divide them "
            "by the largest that their format can hold, as 32768."
        )
    rises = offset.ndim == 1 and offset.dtype.kind in "iu" and len(offset) > 1 and (offset[1:] >= offset[:-1]).all()
    if not rises or offset[0] != 0 or offset[-1] != len(wave):
        raise DataError(
            f"The offset of {spec} must be integers that rise from 0 to the {len(wave)} samples of its wave."
        )
    own = np.asarray(arrays.get("rate", rate))
    if own.size != 1 or own.dtype.kind not in "iu" or not RATES[0] <= own.item() <= RATES[1]:
        raise DataError(
            f"The rate of {spec} must be one whole number of samples in a second, from {RATES[0]} to {RATES[1]}."
        )
    count = len(offset) - 1
    rows = _of_split(arrays, count, split, spec)
    every = [f"clip {i}" for i in range(count)]
    return Clips(
        [every[i] for i in rows],
        Joined(every, wave, offset.astype(np.int64), own.item()),
        _numbered(arrays, count, "label", label, rows, spec),
        _numbered(arrays, count, "group", group, rows, spec),
    )


def _of_split(arrays: dict[str, np.ndarray], count: int, split: str, spec: str) -> np.ndarray:
    """The places of its clips."""
    if condition := CONDITION.fullmatch(split):
        name, sign, number = condition.groups()
        values = _of_clips(arrays, count, name, f"the split {split!r}", spec)
        in_split = SIGNS[sign](values, int(number)) if values.dtype.kind in "iu" else np.zeros(count, bool)
        if not in_split.any():
            raise DataError(f"{spec} has no clip in the split {split!r}: {name} begins {values[:5].tolist()}.")
        return np.flatnonzero(in_split)
    if "split" in arrays or "test" in arrays:
        name = "split" if "split" in arrays else "test"
        values = _of_clips(arrays, count, name, "a split", spec)
        if name == "test":
            values = np.where(values.astype(bool), "test", "train")
        splits = {str(value): np.flatnonzero(values == value) for value in np.unique(values)}
    else:
        splits = {key: np.array(rows) for key, rows in hashed_splits([str(i) for i in range(count)]).items()}
    return splits[resolve_split(split, splits, spec)]


def _numbered(
    arrays: dict[str, np.ndarray], count: int, field: str, name: str, rows: np.ndarray, spec: str
) -> Numbered:
    if not name:
        return None, ()
    values = _of_clips(arrays, count, name, f"--config.data.{field}", spec)
    found, numbers = np.unique(values, return_inverse=True)
    if len(found) < 2:
        raise DataError(f"--config.data.{field}={name}: all clips of {spec} have the same; leave it empty.")
    names = arrays.get(f"{name}_name")
    if names is not None:
        if names.ndim != 1 or found.dtype.kind not in "iu" or found[0] < 0 or found[-1] >= len(names):
            raise DataError(f"{name}_name of {spec} must be (names,), with a name for each number in {name}.")
        found = names[found]
    return numbers[rows].astype(np.int32), tuple(map(str, found))


def _of_clips(arrays: dict[str, np.ndarray], count: int, name: str, whose: str, spec: str) -> np.ndarray:
    """The array of that name, if it is one of the clips."""
    there = [key for key, x in arrays.items() if x.shape == (count,) and x.dtype.kind in "biuUS"]
    if name not in there:
        raise DataError(
            f"{spec} has no array {name!r} for {whose}: there {'is' if len(there) == 1 else 'are'} "
            f"{', '.join(there) or 'none'} with a whole number or text for each of its {count} clips."
        )
    return arrays[name]


def narrowed(arrays: Sequence[np.ndarray], what: str) -> list[np.ndarray]:
    """Signed integers as those of 16 bits, if these hold all that are of a larger type, or else of 32; others as they
    are. Raises DataError, which begins with `what`, if 32 bits do not hold them."""
    wide = [x for x in arrays if x.size and x.dtype.kind == "i" and x.dtype.itemsize > 2]
    least, most = (min((int(x.min()) for x in wide), default=0), max((int(x.max()) for x in wide), default=0))
    for kind in (np.int16, np.int32):
        if np.iinfo(kind).min <= least and most <= np.iinfo(kind).max:
            return [x.astype(kind) if x.dtype.kind == "i" and x.dtype.itemsize > 2 else x for x in arrays]
    raise DataError(
        f"{what} must be whole numbers of 8, 16 or 32 bits, or floats in [-1, 1], and these go from {least} to {most}: "
        "divide them by the largest that their format can hold."
    )


def compress(wave: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1] -> codes, uint8, of the continuous μ-law with μ = 255."""
    return np.round(127.0 * np.sign(wave) * np.log1p(255.0 * np.abs(wave)) / np.log(256.0) + 128.0).astype(np.uint8)


def expand(codes: np.ndarray) -> np.ndarray:
    """The inverse of `compress`, to its rounding."""
    level = (codes.astype(np.float32) - 128.0) / 127.0
    return np.sign(level) * (256.0 ** np.abs(level) - 1.0) / 255.0
