"""Images with captions.

    folder:PATH      image files, and among them a table of their captions
    demo             emoji with their names, which ship with ssljax

The table is ``captions.csv``, ``captions.jsonl``, ``metadata.csv`` or ``metadata.jsonl`` in PATH itself. It says for
each row the image (``file_name``, ``image``, ``file`` or ``path``, relative to PATH) and what it shows (``caption``,
``captions`` or ``text``; in JSON a text or a list of texts), and perhaps the image's class (``label`` or ``class``) and
``split``. An image may have several captions, in several rows or in a list; training sees one of them, drawn anew each
time, and evaluation all. Without a column ``split``, splits are those of a folder of images (`ssljax.data.folder`).

Images without a caption, and rows without an image, without a text or with more fields than the first line, as a comma
that is not in quotes makes them, are left out, counted and named.
"""

import csv
import gzip
import io
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ssljax.data.arrays import DEMO_FOLDER, ArraySource
from ssljax.data.folder import EXTENSIONS, FolderSource, folders_of, list_files, split_files
from ssljax.data.images import UndecodableImage, decode
from ssljax.data.sources import (
    DataError,
    Example,
    Source,
    note_left_out,
    require_closed_quotes,
    resolve_split,
    split_spec,
)
from ssljax.data.tokens import CLS, PAD, SEP, Tokenizer
from ssljax.wording import counted

logger = logging.getLogger(__name__)

FORMS = {"demo": "demo", "folder": "folder:PATH"}
TABLES = ("captions.csv", "captions.jsonl", "metadata.csv", "metadata.jsonl")
COLUMNS = {
    "image": ("file_name", "image", "file", "path"),
    "caption": ("caption", "captions", "text"),
    "label": ("label", "class"),
    "split": ("split",),
}
MOST = 16
"""Captions of an image; what is beyond is not used."""
DEMO_SIDE = 32


@dataclass
class Captioned:
    """What a table says of one image."""

    captions: list[str] = field(default_factory=list)
    label: str = ""
    split: str = ""


class CaptionSource(Source):
    """Images of a source, with captions: `image` (and `label`), and `captions`, ids of tokens (captions, length).

    A caption is [CLS], its tokens and [SEP], cut to `length` so that it ends with [SEP], and then padding. An image
    with fewer captions than another has rows of padding alone. A training example has one row, drawn anew each time.
    """

    def __init__(
        self,
        name: str,
        images: Source,
        captions: Sequence[Sequence[str]],
        labels: np.ndarray | None,
        classes: tuple[str, ...] | None,
        *,
        most: int,
        tokenizer: Tokenizer,
        length: int,
    ):
        """most: rows of `captions`; no image has more."""
        shapes = None if images.shapes is None else images.shapes | caption_shapes(most, length)
        super().__init__(name, has_labels=labels is not None, class_names=classes, shapes=shapes)
        self.in_memory, self.things, self.skipped = images.in_memory, images.things, images.skipped
        self.drawn = caption_shapes(1, length)
        self.captions, self.most, self.length, self._tokenizer = captions, most, length, tokenizer
        self._images, self._labels = images, labels

    def labels(self) -> np.ndarray:
        return super().labels() if self._labels is None else self._labels

    def draw(self, rng: np.random.Generator, example: Example) -> Example:
        own = np.flatnonzero(example["captions"][:, 0] != PAD)
        return {"captions": example["captions"][[rng.choice(own)]]}

    def __len__(self) -> int:
        return len(self.captions)

    def _where(self, index: int) -> str:
        return self._images._where(index)

    def text(self, index: int) -> str:
        return "\n".join(self.captions[index])

    def _load(self, index: int) -> Example:
        example: Example = {"image": self._images._load(index)["image"]}
        example["captions"] = encode(self.captions[index], self._tokenizer, self.most, self.length)
        if self._labels is not None:
            example["label"] = self._labels[index]
        return example


def caption_shapes(captions: int, length: int) -> dict[str, tuple[tuple[int, ...], type]]:
    return {"captions": ((captions, length), np.int32)}


def encode(texts: Sequence[str], tokenizer: Tokenizer, rows: int, length: int) -> np.ndarray:
    """Ids (rows, length), int32; rows beyond the texts are padding."""
    ids = np.full((rows, length), PAD, np.int32)
    for row, text in zip(ids, texts, strict=False):
        tokens = tokenizer.encode(text)[: length - 2]
        row[: len(tokens) + 2] = [CLS, *tokens, SEP]
    return ids


