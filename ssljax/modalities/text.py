"""Text: pieces of it, or sentences with labels."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageDraw, ImageFont

from ssljax.data.sources import DataError, Shapes, Source, absolute
from ssljax.data.text import FORMS, WORDS, Reading, TextSource, has_labels, open_text, vocabulary
from ssljax.data.tokens import SPECIAL, Bytes, Tokenizer
from ssljax.evals.ngrams import gaps, ngram
from ssljax.modalities.modality import Modality
from ssljax.typing import Array, Batch

BLUE, RED = np.array([0.35, 0.55, 0.9]), np.array([0.95, 0.5, 0.2])
HEIGHT, WIDTH = 11, 6
"""Pixels of a letter."""
LINE = 16
"""Letters of a line in pictures."""
LETTERS = 6
"""Of a token in pictures, at most."""
ORDERS = (1, 2, 3, 4)


class Text(Modality):
    protocols = ("knn", "linear_10", "linear")
    data_fields = {
        "probe": "",  # labelled text that features are judged by where the source has no labels
        **{name: field.default for name, field in Reading.__dataclass_fields__.items()},
    }
    view_fields = {}

    @property
    def reading(self) -> Reading:
        return Reading(**{name: self.data[name] for name in Reading.__dataclass_fields__})

    @property
    def tokenizer(self) -> Tokenizer:
        return vocabulary(self.data.source, self.reading)

    def encoder_fields(self) -> dict[str, Any]:
        """Of data that is not there, the vocabulary is taken to be as large as it may become."""
        if self.data.tokenizer == "bytes":
            return {"vocabulary": Bytes.size}
        return {"vocabulary": self.tokenizer.size if self.data.learnt else self.data.vocabulary}

    def open(self, split: str) -> TextSource:
        return open_text(self.data.source, self.data[f"{split}_split"], self.reading)

    def judged_by(self, split: str) -> Source | None:
        if not self.data.probe:
            return None
        return open_text(self.data.probe, self.data[f"{split}_split"], self.reading, vocabulary_of=self.data.source)

    def on_other_data(self, source: str) -> ConfigDict:
        """What is read in the tokens of the run's own data."""
        config = super().on_other_data(self.data.source)
        config.data.probe = source
        return config

    def objective_floors(self, train: Source, test: Source) -> dict[str, dict[str, float]]:
        """Counts of n tokens in a row, and of those on both sides of a hidden one; see `ssljax.evals.ngrams`."""
        assert isinstance(train, TextSource) and isinstance(test, TextSource)
        known, told = train.stream(), test.stream()
        bits = 1 / np.log(2)
        per_byte = float(bits) * len(told) / max(1.0, float(test.tokenizer.lengths[told].sum()))
        floors = {}
        for order in ORDERS:
            nats, accuracy = ngram(known, told, order)
            found = {
                "next-token nats": nats,
                "next-token bits per byte": nats * per_byte,
                "next-token accuracy": accuracy,
            }
            if order == 1:
                found |= {"hidden-token bits": nats * bits, "hidden-token accuracy": accuracy}
            floors[f"{order}-gram"] = found
        if share := self.config.method.get("mask_share"):
            nats, accuracy = gaps(known, told, share)
            floors["both sides' counts"] = {"hidden-token bits": nats * bits, "hidden-token accuracy": accuracy}
        return floors

    def settle(self) -> None:
        super().settle()
        self.data.probe = "" if has_labels(self.data.source, self.reading) else absolute(self.data.probe)
        self.data.learnt = self.tokenizer.to_json()

    def shapes(self) -> Shapes:
        length = (self.reading.length,)
        return {"tokens": (length, np.int32), "valid": (length, np.bool_)}

    def stand_in(self, wrong: DataError) -> tuple[Shapes, str]:
        if self.data.source.partition(":")[0] not in FORMS:
            raise wrong
        return self.shapes(), f"texts are taken to have {self.reading.length} tokens each"

    def as_batch(self, inputs: Sequence[str]) -> Batch:
        """Of texts, each a string; longer ones are cut."""
        if isinstance(inputs, str) or not len(inputs) or not all(isinstance(text, str) and text for text in inputs):
            raise ValueError("texts must be a list of strings, none of them empty.")
        tokenizer, reading = self.tokenizer, self.reading
        examples = [reading.arrays(tokenizer.encode(text)[: reading.room]) for text in inputs]
        return {name: jnp.asarray(np.stack([x[name] for x in examples])) for name in ("tokens", "valid")}

    def floors(self) -> dict[str, Callable[[Batch], Array]]:
        """How much of a text each word is, whatever its case, and each token; √, as counts are skewed."""

        def words(batch: Batch) -> Array:
            return jnp.sqrt(jax.vmap(lambda bins: jnp.bincount(bins, length=WORDS))(batch["words"]).at[:, 0].set(0))

        def tokens(batch: Batch) -> Array:
            ids = jnp.where(batch["valid"], batch["tokens"], 0)
            counts = jax.vmap(lambda row: jnp.bincount(row, length=self.tokenizer.size))(ids)
            return jnp.sqrt(counts.at[:, : len(SPECIAL)].set(0))

        return {"bag of words": words, f"bag of {'bytes' if self.data.tokenizer == 'bytes' else 'tokens'}": tokens}

    def pictures(self, shown: Mapping[str, Array]) -> np.ndarray:
        """Of `tokens` (examples, columns, tokens) and `shade`, as many numbers: the text, blue where the shade is 1 and
        orange where it is -1."""
        tokens, shade = shown["tokens"], shown["shade"]
        drawn = _written(tokens.reshape(-1, tokens.shape[-1]), shade.reshape(-1, tokens.shape[-1]), self._letters, LINE)
        return np.asarray(drawn).reshape(*tokens.shape[:2], *drawn.shape[1:])

    def thumbnails(self, batch: Batch, side: int) -> Array:
        """How each text begins."""
        letters = self._letters
        line, lines = side // WIDTH, side // HEIGHT
        tokens = batch["tokens"][:, : lines * (line // (letters.shape[2] // WIDTH))]
        drawn = _written(tokens, jnp.zeros(tokens.shape), letters, line)[:, :side, :side]
        space = [(0, 0), (0, side - drawn.shape[1]), (0, side - drawn.shape[2]), (0, 0)]
        return jnp.pad(drawn, space, constant_values=1.0)

    @property
    def _letters(self) -> np.ndarray:
        return _drawn_letters(self.tokenizer.names)


def _written(tokens: Array, shade: Array, letters: np.ndarray, line: int) -> Array:
    """(texts, tokens) -> pictures (texts, height, width, 3) in [0, 1], with as many tokens as fit in `line` letters."""
    count = tokens.shape[1]
    across = max(1, line // (letters.shape[2] // WIDTH))
    space = [(0, 0), (0, -count % across)]
    tokens, shade = jnp.pad(jnp.asarray(tokens), space), jnp.pad(jnp.asarray(shade, jnp.float32), space)
    strength = jnp.clip(jnp.abs(shade), 0, 1)[..., None]
    paper = 1 - strength * (1 - jnp.where(shade[..., None] > 0, jnp.asarray(BLUE), jnp.asarray(RED)))
    ink = jnp.asarray(letters, jnp.float32)[tokens][..., None]
    cells = paper[:, :, None, None] * (1 - ink)
    n, (height, width) = len(tokens), letters.shape[1:]
    cells = cells.reshape(n, -1, across, height, width, 3).transpose(0, 1, 3, 2, 4, 5)
    return cells.reshape(n, -1, across * width, 3)


@functools.lru_cache(maxsize=4)
def _drawn_letters(names: tuple[str, ...]) -> np.ndarray:
    """What is written for each token, its first letters: (tokens, height, width), 1 where there is ink."""
    letters = min(LETTERS, max(len(name) for name in names))
    font = ImageFont.load_default_imagefont()
    drawn = np.zeros((len(names), HEIGHT, letters * WIDTH), np.bool_)
    for token, name in enumerate(names):
        image = Image.new("1", (letters * WIDTH, HEIGHT))
        shown = name[:letters].replace("\n", "\N{PILCROW SIGN}").encode("latin-1", "replace").decode("latin-1")
        ImageDraw.Draw(image).text((0, 0), shown, fill=1, font=font)
        drawn[token] = np.asarray(image)
    return drawn
