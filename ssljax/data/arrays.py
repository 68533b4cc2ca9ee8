"""Images held in memory: an ``.npz`` file of one's own, and the demo images that ship with ssljax."""

import zipfile
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssljax.data.images import (
    UndecodableImage,
    composite_on_white,
    decode,
    grey_from_float,
    grey_from_uint16,
    image_shapes,
)
from ssljax.data.sources import EVALUATION_SPLITS, DataError, Example, Source, hashed_splits, resolve_split

DEMO_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DEMO_FOLDER = Path(__file__).parent / "demo"
DEMO_COLUMNS = 40
DEMO_TILE = 32


class ArraySource(Source):
    """Images (n, h, w, 3) uint8, and labels (n,) int32 or None.

    masks: what is at each pixel, (n, h, w) uint8, 0 for the background, or None. They are in no batch: only evaluation
    looks at them.
    """

    in_memory, things = True, "images"

    def __init__(
        self,
        name: str,
        images: np.ndarray,
        labels: np.ndarray | None,
        class_names: Sequence[str] | None,
        masks: np.ndarray | None = None,
    ):
        super().__init__(
            name,
            has_labels=labels is not None,
            class_names=None if class_names is None else tuple(class_names),
            shapes=image_shapes(*images.shape[1:3]),
        )
        # Examples are views of it: who changes one by mistake gets an error, not other data in the next epoch.
        images.setflags(write=False)
        self._images = images
        self._labels = labels
        self.masks = masks

    def labels(self) -> np.ndarray:
        return super().labels() if self._labels is None else self._labels

    def __len__(self) -> int:
        return len(self._images)

    def _where(self, index: int) -> str:
        return f"{self.name}[{index}]"

    def _load(self, index: int) -> Example:
        example: Example = {"image": self._images[index]}
        if self._labels is not None:
            example["label"] = self._labels[index]
        return example


def open_demo(split: str) -> ArraySource:
    """The demo images: 8,000 ``train`` and 2,000 ``test``, 32 x 32, ten classes in turn (example i is of class i % 10).

    Raises:
        DataError: no such split, or the files are not there.
    """
    split = resolve_split(split, ("train", "test"), "demo")
    try:
        sheets = [decode((DEMO_FOLDER / split / f"{name}.jpg").read_bytes()) for name in DEMO_CLASSES]
    except (OSError, UndecodableImage) as error:
        raise DataError(
            f"The demo images are not in this installation ({error}): reinstall ssljax, or choose another data source."
        ) from error
    tiles = np.stack([_tiles(sheet) for sheet in sheets], axis=1)
    images = tiles.reshape(-1, DEMO_TILE, DEMO_TILE, 3)
    labels = np.tile(np.arange(len(DEMO_CLASSES), dtype=np.int32), len(tiles))
    return ArraySource(f"demo ({split})", images, labels, DEMO_CLASSES)


def _tiles(sheet: np.ndarray) -> np.ndarray:
    """Cuts a contact sheet (rows * 32, 40 * 32, 3) into its images (rows * 40, 32, 32, 3), row by row."""
    grid = sheet.reshape(-1, DEMO_TILE, DEMO_COLUMNS, DEMO_TILE, 3)
    return grid.transpose(0, 2, 1, 3, 4).reshape(-1, DEMO_TILE, DEMO_TILE, 3)


class _Keys(NamedTuple):
    """Under which keys of an archive the images and, if any, the labels and masks of a split are."""

    images: str
    labels: str | None
    masks: str | None


def open_npz(path: str, split: str) -> ArraySource:
    """The arrays of one split of an ``.npz`` file.

    For split S the images are under ``S_image``, ``S_images`` or ``x_S``, and the labels, if any, under ``S_label``,
    ``S_labels`` or ``y_S``. A file with only ``image`` or ``images`` (and ``label`` or ``labels``) is split by a hash
    of the index, one example in ten to ``test``. What is at each pixel may lie under ``S_mask`` or ``S_masks`` (or
    ``mask`` or ``masks``): (n, h, w), whole numbers, 0 for the background and 255 for what shall not count.

    Images are (n, h, w), (n, h, w, 1), (n, h, w, 3) or (n, h, w, 4), in uint8, in uint16, or in floats in [0, 1].
    Labels are (n,) or (n, 1): whole numbers, or strings, of which the k-th in sorted order over all splits is label k.

    Raises:
        DataError: no such file, it is not such an archive or holds pickles, it has no such split, or an array is of
            another shape or type.
    """
    name = f"npz:{path}"
    with _open_archive(Path(path).expanduser()) as archive:
        splits = _named_splits(archive.files)
        whole = _find(archive.files, ("image", "images"), ("label", "labels"), ("mask", "masks"))
        if splits:
            keys = splits[resolve_split(split, splits, name)]
        elif whole:
            keys, splits = whole, {"all": whole}
        else:
            raise DataError(
                f"{name} has no images under a key that is known: it has {', '.join(archive.files) or 'no arrays'}, "
                "and needs train_image (with train_label), x_train (with y_train) or image (with label)."
            )
        images = _read(archive, keys.images, name)
        labels = None if keys.labels is None else _flat_labels(_read(archive, keys.labels, name), len(images), name)
        masks = None if keys.masks is None else _flat_masks(_read(archive, keys.masks, name), images.shape, name)
        class_names = None
        if labels is not None and labels.dtype.kind in "US":
            every_label = [_read(archive, each.labels, name).ravel() for each in splits.values() if each.labels]
            class_names, labels = _numbered(labels, np.concatenate(every_label))

    if keys is whole:
        positions = hashed_splits([str(index) for index in range(len(images))])
        chosen = positions[resolve_split(split, positions, name)]
        images = images[chosen]
        labels, masks = (None if each is None else each[chosen] for each in (labels, masks))
    return ArraySource(f"{name} ({split})", _as_rgb(images, name), labels, class_names, masks)