def open_captions(spec: str, split: str, *, tokenizer: Tokenizer, length: int) -> CaptionSource:
    """A split, every image of which has a caption.

    Raises DataError, which says what to change, for a folder, table, column or split that is not there, a table that
    cannot be read, and if no image has a caption; ValueError for a length below 3.
    """
    if length < 3:
        raise ValueError(f"--config.data.length={length} must be at least 3: a caption's begin, its end, and a token.")
    kind, where = split_spec(spec, FORMS)
    table, files, place, left_out = _read(kind, where)
    name = f"{spec} ({split})"
    splits = _splits(table, files, spec)
    chosen = splits[resolve_split(split, splits, spec)]
    images: Source = FolderSource(name, Path(where).expanduser(), chosen, None, ())
    if kind == "demo":
        images = _demo_images(name, [place[file] for file in chosen])
    labels, classes = _labels(table, files, chosen, name)
    source = CaptionSource(
        name,
        images,
        [table[file].captions for file in chosen],
        labels,
        classes,
        most=max(len(table[file].captions) for file in files),
        tokenizer=tokenizer,
        length=length,
    )
    source.left_out = left_out
    return source


def all_captions(spec: str, split: str) -> list[str]:
    """The captions of a split, for a tokeniser to learn from. Raises as `open_captions`."""
    kind, where = split_spec(spec, FORMS)
    table, files, *_ = _read(kind, where)
    splits = _splits(table, files, spec)
    return [text for file in splits[resolve_split(split, splits, spec)] for text in table[file].captions]


# Tables ---------------------------------------------------------------------------------------------------------------


def _read(kind: str, where: str) -> tuple[dict[str, Captioned], list[str], dict[str, int], tuple[str, ...]]:
    """What the table says of each image, the images that are there and have a caption, the place of each image in the
    table, and what is left out, in sentences."""
    if kind == "demo":
        name, data = "captions.csv.gz", _demo_bytes("captions.csv.gz")
        table, left_out = _table(name, gzip.decompress(data))
        return table, list(table), {file: i for i, file in enumerate(table)}, left_out
    root = Path(where).expanduser()
    if not root.is_dir():
        raise DataError(f"There is no folder {str(root)!r}: check the path after 'folder:'.")
    found = [name for name in TABLES if (root / name).is_file()]
    if len(found) != 1:
        has = f"has {' and '.join(found)}, of which one must go" if found else "has no table of captions"
        raise DataError(f"The folder {str(root)!r} {has}: it needs one of {', '.join(TABLES)}.")
    table, left_out = _table(str(root / found[0]), (root / found[0]).read_bytes())
    there = list_files(root, EXTENSIONS)
    by_name = {"/".join(folders_of(file)): file for file in there}
    table = {by_name.get(file, file): of for file, of in table.items()}
    files = [file for file in there if file in table]
    left_out += _left_out(str(root), "images", "without a caption", [file for file in there if file not in table])
    left_out += _left_out(
        str(root), "images", "that the table names and the folder has not", sorted(set(table) - set(there))
    )
    if not files:
        first = next(iter(table), "")
        raise DataError(
            f"No image of {str(root)!r} has a caption: {found[0]} is of {len(table)} images, the first {first!r}; give "
            f"their paths relative to the folder, which holds {len(there)} images."
        )
    return table, files, {file: i for i, file in enumerate(files)}, left_out


