"""Text: files of it, cut into pieces of one length, or tables of which one column is text and another a label.

    txt:PATH       a text file (also .gz), of which the last tenth is the test split; or a folder of such files
    csv:PATH       a CSV file (also .gz): each row one text
    tsv:PATH       the same with tabs between fields, which are never quoted
    demo           Tiny Shakespeare, which ships with ssljax
    demo_speeches  its speeches, and the play that each is from

PATH may also be a folder with ``train.txt`` and ``test.txt`` (or ``.csv``, ``.tsv``, each maybe ``.gz``); of another
folder of text files one in ten is the test split, by a hash of its name, and so is one row in ten of a single table.
The first line of a table names its columns; it is a row like others if one of these has its last field, a label.
"""

import abc
import csv
import dataclasses
import functools
import gzip
import io
import logging
import re
import zlib
from pathlib import Path

import numpy as np

from ssljax.data.sources import (
    EVALUATION_SPLITS,
    NO_LABEL,
    DataError,
    Example,
    Shapes,
    Source,
    hashed_splits,
    note_left_out,
    require_closed_quotes,
    resolve_split,
    split_spec,
)
from ssljax.data.tokens import CLS, KINDS, PAD, SEP, Tokenizer, learn, recalled
from ssljax.wording import counted

logger = logging.getLogger(__name__)

