"""A pretrained encoder out of a file."""

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.config import base_config
from ssljax.modalities.images import Images
from ssljax.modalities.speech import Speech
from ssljax.modalities.text import Text
from ssljax.typing import Array, Batch, PyTree
from ssljax.views.images import center_view
from ssljax.weights.architecture import ImageInputs, SpeechInputs
from ssljax.weights.features import features
from ssljax.weights.files import Weights, load


class PretrainedEncoder:
    """Examples in, features out: float32 (n, dim).

    encoder, variables: the Flax module, and its `{"params": …}`, to be called in any other way:
    `encoder.encoder.apply(encoder.variables, images, method="tokens")`. inputs: how examples are prepared for it.
    """

    def __init__(self, weights: Weights):
        self.encoder: Any = weights.encoder
        self.variables, self.inputs = weights.variables, weights.inputs
        self._features = partial(jax.jit(self._compute), self.variables)

    @classmethod
    def of(cls, path: Path, architecture: str | None = None) -> "PretrainedEncoder":
        """See `ssljax.weights.files.load`."""
        return cls(load(path, architecture))

    def __repr__(self) -> str:
        count = sum(x.size for x in jax.tree.leaves(self.variables))
        return f"{type(self).__name__}({type(self.encoder).__name__} of {count / 1e6:.2f} M numbers, {self.inputs})"

    def __call__(self, inputs: Any) -> np.ndarray:
        """Of images (n, height, width, 3), uint8 or floats in [0, 1]; clips (samples,), in a list, at `inputs.rate`
        samples a second; texts, where their tokeniser lies beside the weights, or else their token ids, in a list.

        All go through at once. Raises ValueError for other shapes, types and ranges.
        """
        return np.asarray(self._features(self._as_batch(inputs)))

    def _compute(self, variables: PyTree, batch: Batch) -> Array:
        seen = self.inputs
        if isinstance(seen, ImageInputs):
            batch = {"images": center_view(batch, seen.size, seen.crop, seen.mean, seen.std)}
        return features(self.encoder, seen, variables, batch)

    @cached_property
    def _as_batch(self) -> Callable[[Any], Batch]:
        seen = self.inputs
        if isinstance(seen, ImageInputs):
            return Images(base_config("simclr")).as_batch
        if isinstance(seen, SpeechInputs):
            config = base_config("wav2vec2")
            config.data.update(rate=seen.rate, normalise=seen.normalise)
            return Speech(config).as_batch
        if seen.data:
            config = base_config("bert")
            config.data.update(seen.data)
            return Text(config).as_batch
        return tokenized(seen.file) if seen.file else padded


def padded(ids: Any) -> Batch:
    """Token ids of texts of different lengths, (n, tokens) with zeros after them. Raises ValueError for what is not
    whole numbers, and for a text of none."""
    rows = [np.asarray(row) for row in ids]
    if not rows or not all(row.ndim == 1 and row.size and np.issubdtype(row.dtype, np.integer) for row in rows):
        raise ValueError("texts must be a list of lists of token ids: the files of this encoder hold no tokeniser.")
    most = max(map(len, rows))
    tokens = np.stack([np.pad(row, (0, most - len(row))) for row in rows]).astype(np.int32)
    valid = np.arange(most) < np.array([len(row) for row in rows])[:, None]
    return {"tokens": jnp.asarray(tokens), "valid": jnp.asarray(valid)}


def tokenized(file: str) -> Callable[[Any], Batch]:
    """Texts to `padded` ids, by a tokenizer.json. Raises ValueError where the library is missing."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ValueError(f"{file} needs `pip install tokenizers`.") from None
    tokenizer = Tokenizer.from_file(file)
    tokenizer.no_padding()
    return lambda texts: padded([encoded.ids for encoded in tokenizer.encode_batch(list(texts))])
