"""Text as ids of tokens: bytes, the words of the training text, or pieces of words that the `tokenizers` library learns
from it.

The first ids of every vocabulary are those of `SPECIAL`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ssljax.data.sources import DataError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL))
SHORT = (" ", "?", "<", ">", "_")
"""How pictures write them."""
KINDS = ("bytes", "bpe", "wordpiece", "words")


class Bytes:
    """The bytes of the text in UTF-8: nothing to learn, and nothing is unknown."""

    size = len(SPECIAL) + 256

    def encode(self, text: str) -> np.ndarray:
        """Ids (tokens,), int32."""
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32) + len(SPECIAL)

    def decode(self, ids: np.ndarray) -> str:
        ids = np.asarray(ids)
        return (ids[ids >= len(SPECIAL)] - len(SPECIAL)).astype(np.uint8).tobytes().decode(errors="replace")

    @property
    def lengths(self) -> np.ndarray:
        """Bytes of text that each token stands for, (size,)."""
        return np.array([0] * len(SPECIAL) + [1] * 256, np.float32)

    @property
    def names(self) -> tuple[str, ...]:
        """What pictures write for each token; those outside of ASCII are parts of letters."""
        letters = (chr(i) if 32 <= i < 127 else "\N{PILCROW SIGN}" if i == 10 else "\N{MIDDLE DOT}" for i in range(256))
        return (*SHORT, *letters)

    def to_json(self) -> str:
        return ""


class Words:
    """Words in lower case, of letters and digits. Those that are not `known` are [UNK], and what stands between words
    is lost."""

    def __init__(self, known: Sequence[str]):
        self._known, self.size = known, len(SPECIAL) + len(known)
        self._places = {word: i for i, word in enumerate(known, start=len(SPECIAL))}

    def encode(self, text: str) -> np.ndarray:
        return np.array([self._places.get(word, UNK) for word in words(text)], np.int32)

    def decode(self, ids: np.ndarray) -> str:
        return " ".join(self.names[i] for i in ids if i == UNK or i >= len(SPECIAL))

    @property
    def lengths(self) -> np.ndarray:
        return np.array([0] * len(SPECIAL) + [len(word.encode()) for word in self._known], np.float32)

    @property
    def names(self) -> tuple[str, ...]:
        return (*SHORT, *self._known)

    def to_json(self) -> str:
        return json.dumps(self._known)


def words(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


class Learnt:
    """A vocabulary of the `tokenizers` library, from its JSON. Raises DataError without the library, or for other
    JSON."""

    def __init__(self, text: str):
        try:
            self._tokenizer = _library().Tokenizer.from_str(text)
        except ValueError as error:
            raise DataError(f"what the run says of its tokeniser cannot be read ({error}): settle it again.") from error
        self._text = text
        self.size = self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> np.ndarray:
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)

    def decode(self, ids: np.ndarray) -> str:
        return self._tokenizer.decode([int(i) for i in ids])

    @property
    def lengths(self) -> np.ndarray:
        texts = (self._tokenizer.decode([i]) for i in range(len(SPECIAL), self.size))
        if json.loads(self._text)["model"]["type"] == "BPE":  # a character of a name is a byte; see ByteLevel
            texts = (self._tokenizer.id_to_token(i) for i in range(len(SPECIAL), self.size))
            return np.array([0] * len(SPECIAL) + [len(text) for text in texts], np.float32)
        return np.array([0] * len(SPECIAL) + [len(text.removeprefix("##").encode()) for text in texts], np.float32)

    @property
    def names(self) -> tuple[str, ...]:
        return (*SHORT, *(self._tokenizer.decode([i]) or " " for i in range(len(SPECIAL), self.size)))

    def to_json(self) -> str:
        return self._text


Tokenizer = Bytes | Words | Learnt


def learn(kind: str, size: int, texts: Iterable[str]) -> Tokenizer:
    """A vocabulary of at most `size` tokens.

    kind: "bytes", which learns nothing; "bpe", pairs of bytes that are often together (GPT-2); "wordpiece", parts of
    words in lower case (BERT); "words", the most frequent ones.

    Raises ValueError for an unknown kind or too small a size, DataError without the library.
    """
    if kind not in KINDS:
        raise ValueError(f"--config.data.tokenizer={kind} is unknown; use {', '.join(KINDS)}.")
    if kind == "bytes":
        return Bytes()
    if size < Bytes.size:
        raise ValueError(f"--config.data.vocabulary={size} must be at least {Bytes.size}: each byte is a token, too.")
    if kind == "words":
        counts = Counter(word for text in texts for word in words(text))
        return Words(sorted(counts, key=lambda word: (-counts[word], word))[: size - len(SPECIAL)])
    library = _library()
    trainer: Any
    if kind == "bpe":
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(SPECIAL),
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    else:
        tokenizer = library.Tokenizer(library.models.WordPiece(unk_token=SPECIAL[UNK]))
        tokenizer.normalizer = library.normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = library.decoders.WordPiece()
        trainer = library.trainers.WordPieceTrainer(vocab_size=size, special_tokens=list(SPECIAL), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return Learnt(tokenizer.to_str())


def recalled(text: str) -> Tokenizer:
    """What `to_json` wrote down: JSON, a list of words or an object of the library's."""
    if text.startswith("["):
        return Words(json.loads(text))
    return Learnt(text) if text else Bytes()


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise DataError(
            "--config.data.tokenizer other than bytes and words needs a package: `pip install tokenizers`, or "
            "ssljax[text]."
        ) from error
    return tokenizers
