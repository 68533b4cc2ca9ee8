"""Where examples come from: random access to them, and one spelling for every kind of source of images.

    source = open_source("folder:photographs", "train")
    source[0]                  # {"image": uint8 (h, w, 3), "label": int32}

===========================  ===================================================================================
``demo``                     the ten-class images that ship with ssljax
``folder:PATH``              image files, with or without class sub-folders (:mod:`ssljax.data.folder`)
``npz:PATH``                 arrays in one ``.npz`` file (:mod:`ssljax.data.arrays`)
``tfds:NAME[:CONFIG][:VER]`` a set of TensorFlow Datasets, without TensorFlow (:mod:`ssljax.data.tfds_source`)
===========================  ===================================================================================
"""

import abc
import functools
import hashlib
import logging
import math
import re
import threading
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssljax.data.images import UndecodableImage

logger = logging.getLogger(__name__)

FORMS = {"demo": "demo", "folder": "folder:PATH", "npz": "npz:PATH", "tfds": "tfds:NAME[:CONFIG][:VERSION]"}
EVALUATION_SPLITS = ("val", "valid", "validation", "test")
TEST_FRACTION = 0.1
NO_LABEL = -1
QUOTED = re.compile(r'(?:^|(?<=[,\n\r]))"[^"]*(?:""[^"]*)*("|\Z)([^,\n\r ]?)')
"""A quoted field of a CSV file, its closing quote, and what else than a comma, a blank or the line's end follows."""

# One lock for the process, not one for each source: a lock in the object would make it impossible to pickle.
_SKIPPED_LOCK = threading.Lock()


class DataError(ValueError):
    """The data can't be used as asked; the message says what is wrong and what to change."""


Example = dict[str, Any]
"""The arrays of one example: of an image ``image``, uint8 (h, w, 3). And ``label``, an int32 scalar, where the source
has labels. What else a source puts here for `draw` is in no batch."""

Shapes = dict[str, tuple[tuple[int, ...], type]]
"""Shape and type of each array of an example but its label."""