FORMS = {
    "demo": "demo",
    "demo_speeches": "demo_speeches",
    "txt": "txt:PATH",
    "csv": "csv:PATH",
    "tsv": "tsv:PATH",
}
FOLDER = Path(__file__).parent / "demo" / "text"
DEMOS = {"demo": ("txt", FOLDER / "tinyshakespeare.txt.gz"), "demo_speeches": ("csv", FOLDER / "speeches")}
MOST_CLASSES = 1000
WORDS = 4096
"""Into so many bins go the words of a text, by a hash; bin 0 is for none."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """How texts become examples of `length` tokens.

    marks: whether each begins with [CLS] and ends with [SEP]. stride: a piece of running text begins so many tokens
    after the last one; 0: all but one of its length, so that each token is once to be told from what is before it.
    tokenizer, vocabulary: what is learnt from the training text (`ssljax.data.tokens.learn`); learnt: what was. text,
    label: of a table, the names of columns, or their places where the file has no line of names; "": the first, the
    last; label "none": there is none.

    Raises ValueError for numbers that cannot be.
    """

    length: int = 128
    marks: bool = False
    stride: int = 0
    tokenizer: str = "bytes"
    vocabulary: int = 8192
    learnt: str = ""
    text: str = ""
    label: str = ""

    def __post_init__(self):
        if self.tokenizer not in KINDS:
            raise ValueError(f"--config.data.tokenizer={self.tokenizer} is unknown; use {', '.join(KINDS)}.")
        if self.room < 2:
            raise ValueError(f"--config.data.length={self.length} must leave room for two tokens of text.")
        if self.stride < 0:
            raise ValueError(f"--config.data.stride={self.stride} must be a number of tokens, or 0.")

    @property
    def room(self) -> int:
        """Tokens of text in an example."""
        return self.length - 2 * self.marks

    def arrays(self, ids: np.ndarray) -> Example:
        """At most `room` ids as `tokens` (length,) int32, padded, and which of them are `valid` (length,)."""
        ids = np.concatenate([[CLS], ids, [SEP]]) if self.marks else ids
        tokens = np.full(self.length, PAD, np.int32)
        tokens[: len(ids)] = ids
        return {"tokens": tokens, "valid": np.arange(self.length) < len(ids)}


class TextSource(Source):
    """Examples of `tokens` and `valid`, and for evaluation `words` (length,), the bins that its words fall in, and
    `bytes`, how many of them all but the first token stand for."""

    in_memory, things = True, "texts"

    def __init__(self, name: str, reading: Reading, tokenizer: Tokenizer, classes: tuple[str, ...] | None = None):
        shapes: Shapes = {"tokens": ((reading.length,), np.int32), "valid": ((reading.length,), np.bool_)}
        super().__init__(name, has_labels=classes is not None, class_names=classes, shapes=shapes)
        self.reading, self.tokenizer = reading, tokenizer
        self._lengths = tokenizer.lengths

    @abc.abstractmethod
    def stream(self) -> np.ndarray:
        """All tokens of its text, (tokens,)."""

    def gap(self) -> Example:
        return super().gap() | self._for_evaluation(np.empty(0, np.int32))

    def _where(self, index: int) -> str:
        return f"{self.name}[{index}]"

    def text(self, index: int) -> str:
        return self.tokenizer.decode(self._load(index)["tokens"])

    def _example(self, ids: np.ndarray) -> Example:
        return self.reading.arrays(ids) | self._for_evaluation(ids)

    def _for_evaluation(self, ids: np.ndarray) -> Example:
        words = np.zeros(self.reading.length, np.int32)
        found = hashed_words(self.tokenizer.decode(ids))[: len(words)]
        words[: len(found)] = found
        return {"words": words, "bytes": np.float32(self._lengths[ids[1 - self.reading.marks :]].sum())}


class Packed(TextSource):
    """Pieces of running text. All but the last are full."""

    def __init__(self, name: str, ids: np.ndarray, reading: Reading, tokenizer: Tokenizer):
        super().__init__(name, reading, tokenizer)
        self._ids = ids
        self._stride = reading.stride or (reading.room if reading.marks else reading.room - 1)

    def stream(self) -> np.ndarray:
        return self._ids

    def __len__(self) -> int:
        return 1 + max(0, -(-(len(self._ids) - self.reading.room) // self._stride))

    def _load(self, index: int) -> Example:
        start = index * self._stride
        return self._example(self._ids[start : start + self.reading.room])


class Rows(TextSource):
    """The texts of a table, each cut to what there is room for."""

    def __init__(
        self,
        name: str,
        rows: list[np.ndarray],
        labels: np.ndarray | None,
        classes: tuple[str, ...] | None,
        reading: Reading,
        tokenizer: Tokenizer,
    ):
        super().__init__(name, reading, tokenizer, classes)
        self._rows, self._labels = rows, labels

    def stream(self) -> np.ndarray:
        return np.concatenate(self._rows)

    def labels(self) -> np.ndarray:
        return super().labels() if self._labels is None else self._labels

    def __len__(self) -> int:
        return len(self._rows)

    def _load(self, index: int) -> Example:
        example = self._example(self._rows[index][: self.reading.room])
        return example if self._labels is None else example | {"label": self._labels[index]}


def hashed_words(text: str) -> list[int]:
    """The bin of each word, whatever its case: from 1 to WORDS - 1."""
    return [1 + zlib.crc32(word.encode()) % (WORDS - 1) for word in re.findall(r"\w+", text.lower())]


def open_text(spec: str, split: str, reading: Reading, vocabulary_of: str = "") -> TextSource:
    """The split of a source, spelt as the head of this module says.

    vocabulary_of: the source whose training text gives the vocabulary, where it is not this one's.

    Raises DataError, which says what to change, for a kind, file, split or column that is not there, for text that is
    not in UTF-8 (of several files, unless these name splits, those are skipped and counted), and for what is empty.
    """
    texts = _texts(spec, reading)
    found = texts.splits[resolve_split(split, texts.splits, spec)]
    name = f"{spec} ({split})"
    tokenizer = vocabulary(vocabulary_of or spec, reading)
    source: TextSource
    if texts.kind == "txt":
        ends = [np.array([SEP], np.int32)] * (len(found) - 1)
        parts = [tokenizer.encode(text) for text, _ in found]
        ids = np.concatenate([piece for pair in zip(parts, [*ends, parts[0][:0]], strict=True) for piece in pair])
        if len(ids) < 2:
            raise DataError(f"{name} has fewer than two tokens: give more text.")
        if split != "train":
            reading = dataclasses.replace(reading, stride=0)
        source = Packed(name, ids, reading, tokenizer)
    else:
        labels = texts.labels(found, name)
        rows = [tokenizer.encode(text) for text, _ in found]
        if cut := sum(len(row) > reading.room for row in rows):
            logger.warning("%s: %d of %d texts are cut to %d tokens", name, cut, len(rows), reading.room)
        source = Rows(name, rows, labels, texts.classes, reading, tokenizer)
    for path, reason in texts.skipped.items():
        source._note_skipped(path, reason)
    source.left_out = texts.left_out
    return source


def has_labels(spec: str, reading: Reading) -> bool:
    """Raises as `open_text`."""
    return _texts(spec, reading).classes is not None


def vocabulary(spec: str, reading: Reading) -> Tokenizer:
    """That of a config that is settled, or what is learnt from the training text."""
    if reading.learnt or reading.tokenizer == "bytes":
        return recalled(reading.learnt)
    return _learnt(spec, reading, _files(spec))


@dataclasses.dataclass(frozen=True)
class Texts:
    """What files hold: (text, label) of each document or row, by splits; classes of the training rows; files that are
    skipped, with the reason, and what is left out of the others, in sentences."""

    kind: str
    splits: dict[str, list[tuple[str, str]]]
    classes: tuple[str, ...] | None
    skipped: dict[str, str]
    left_out: tuple[str, ...] = ()

    def labels(self, rows: list[tuple[str, str]], name: str) -> np.ndarray | None:
        if self.classes is None:
            return None
        places = {label: place for place, label in enumerate(self.classes)}
        if unknown := sorted({label for _, label in rows if label not in places}):
            raise DataError(f"The labels of {name} hold {unknown[0]!r}, which no training row has: correct the file.")
        return np.array([places.get(label, NO_LABEL) for _, label in rows], np.int32)


def _files(spec: str) -> tuple[tuple[Path, int], ...]:
    """The files of a source, each with when it was changed. Raises DataError if there are none."""
    kind, path = _place(spec)
    if path.is_dir():
        suffixes = (f".{kind}", f".{kind}.gz")
        files = sorted(file for file in path.rglob("*") if file.is_file() and file.name.endswith(suffixes))
        if not files:
            raise DataError(f"The folder {str(path)!r} has no files whose names end in .{kind} or .{kind}.gz.")
    elif path.is_file():
        files = [path]
    else:
        raise DataError(f"There is no file or folder {str(path)!r}: check the path after '{kind}:'.")
    return tuple((file, file.stat().st_mtime_ns) for file in files)


def _place(spec: str) -> tuple[str, Path]:
    if spec in DEMOS:
        return DEMOS[spec]
    kind, where = split_spec(spec, FORMS)
    return kind, Path(where).expanduser()


def _texts(spec: str, reading: Reading) -> Texts:
    return _read(spec, reading.text, reading.label, _files(spec))


@functools.lru_cache(maxsize=8)
def _read(spec: str, text: str, label: str, files: tuple[tuple[Path, int], ...]) -> Texts:
    """All that the files hold, read again if one has changed."""
    kind, path = _place(spec)
    if spec in DEMOS:
        text = label = ""
    wanted = [file for file, _ in files]
    named = {file.name.partition(".")[0]: file for file in wanted if file.parent == path}
    groups = {}
    if "train" in named:
        groups = {split: [named[split]] for split in ("train", *EVALUATION_SPLITS) if split in named}
        wanted = [file for group in groups.values() for file in group]
    skipped: dict[str, str] = {}
    contents = {}
    for file in wanted:
        try:
            contents[file] = _decoded(file)
        except DataError as error:
            if groups or len(wanted) == 1:
                raise DataError(f"{str(file)!r} {error}") from error
            skipped[str(file)] = str(error)
    if not contents:
        first, reason = next(iter(skipped.items()))
        raise DataError(f"None of the {len(files)} files of {spec} can be used: the first, {first!r}, {reason}")
    if not groups and kind == "txt" and len(contents) > 1:
        names = [str(file.relative_to(path)) for file in contents]
        groups = {split: [list(contents)[i] for i in places] for split, places in hashed_splits(names).items()}
    groups = groups or {"": list(contents)}
    if kind == "txt":
        splits = {split: [(contents[file], "") for file in group] for split, group in groups.items()}
        if "" in splits:
            whole = splits.pop("")[0][0]
            splits = {"train": [(whole[: len(whole) * 9 // 10], "")], "test": [(whole[len(whole) * 9 // 10 :], "")]}
        return Texts(kind, splits, None, skipped)
    read = {file: _rows(kind, file, contents[file], text, label) for group in groups.values() for file in group}
    splits = {split: [row for file in group for row in read[file][0]] for split, group in groups.items()}
    left_out = tuple(note for _, notes in read.values() for note in notes)
    if "" in splits:
        rows = splits.pop("")
        places = hashed_splits([str(place) for place in range(len(rows))])
        splits = {split: [rows[place] for place in found] for split, found in places.items()}
    classes = None if label == "none" else tuple(sorted({label for _, label in splits["train"]}))
    if classes is not None and len(classes) > MOST_CLASSES:
        raise DataError(
            f"The labels of {spec} have {len(classes)} values, which are no classes: name their column with "
            "--config.data.label (none: there are no labels), and that of the texts with --config.data.text; either "
            "may be a place, from 0."
        )
    return Texts(kind, splits, classes, skipped, left_out)


def _decoded(path: Path) -> str:
    """The text of a file. Raises DataError, without the file's name, unless it is in UTF-8 and not empty."""
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
        text = raw.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be read ({error}): check that the file is whole.") from error
    except UnicodeDecodeError as error:
        kind = "UTF-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "another encoding, or no text"
        raise DataError(
            f"is not in UTF-8 (byte 0x{raw[error.start]:02x} at place {error.start}; it may be {kind}): "
            "convert it, for instance with iconv."
        ) from None
    if "\0" in text:
        raise DataError("holds zero bytes, which no text does: check what the file is.")
    if not text.strip():
        raise DataError("is empty: give a file with text.")
    return text.replace("\r\n", "\n")