def _table(name: str, data: bytes) -> tuple[dict[str, Captioned], tuple[str, ...]]:
    """Of each image, by its path in one spelling, what the table says; and what is left out, in sentences: rows that
    lack an image or a text, or have too many fields."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 ({error}): save it so.") from error
    rows = _csv_rows(name, text) if name.endswith((".csv", ".csv.gz")) else _json_rows(name, text)
    table: dict[str, Captioned] = {}
    columns: dict[str, None] = {}  # of all rows, in order
    empty, long = [], []
    for number, row in rows:
        if any(row.pop(None, ())):
            long.append(f"row {number}")
            continue
        columns |= dict.fromkeys(filter(None, row))
        said = {what: next((row[key] for key in keys if key in row), None) for what, keys in COLUMNS.items()}
        texts = said["caption"] if isinstance(said["caption"], list) else [said["caption"]]
        texts = [text.strip() for text in texts if isinstance(text, str) and text.strip()]
        if not texts or not isinstance(said["image"], str) or not said["image"].strip():
            empty.append(f"row {number}")
            continue
        file = "/".join(folders_of(said["image"].strip().replace("\\", "/").removeprefix("./")))
        of = table.setdefault(file, Captioned())
        of.captions = [*of.captions, *texts][:MOST]
        for what in ("label", "split"):
            value = "" if said[what] is None else str(said[what]).strip()
            if value and getattr(of, what) not in ("", value):
                raise DataError(f"{name}, row {number}: {file!r} has two {what}s, {getattr(of, what)!r} and {value!r}.")
            setattr(of, what, value or getattr(of, what))
    for what in ("image", "caption"):
        if columns and not columns.keys() & set(COLUMNS[what]):
            raise DataError(
                f"{name} has columns {', '.join(columns)}, and none of {', '.join(COLUMNS[what])}: "
                f"name the one that says the {what}."
            )
    left_out = _left_out(name, "rows", "without image or text", empty)
    left_out += _left_out(
        name, "rows", "with more fields than the first line (put captions with commas in quotes)", long
    )
    if not table:
        raise DataError(f"{name} has no captions: give it a row for each, with columns file_name and caption.")
    return table, left_out


def _csv_rows(name: str, text: str) -> Iterator[tuple[int, dict]]:
    require_closed_quotes(text, name)
    # Numbered as the lines of a table whose fields have no line breaks: the header is the first.
    number = 1
    try:
        for number, row in enumerate(csv.DictReader(io.StringIO(text, newline="")), start=2):
            yield number, row
    except csv.Error as error:
        raise DataError(f"{name}, row {number + 1}, cannot be read ({error}): shorten it.") from error


def _json_rows(name: str, text: str) -> Iterator[tuple[int, dict]]:
    # Not splitlines(), which would also part a caption at marks as U+2028.
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{name}, line {number}, is no JSON ({error}): write an object on each line.") from error
        if not isinstance(row, dict):
            raise DataError(f"{name}, line {number}, is no object: write one on each line.")
        yield number, row


def _left_out(name: str, things: str, what: str, which: Sequence[str]) -> tuple[str, ...]:
    told = f"left out {counted(len(which), things)} {what} ({', '.join(which[:3])})"
    return (note_left_out(name, told),) if which else ()


def _splits(table: dict[str, Captioned], files: list[str], spec: str) -> dict[str, list[str]]:
    said = {file: table[file].split for file in files}
    if not any(said.values()):
        return split_files(files)[0]
    if without := [file for file in files if not said[file]]:
        raise DataError(
            f"{len(without)} images of {spec}, as {without[0]!r}, have no split, and others have: name all."
        )
    return {split: [file for file in files if said[file] == split] for split in _distinct(said.values())}


def _labels(
    table: dict[str, Captioned], files: list[str], chosen: list[str], name: str
) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """One int32 label for each image, and the names of the classes; None for both if there are fewer than two, or an
    image has none."""
    classes = _distinct(table[file].label for file in files if table[file].label)
    without = [file for file in chosen if not table[file].label]
    if len(classes) < 2 or without:
        if classes and without:
            logger.warning("%s: no labels, since %d images, as %s, have none", name, len(without), without[0])
        return None, None
    return np.array([classes.index(table[file].label) for file in chosen], np.int32), classes


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


# The demo -------------------------------------------------------------------------------------------------------------


def _demo_bytes(file: str) -> bytes:
    try:
        return (DEMO_FOLDER / "image_text" / file).read_bytes()
    except OSError as error:
        raise DataError(
            f"The demo captions are not in this installation ({error}): reinstall ssljax, or choose other data."
        ) from error


def _demo_images(name: str, places: list[int]) -> ArraySource:
    """Tiles of the contact sheet, row by row."""
    try:
        sheet = decode(_demo_bytes("emoji.jpg"))
    except UndecodableImage as error:
        raise DataError(f"The demo images of this installation are damaged ({error}): reinstall ssljax.") from error
    height, width = (size // DEMO_SIDE for size in sheet.shape[:2])
    tiles = sheet.reshape(height, DEMO_SIDE, width, DEMO_SIDE, 3).swapaxes(1, 2)
    return ArraySource(name, tiles.reshape(-1, DEMO_SIDE, DEMO_SIDE, 3)[places], None, None)
