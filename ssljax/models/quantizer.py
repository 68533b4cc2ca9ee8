"""Targets of wav2vec 2.0: what a frame sounds like, said with few codes."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax.models.attention import dropout
from ssljax.models.vit import TORCH_LINEAR
from ssljax.numerics import product
from ssljax.typing import Array

NOISE, DROPOUT = 1 << 20, (1 << 20) + 1
"""Salts that no layer of an encoder has, so that the keys may be the encoder's."""


def gumbel_softmax(logits: Array, noise: Array, temperature: Array | float) -> Array:
    """One-hot at the largest of logits + noise, with the gradient of softmax((logits + noise) / temperature).

    All along the last axis, in float32. It is exactly one-hot, so that equal codes give equal vectors.

    Jang et al., "Categorical Reparameterization with Gumbel-Softmax", 2017.
    """
    soft = nn.softmax((logits + noise) / temperature)
    hard = jax.nn.one_hot(jnp.argmax(soft, axis=-1), soft.shape[-1])
    return hard + (soft - jax.lax.stop_gradient(soft))


class Quantized(NamedTuple):
    vectors: Array
    """(batch, frames, dim): an entry of each group's codebook, concatenated."""
    codes: Array
    """(batch, frames, groups): which entries these are."""
    probabilities: Array
    """(batch, frames, groups, entries): softmax of the logits, without noise: what `ssljax.losses.diversity` takes."""


class GumbelQuantizer(nn.Module):
    """Features (batch, frames, channels) -> `Quantized`, in float32: `groups` codes, each one of `entries`."""

    groups: int = 2
    entries: int = 320
    dim: int = 256

    @nn.compact
    def __call__(self, x: Array, temperature: Array | float = 1.0, keys: Array | None = None) -> Quantized:
        """keys (batch,): draw codes by Gumbel-softmax (training); without, codes are the most probable ones.

        wav2vec 2.0's temperature is max(2 · 0.999995^step, 0.5), 0.1 at the least in Large. Raises ValueError if the
        groups do not divide dim.
        """
        if self.dim % self.groups:
            raise ValueError(f"dim {self.dim} of the codebook must be divisible by groups {self.groups}.")
        shape = *x.shape[:-1], self.groups, self.entries
        dense = nn.Dense(self.groups * self.entries, kernel_init=nn.initializers.normal(1.0), name="logits")
        logits = dense(x.astype(jnp.float32)).reshape(shape)
        codebook = self.param(
            "codebook", nn.initializers.uniform(1.0), (self.groups, self.entries, self.dim // self.groups)
        )
        if keys is None:
            chosen = jax.nn.one_hot(jnp.argmax(logits, axis=-1), self.entries)
        else:
            noise = jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, NOISE), shape[1:]))(keys)
            chosen = gumbel_softmax(logits, noise, temperature)
        vectors = jnp.swapaxes(product(jnp.swapaxes(chosen, 1, 2), codebook), 1, 2)
        return Quantized(
            vectors.reshape(*x.shape[:-1], self.dim),
            jnp.argmax(chosen, axis=-1),
            nn.softmax(logits),
        )


class Compared(NamedTuple):
    """What `ssljax.losses.wav2vec2` and `ssljax.losses.diversity` take."""

    predictions: Array
    """(batch, K, dim)"""
    targets: Array
    """(batch, K, dim)"""
    codes: Array
    probabilities: Array


class Wav2Vec2Head(nn.Module):
    """The Transformer's output and the convolutions' features, at K masked frames of each example -> `Compared`.

    dim: of the space they are compared in (768 in Large). codebook_dim: of the quantised vectors (768 in Large).
    dropout: of the features that are quantised (0 in Large).
    """

    dim: int = 256
    groups: int = 2
    entries: int = 320
    codebook_dim: int = 256
    dropout: float = 0.1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, context: Array, local: Array, temperature: Array | float = 1.0, keys: Array | None = None
    ) -> Compared:
        """context (batch, K, width) and local (batch, K, channels): see `ssljax.models.wav2vec.Encoded`; keys (batch,)
        in training, for dropout and codes."""
        quantizer = GumbelQuantizer(self.groups, self.entries, self.codebook_dim, name="quantizer")
        vectors, codes, probabilities = quantizer(dropout(local, self.dropout, keys, DROPOUT), temperature, keys)

        def project(name: str, x: Array) -> Array:
            dense = nn.Dense(self.dim, kernel_init=TORCH_LINEAR, dtype=self.dtype, name=name)
            return dense(x).astype(jnp.float32)

        return Compared(project("context", context), project("targets", vectors), codes, probabilities)
