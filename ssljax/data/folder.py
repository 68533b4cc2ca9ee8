"""Image files in a folder.

Classes are sub-folders, as deep as one likes below them::

    photographs/cat/1.jpg          photographs/train/cat/1.jpg          photographs/1.jpg
    photographs/dog/old/2.png      photographs/test/dog/2.png           photographs/2.png
    (labels; split by hash)        (labels; splits by sub-folder)       (no labels; split by hash)

- Sub-folders named train, test, val, valid or validation (in any case) are splits, if there are two of them or more, or
  if no other sub-folder holds images: a lone ``train`` beside ``bus`` and ``car`` is a class.
- Without split folders, one image in ten is the test split, by a hash of its path (`sources.hashed_splits`).
- A split has labels if the folder has two classes or more and none of the split's images lies outside a class folder.
  Label k is the k-th class in sorted order over all splits, so that splits agree even where one lacks a class.
- Hidden files and folders and ``__MACOSX`` are ignored. The order is that of the sorted paths, on every machine.
"""

import errno
import logging
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ssljax.data.encoded import EncodedSource
from ssljax.data.sources import EVALUATION_SPLITS, DataError, Example, hashed_splits, resolve_split

logger = logging.getLogger(__name__)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SPLIT_FOLDERS = ("train", *EVALUATION_SPLITS)
GONE = (errno.ENOENT, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV)
"""What is not a damaged file, but one that has been removed, or a disk or mount that is no longer there."""


class FolderSource(EncodedSource):
    """The image files of one split of a folder; see :meth:`open`."""

    def __init__(self, name: str, root: Path, files: Sequence[str], labels: np.ndarray | None, classes: Sequence[str]):
        """Takes the paths of the files relative to ``root``, and one int32 label for each or None."""
        super().__init__(
            name, has_labels=labels is not None, class_names=tuple(classes) if labels is not None else None
        )
        self._root = root
        self._files = files
        self._labels = labels

    @classmethod
    def open(cls, path: str, split: str) -> "FolderSource":
        """Lists the folder and takes one split of it.

        Raises:
            DataError: there is no such folder, it can't be listed, it holds no images, or it has no such split.
        """
        root = Path(path).expanduser()
        if not root.is_dir():
            raise DataError(f"There is no folder {str(root)!r}: check the path after 'folder:'.")
        files = list_files(root, EXTENSIONS)
        if not files:
            raise DataError(f"The folder {str(root)!r} holds no images: it needs files in {', '.join(EXTENSIONS)}.")

        splits, depth = split_files(files)
        name = f"folder:{path}"
        chosen = splits[resolve_split(split, splits, name)]
        every_path = [folders_of(file) for of_split in splits.values() for file in of_split]
        classes = sorted({parts[depth] for parts in every_path if len(parts) > depth + 1})
        labels = _labels(chosen, classes, depth, name)
        return cls(f"{name} ({split})", root, chosen, labels, classes)

    def labels(self) -> np.ndarray:
        return super().labels() if self._labels is None else self._labels

    def __len__(self) -> int:
        return len(self._files)

    def _where(self, index: int) -> str:
        return str(self._root / self._files[index])

    def _encoded(self, index: int) -> tuple[bytes, Example]:
        label = {} if self._labels is None else {"label": self._labels[index]}
        return read_bytes(self._where(index), self.name), label


def read_bytes(path: str, name: str) -> bytes:
    """The whole file. Raises DataError if it was listed in the source `name` and is gone, OSError for other trouble."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        if error.errno in GONE and not os.path.islink(path):
            raise DataError(
                f"{path} was there when {name} was listed, and is gone ({error.strerror}): bring the data back, then "
                "run the same command again."
            ) from error
        raise


def list_files(root: Path, extensions: tuple[str, ...]) -> list[str]:
    """The paths of all files below ``root`` that end so, relative to it, with forward slashes, sorted.

    Raises DataError if a folder can't be listed.
    """
    try:
        return sorted(_walk(root, extensions, prefix="", ancestors=()), key=_normalised)
    except OSError as error:
        raise DataError(f"The folder {str(root)!r} can't be listed ({error}): check its permissions.") from error


def _walk(folder: str | Path, extensions: tuple[str, ...], prefix: str, ancestors: tuple[str, ...]) -> Iterator[str]:
    # Links are followed, since class folders often are links; a link to a folder above itself would never end.
    real = os.path.realpath(folder)
    if real in ancestors:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir():
                yield from _walk(entry.path, extensions, f"{prefix}{entry.name}/", (*ancestors, real))
            elif entry.name.lower().endswith(extensions):
                yield prefix + entry.name


def _normalised(path: str) -> str:
    # File systems store accents composed or decomposed: without this, order and split would differ between machines.
    return unicodedata.normalize("NFC", path)


def folders_of(file: str) -> list[str]:
    """The names that a path is made of, the file's own last."""
    return _normalised(file).split("/")


def split_files(files: Sequence[str]) -> tuple[dict[str, list[str]], int]:
    """The files of each split, and at which place of a path its class stands: 1 below split folders, else 0."""
    tops = {parts[0] for parts in map(folders_of, files) if len(parts) > 1}
    named = {top for top in tops if top.lower() in SPLIT_FOLDERS}
    are_splits = len(named) >= 2 or (len(named) == 1 and named == tops)
    if not are_splits:
        positions = hashed_splits([_normalised(file) for file in files])
        return {split: [files[i] for i in chosen] for split, chosen in positions.items()}, 0

    by_folder: dict[str, list[str]] = {}
    for file in files:
        if folders_of(file)[0] in named:
            by_folder.setdefault(folders_of(file)[0].lower(), []).append(file)
    return by_folder, 1


def _labels(files: Sequence[str], classes: Sequence[str], depth: int, name: str) -> np.ndarray | None:
    """One int32 label for each file, or None if there are fewer than two classes or a file is in none."""
    outside = [file for file in files if len(folders_of(file)) <= depth + 1]
    if len(classes) < 2 or outside:
        if classes and outside:
            logger.warning("%s: no labels, since %d images, as %s, are in no class", name, len(outside), outside[0])
        return None
    label_of = {class_name: label for label, class_name in enumerate(classes)}
    return np.array([label_of[folders_of(file)[depth]] for file in files], np.int32)
