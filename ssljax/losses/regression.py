"""Losses that regress a teacher's features, and the targets that are made of them, all float32."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ssljax import collectives
from ssljax.losses.checks import check_weights
from ssljax.typing import Array


def smooth_l1(
    prediction: Array, target: Array, *, beta: float = 1.0, weights: Array | None = None, axis: str | None = None
) -> Array:
    """Squared error where it is small, absolute error where it is large, mean over elements.

        h(d) = d² / (2β) where |d| < β, else |d| - β/2;   L = Σ_r w_r · mean_dim h(x_r - y_r) / Σ_r w_r

    Args:
      prediction: x, (…, dim).
      target: y, of the same shape; no gradient flows into it.
      beta: β ≥ 0: 1 in I-JEPA, 2 in data2vec; 0 is the absolute error.
      weights: w, (…), 1 for rows that count and 0 for others, such as visible patches. None: all count.
      axis: mesh axis that the rows are split over; matters only with weights, whose sum is then over all shards.

    Returns: a float32 scalar; the mean over shards is the loss of the whole batch. Zero if all weights are.

    Raises: ValueError if the shapes do not fit or beta is negative.

    Girshick, "Fast R-CNN", 2015, equation 3; Baevski et al., "data2vec: A General Framework for Self-supervised
    Learning in Speech, Vision and Language", 2022; Assran et al., "Self-Supervised Learning from Images with a
    Joint-Embedding Predictive Architecture", 2023.
    """
    prediction, target = jnp.asarray(prediction), jnp.asarray(target)
    if prediction.shape != target.shape or not prediction.size:
        raise ValueError(f"prediction {prediction.shape} and target {target.shape} must be equal, and not empty.")
    if not beta >= 0:
        raise ValueError(f"beta must not be negative, but is {beta}.")
    difference = prediction.astype(jnp.float32) - jax.lax.stop_gradient(target).astype(jnp.float32)
    size = jnp.sign(difference) * difference  # jnp.abs, but for its gradient, which is 1 at zero
    error = size - beta / 2
    if beta:
        error = jnp.where(size < beta, difference**2 / (2 * beta), error)
    if weights is None:
        return error.mean()
    weights = jnp.asarray(weights)
    check_weights("prediction", prediction, weights)
    weights = weights.astype(jnp.float32)
    total = collectives.mean(weights.sum(), axis)
    return jnp.sum(weights * error.mean(axis=-1)) / jnp.where(total > 0, total, 1.0)


def layer_norm(x: Array, epsilon: float = 1e-5) -> Array:
    """(x - mean) / √(variance + ε) over the last axis, float32: LayerNorm without scale and offset.

    Of the target encoder's output it is I-JEPA's target. Raises ValueError if x has no axis.

    Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture", 2023.
    """
    return _standardize(x, -1, epsilon)


def instance_norm(x: Array, epsilon: float = 1e-5) -> Array:
    """(x - mean) / √(variance + ε) of each feature over the last axis but one, the tokens of an image; float32.

    What all tokens of an image share is gone. Raises ValueError if x has fewer than two axes.

    Ulyanov et al., "Instance Normalization: The Missing Ingredient for Fast Stylization", 2016.
    """
    return _standardize(x, -2, epsilon)


def _standardize(x: Array, axis: int, epsilon: float) -> Array:
    x = jnp.asarray(x).astype(jnp.float32)
    if x.ndim < -axis:
        raise ValueError(f"x {x.shape} must be {'(…, dim)' if axis == -1 else '(…, tokens, dim)'}.")
    x = x - x.mean(axis=axis, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=axis, keepdims=True) + epsilon)


TARGET_NORMS = {"layer": layer_norm, "instance": instance_norm}


def data2vec_target(layers: Sequence[Array], epsilon: float = 1e-5, norm: str = "layer") -> Array:
    """What data2vec predicts: layer_norm( mean over blocks of norm(block's output) ), without gradient.

    Args:
      layers: outputs (…, tokens, dim) of the teacher's last blocks, before any final norm: 6 to 11 of ViT-B's 12, 18 to
        23 of ViT-L's 24, counted from 0.
      epsilon: under the root, in both norms.
      norm: of the blocks, "layer" (data2vec) or "instance" (data2vec 2.0; without class token and registers).

    Returns: (…, tokens, dim) float32.

    Raises: ValueError if there is no block, their shapes differ, or the norm is unknown.

    Baevski et al., "data2vec: A General Framework for Self-supervised Learning in Speech, Vision and Language", 2022,
    section 3.3, with the second norm of the code for images; Baevski et al., "Efficient Self-supervised Learning with
    Contextualized Target Representations for Vision, Speech and Language", 2023.
    """
    shapes = [jnp.shape(x) for x in layers]
    if len(set(shapes)) != 1:
        raise ValueError(f"layers must be outputs of at least one block, with equal shapes, but are {shapes}.")
    if norm not in TARGET_NORMS:
        raise ValueError(f"norm '{norm}' is unknown; use {' or '.join(TARGET_NORMS)}.")
    average = sum((TARGET_NORMS[norm](x, epsilon) for x in layers), start=jnp.float32(0.0)) / len(shapes)
    return jax.lax.stop_gradient(layer_norm(average, epsilon))
