"""Losses of pairs of images and texts, or of any two modalities, whose similarities have a learnt scale, in float32."""

import jax
import jax.numpy as jnp

from ssljax import collectives
from ssljax.losses.blockwise import as_tiles, log_sum_exp, tile_side
from ssljax.losses.checks import check_pair, check_positive
from ssljax.numerics import normalize, product
from ssljax.typing import Array


def clip(
    image: Array, text: Array, logit_scale: Array | float, *, axis: str | None = None, block: int | None = None
) -> Array:
    """CLIP's loss: tell an image's own text from all others, and a text's own image.

        L = ½ mean_i -log( exp(t z_ii) / Σ_j exp(t z_ij) ) + ½ mean_j -log( exp(t z_jj) / Σ_i exp(t z_ij) )

    with z_ij the cosine of image i and text j, over the global batch.

    Args:
      image, text: embeddings (batch, dim); row i of both is one pair. They are normalised here. Both get gradients,
        also from the shards where they are others' negatives.
      logit_scale: t > 0, a scalar. What CLIP learns is log t, from log(1 / 0.07) on: give `exp` of the parameter. To
        keep t ≤ 100, clamp the parameter after each step of the optimiser, as the authors do: this function does not,
        for a clamp in here would have no gradient beyond it.
      axis: mesh axis that the batch is split over. Anchors are this shard's, what they are compared with is
        everybody's; the mean of the returned values over the shards is the loss of the whole batch.
      block: as in `nt_xent`: side of the tiles of the matrix of similarities, or None.

    Returns: a float32 scalar, half the sum of both directions' means.

    Raises: ValueError if the shapes are not two equal (batch, dim), the scale is no scalar or not positive, there are
    fewer than 2 pairs, or block is not a positive integer.

    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, figure 3.
    """
    image, text, scale = _check(image, text, logit_scale)
    own = collectives.shard_offset(len(image), axis) + jnp.arange(len(image))
    everyone = jnp.arange(len(image) * (1 if axis is None else jax.lax.axis_size(axis)))
    if len(everyone) < 2:
        raise ValueError("at least 2 pairs are needed in the global batch: with one there are no negatives.")
    positive = scale * jnp.sum(image * text, axis=-1)

    def direction(anchors: Array, others: Array) -> Array:
        """-log of the softmax, as softplus(log Σ_{j≠i} exp(…) - t z_ii): a loss near zero keeps its digits."""
        others = collectives.gather(others, axis)
        return jax.nn.softplus(log_sum_exp(scale * anchors, others, own, everyone, block=block) - positive).mean()

    return (direction(image, text) + direction(text, image)) / 2


def siglip(
    image: Array,
    text: Array,
    logit_scale: Array | float,
    logit_bias: Array | float,
    *,
    axis: str | None = None,
    block: int | None = None,
) -> Array:
    """SigLIP's loss: say of every pair of an image and a text by itself whether they belong together.

        L = -mean_i Σ_j log σ( y_ij (t z_ij + b) ),   y_ij = 1 if i = j, else -1

    with z_ij the cosine of image i and text j, over the global batch.

    Args:
      image, text: embeddings (batch, dim); row i of both is one pair. They are normalised here, and both get gradients.
      logit_scale: t > 0, a scalar: `exp` of the parameter, which starts at log 10.
      logit_bias: b, a scalar, which starts at -10, as nearly all pairs do not belong together.
      axis: mesh axis that the batch is split over. Images are this shard's, texts everybody's; the mean of the returned
        values over the shards is the loss of the whole batch.
      block: the number of texts whose similarities are held at a time, and made again for the backward pass; value and
        gradients are the same, but for rounding. None: all, while the matrix is small (`ssljax.losses.blockwise`).

    Returns: a float32 scalar: a sum over texts and a mean over images.

    Raises: ValueError if the shapes are not two equal (batch, dim), scale or bias is no scalar, the scale is not
    positive, or block is not a positive integer.

    Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023, equation 1 and algorithm 1.
    """
    image, text, scale = _check(image, text, logit_scale)
    bias = _check_scalar("logit_bias", logit_bias)
    texts = collectives.gather(text, axis)
    own = collectives.shard_offset(len(image), axis) + jnp.arange(len(image))
    side = tile_side(block, len(image) * len(texts)) or len(texts)

    @jax.checkpoint
    def errors(tile: tuple[Array, Array]) -> Array:
        texts, ids = tile
        logits = product(scale * image, texts.T) + bias
        error = jax.nn.softplus(jnp.where(own[:, None] == ids, -logits, logits))
        return jnp.where(ids < 0, 0.0, error).sum(axis=1)  # ids below 0 are padding

    tiles = as_tiles(texts, side), as_tiles(jnp.arange(len(texts)), side, -1)
    return jax.lax.map(errors, tiles).sum(axis=0).mean()


def _check(image: Array, text: Array, logit_scale: Array | float) -> tuple[Array, Array, Array]:
    """Both normalised, and the scale; float32."""
    image, text = jnp.asarray(image), jnp.asarray(text)
    check_pair("image", image, "text", text)
    scale = _check_scalar("logit_scale", logit_scale)
    check_positive("logit_scale", logit_scale)
    return normalize(image), normalize(text), scale


def _check_scalar(name: str, x: Array | float) -> Array:
    x = jnp.asarray(x, jnp.float32)
    if x.ndim:
        raise ValueError(f"{name} {x.shape} must be a scalar: one number serves all pairs.")
    return x