def _rows(kind: str, path: Path, contents: str, text: str, label: str) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """(text, label) of each row, and what is left out, in sentences: rows without text or label, or with another number
    of fields."""
    if kind == "csv":
        if "\t" in contents.lstrip("\n").partition("\n")[0]:
            raise DataError(f"{str(path)!r} has tabs between its fields: write tsv: instead of csv:.")
        require_closed_quotes(contents, repr(str(path)))
    options: dict = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if kind == "tsv" else {}
    try:
        lines = [row for row in csv.reader(io.StringIO(contents, newline=""), **options) if row]
    except csv.Error as error:
        raise DataError(f"{str(path)!r} cannot be read as {kind} ({error}).") from error
    by_place = any(name.isdigit() for name in (text, label))
    if not (text or label) and len(lines[0]) > 1:  # the name of a column of labels is none of these
        by_place = any(row[-1] == lines[0][-1] for row in lines[1:])
    header = [str(place) for place in range(len(lines[0]))] if by_place else lines.pop(0)
    wanted = [text or header[0], *([] if label == "none" else [label or header[-1]])]
    for name in wanted:
        if name not in header:
            raise DataError(f"{str(path)!r} has no column {name!r}: it has {', '.join(header)}.")
    places = [header.index(name) for name in wanted]
    if len(set(places)) < len(places):
        raise DataError(
            f"Text and label of {str(path)!r} would both be column {wanted[0]!r}: name them with --config.data.text "
            "and --config.data.label (none: there are no labels)."
        )
    whole = [row for row in lines if len(row) == len(header) and all(row[place].strip() for place in places)]
    if not whole:
        raise DataError(f"{str(path)!r} has no rows with a text: it needs a line of names, and a line for each text.")
    gone = len(lines) - len(whole)
    told = f"skipped {counted(gone, 'rows')} without text or label, or with another number of fields"
    rows = [(row[places[0]], row[places[1]].strip() if len(places) > 1 else "") for row in whole]
    return rows, (note_left_out(str(path), told),) if gone else ()


@functools.lru_cache(maxsize=4)
def _learnt(spec: str, reading: Reading, files: tuple[tuple[Path, int], ...]) -> Tokenizer:
    """Once for all splits, as it takes a while."""
    texts = _texts(spec, reading).splits["train"]
    lines = (line for text, _ in texts for line in text.splitlines(keepends=True))
    return learn(reading.tokenizer, reading.vocabulary, lines)