class Source(abc.ABC):
    """Random access to the examples of one split. It can be pickled, and read from several threads.

    Attributes:
        name: what it is called in messages.
        class_names: the name of label ``k`` at place ``k``, or None where unknown.
        has_labels: whether its examples have the key ``label``.
        shapes: of every example's arrays, or None if they differ or are not known without decoding.
        in_memory: whether reading an example is only a look-up.
        skipped: the files that could not be decoded so far, each with the reason.
        left_out: what of its files is not among its examples, in sentences (`note_left_out`).
        things: what its examples are, in messages.
        drawn: shapes of what a training example has besides, or in the place of its own arrays, drawn anew each time
            (`draw`); nothing for most sources.
    """

    in_memory = False
    things = "examples"

    def __init__(
        self,
        name: str,
        *,
        has_labels: bool,
        class_names: tuple[str, ...] | None = None,
        shapes: Shapes | None = None,
    ):
        self.name = name
        self.has_labels = has_labels
        self.class_names = class_names
        self.shapes = shapes
        self.drawn: Shapes = {}
        self.skipped: dict[str, str] = {}
        self.left_out: tuple[str, ...] = ()

    @abc.abstractmethod
    def __len__(self) -> int:
        """The number of examples, the undecodable ones included."""

    @property
    def count(self) -> int:
        """How many `things` it has: its examples, unless one of them holds many."""
        return len(self)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays of all examples, if these have one shape."""
        shapes = (self.shapes or {}).values()
        return len(self) * sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in shapes)

    @abc.abstractmethod
    def _where(self, index: int) -> str:
        """What names example ``index`` in the log: a path, if it has one."""

    def text(self, index: int) -> str:
        """What tells a reader which example ``index`` is: its text, the path of its file, or its number."""
        return self._where(index)

    def decodable(self) -> list[int]:
        """The examples that are not known to be undecodable, from what was read so far."""
        return [index for index in range(len(self)) if self._where(index) not in self.skipped]

    @abc.abstractmethod
    def _load(self, index: int) -> Example:
        """Reads example ``index``; raises OSError or UndecodableImage where that can't be done."""

    def read(self, index: int, rng: np.random.Generator | None = None) -> Example | None:
        """Example ``index``, or None if its file can't be decoded, which is noted in ``skipped`` and logged once.

        rng: for an example as training sees it (`_sample`).
        """
        try:
            return self._load(index) if rng is None else self._sample(index, rng)
        except (OSError, UndecodableImage) as error:
            self._note_skipped(self._where(index), str(error))
            return None

    def __getitem__(self, index: int) -> Example:
        """Example ``index``; in the place of an undecodable one the next that can be decoded, wrapping at the end.

        So it depends on nothing but the index, and training never stops at a damaged file. Evaluation, where each
        image must count once, uses :meth:`read`.

        Raises:
            IndexError: the index is not in [0, len).
            DataError: no example at all can be decoded.
        """
        return self.sample(index)

    def sample(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """The same, with what is `drawn` for it, if `rng` is given."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is out of range for {self.name}, which has {len(self)} examples")
        for offset in range(len(self)):
            example = self.read((index + offset) % len(self), rng)
            if example is not None:
                return example
        raise self.nothing_decodable()

    def samples(
        self, names: Collection[str], indices: np.ndarray, places: np.ndarray, key: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        """These arrays of these examples, stacked: what training batches are made of.

        What is `drawn` for one depends on the key and on its place in the batch alone.
        """

        def sample(index: int, place: int) -> Example:
            example = self.sample(index, np.random.default_rng((*key, place)) if self.drawn else None)
            return {name: example[name] for name in names}

        return stacked([sample(int(index), int(place)) for index, place in zip(indices, places, strict=True)])

    def _sample(self, index: int, rng: np.random.Generator) -> Example:
        """Reads example ``index`` as training sees it. Sources of which a part is read only draw it here."""
        example = self._load(index)
        return example | self.draw(rng, example)

    def draw(self, rng: np.random.Generator, example: Example) -> Example:
        """What a training example has besides its own arrays, or in their place."""
        return {}

    def gap(self) -> Example:
        """What stands in a batch for an example that is not there: zeros."""
        return {name: np.zeros(shape, kind) for name, (shape, kind) in (self.shapes or {}).items()}

    def nothing_decodable(self) -> DataError:
        """The error for a source of which every file was skipped."""
        path, reason = next(iter(self.skipped.items()))
        return DataError(
            f"None of the {len(self)} {self.things} of {self.name} can be decoded (the first, {path}: {reason}); "
            f"check that the files are whole and are {self.things}."
        )

    def labels(self) -> np.ndarray:
        """The label of each example, int32 (n,), -1 for one that cannot be decoded.

        Every example is read where the source does not know them all beforehand. Raises DataError if there are none.
        """
        self.require_labels("this")
        return np.array([NO_LABEL if x is None else x["label"] for x in map(self.read, range(len(self)))], np.int32)

    def require_labels(self, who: str = "evaluation") -> None:
        """Raises DataError, which says who needs them, if the examples have no labels."""
        if not self.has_labels:
            raise DataError(
                f"{self.name} has no labels, which {who} needs: give its {self.things} two classes or more, or take "
                "another source."
            )

    def _note_skipped(self, path: str, reason: str) -> None:
        with _SKIPPED_LOCK:
            if path in self.skipped:
                return
            self.skipped[path] = reason
            count = len(self.skipped)
        logger.warning("%s: skipping %s, not decodable (%s); %d skipped so far", self.name, path, reason, count)


def stacked(examples: Sequence[Example]) -> dict[str, np.ndarray]:
    """Examples of the same arrays as one batch."""
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


@functools.cache
def note_left_out(where: str, what: str) -> str:
    """The sentence that says what is left out of a file, which the log has once, however often the file is read."""
    note = f"{where}: {what}"
    logger.warning("%s", note)
    return note


def open_source(spec: str, split: str) -> Source:
    """Opens the split of a source, spelt as the table at the head of this module says.

    ``val``, ``valid``, ``validation`` and ``test`` stand in for each other where the one asked for does not exist.

    Raises:
        DataError: the kind is unknown, the data is missing or empty, or there is no such split.
    """
    kind, where = split_spec(spec)
    # Imported here, since each of these modules builds on this one, and so that only `tfds:` needs its package.
    if kind == "tfds":
        from ssljax.data.tfds_source import TFDSSource

        return TFDSSource.open(where, split)
    if kind == "folder":
        from ssljax.data.folder import FolderSource

        return FolderSource.open(where, split)
    from ssljax.data import arrays

    return arrays.open_demo(split) if kind == "demo" else arrays.open_npz(where, split)


def split_spec(spec: str, forms: Mapping[str, str] = FORMS) -> tuple[str, str]:
    """``folder:PATH`` -> ("folder", "PATH"). Raises DataError, which lists the `forms` there are, for any other; for a
    path that exists it says which is its form."""
    kind, _, where = spec.partition(":")
    if kind not in forms or bool(where) != (kind != "demo"):
        path = Path(spec).expanduser()
        form = "folder" if path.is_dir() else path.suffix[1:]
        if spec and form in forms and path.exists():
            raise DataError(f"There is no data source {spec!r}: write '{form}:{spec}'.")
        raise DataError(f"There is no data source {spec!r}: write one of {', '.join(forms.values())}.")
    return kind, where


def absolute(spec: str) -> str:
    """A source by a path that holds in any folder; what has no path as it is."""
    kind, _, where = spec.partition(":")
    return f"{kind}:{Path(where).expanduser().absolute()}" if where and kind != "tfds" else spec


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an archive. Raises DataError if there is none, or it holds anything but plain arrays."""
    if not path.is_file():
        raise DataError(f"There is no file {str(path)!r}: check the path after 'npz:'.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, TypeError) as error:
        raise DataError(f"{str(path)!r} cannot be read ({error}): write plain arrays with numpy.savez.") from error


def require_closed_quotes(text: str, name: str) -> None:
    """Raises DataError for a quote in a CSV file that takes in the rows after it: it is not closed, or amid a line."""
    for field in QUOTED.finditer(text):
        if not field[1] or (field[2] and "\n" in field[0]):
            line = text.count("\n", 0, field.start()) + 1
            raise DataError(
                f"{name}, line {line}, opens a quote that is not closed before a comma or a line's end: close it, and "
                "write a quote within a quoted field twice."
            )


def resolve_split(split: str, available: Collection[str], name: str) -> str:
    """The split of ``available`` that is meant: itself, or one evaluation split for another.

    Raises:
        DataError: there is none; the message lists those there are.
    """
    candidates = (split, *EVALUATION_SPLITS) if split in EVALUATION_SPLITS else (split,)
    for candidate in candidates:
        if candidate in available:
            return candidate
    raise DataError(f"{name} has no split {split!r}: choose one of {', '.join(sorted(available))}.")


def hashed_splits(keys: Sequence[str]) -> dict[str, list[int]]:
    """Splits examples by a hash of their keys: about a tenth is ``test``, the rest ``train``.

    A key falls on the same side on every machine and whatever else is in the set, so adding images moves none. The
    exception is a set so small that one side would be empty: the key of the lowest (highest) hash then goes to test
    (train), except that a single key is always ``train``.

    Args:
        keys: distinct names.

    Returns:
        For ``train`` and ``test`` the positions in ``keys``, ascending; ``test`` is left out if it would be empty.
    """
    hashes = key_hashes(keys)
    by_hash = sorted(range(len(keys)), key=hashes.__getitem__)
    below = sum(value < TEST_FRACTION * 2**64 for value in hashes)
    test_size = min(max(below, 1), len(keys) - 1)
    splits = {"train": sorted(by_hash[test_size:]), "test": sorted(by_hash[:test_size])}
    return {split: positions for split, positions in splits.items() if positions}


def key_hashes(keys: Sequence[str]) -> list[int]:
    """A number in [0, 2^64) for each key, the same on every machine."""
    return [int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") for key in keys]