def _open_archive(path: Path) -> np.lib.npyio.NpzFile:
    if not path.is_file():
        raise DataError(f"There is no file {str(path)!r}: check the path after 'npz:'.")
    try:
        archive = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        said = "" if "pickle" in str(error) else f" ({error})"  # NumPy proposes what is not safe
        raise DataError(f"{str(path)!r} is not an .npz archive{said}: write it with numpy.savez.") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError(f"{str(path)!r} is a single array, not an .npz archive: write it with numpy.savez(image=...).")
    return archive


def _read(archive: np.lib.npyio.NpzFile, key: str, name: str) -> np.ndarray:
    try:
        return archive[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"The array {key!r} of {name} can't be read ({error}): pickled objects are never loaded, so store a plain "
            "array of numbers or strings, all images of one size."
        ) from error


def _named_splits(files: Collection[str]) -> dict[str, _Keys]:
    found = {}
    for split in ("train", *EVALUATION_SPLITS):
        images = (f"{split}_image", f"{split}_images", f"x_{split}")
        labels = (f"{split}_label", f"{split}_labels", f"y_{split}")
        if keys := _find(files, images, labels, (f"{split}_mask", f"{split}_masks")):
            found[split] = keys
    return found


def _find(files: Collection[str], images: Sequence[str], labels: Sequence[str], masks: Sequence[str]) -> _Keys | None:
    image, label, mask = (next((key for key in names if key in files), None) for names in (images, labels, masks))
    return None if image is None else _Keys(image, label, mask)


def _flat_labels(labels: np.ndarray, n: int, name: str) -> np.ndarray:
    """The labels (n,) or (n, 1) as (n,): int32, or still strings."""
    if labels.shape not in ((n,), (n, 1)):
        raise DataError(f"{name} has {n} images but labels of shape {labels.shape}: give one label for each, (n,).")
    if labels.dtype.kind not in "iubUS":
        raise DataError(f"The labels of {name} are {labels.dtype}: give whole numbers or strings.")
    labels = labels.reshape(n)
    return labels if labels.dtype.kind in "US" else labels.astype(np.int32)


def _flat_masks(masks: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """The masks (n, h, w) of images of that shape."""
    sides = shape[:3]
    whole = masks.dtype.kind in "iub"
    if (
        masks.shape not in (sides, (*sides, 1))
        or not whole
        or (masks.size and not 0 <= masks.min() <= masks.max() < 256)
    ):
        raise DataError(
            f"{name} has images of shape {shape} but masks of shape {masks.shape} and type {masks.dtype}: give whole "
            f"numbers of at most 255, {sides}."
        )
    return masks.reshape(sides).astype(np.uint8)


def _numbered(labels: np.ndarray, every_label: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """The sorted class names, and for each string of ``labels`` (n,) its place among them, int32 (n,)."""
    names = np.unique(every_label)
    text = names.astype(str) if names.dtype.kind == "U" else np.char.decode(names, "utf-8")
    return tuple(map(str, text)), np.searchsorted(names, labels.astype(names.dtype)).astype(np.int32)


def _as_rgb(images: np.ndarray, name: str) -> np.ndarray:
    """The images of an archive as (n, h, w, 3) uint8, or a DataError that says which shapes and types are known."""
    images = _with_channels(images, name)
    if images.dtype.kind == "f":
        # Written so that a NaN fails it too.
        if not (images.min() >= 0 and images.max() <= 1):
            raise DataError(
                f"The images of {name} are {images.dtype} from {images.min():g} to {images.max():g}: scale floats to "
                "[0, 1], or store uint8."
            )
        images = grey_from_float(images)
    elif images.dtype == np.uint16:
        images = grey_from_uint16(images)
    elif images.dtype != np.uint8:
        raise DataError(f"The images of {name} are {images.dtype}: store uint8, uint16, or floats in [0, 1].")
    if images.shape[-1] == 4:
        return composite_on_white(images)
    # A view: grey images are not copied three times.
    return np.broadcast_to(images, (*images.shape[:3], 3))


def _with_channels(images: np.ndarray, name: str) -> np.ndarray:
    """(n, h, w) or (n, h, w, c) as (n, h, w, c), c in 1, 3, 4."""
    channel_counts = (1, 3, 4)
    if images.ndim == 4 and images.shape[-1] not in channel_counts and images.shape[1] in channel_counts:
        raise DataError(
            f"The images of {name} are {images.shape}, channels first: transpose them to (n, h, w, channels) with "
            "images.transpose(0, 2, 3, 1)."
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in channel_counts or images.size == 0:
        raise DataError(f"The images of {name} are {images.shape}: give (n, h, w) or (n, h, w, 1, 3 or 4), not empty.")
    return images
