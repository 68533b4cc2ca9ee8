"""Losses that pull a prediction towards its target, with no negatives. They are float32, whatever the inputs are."""

import jax
import jax.numpy as jnp

from ssljax.losses.checks import check_pair
from ssljax.numerics import normalize
from ssljax.typing import Array


def cosine_regression(prediction: Array, target: Array) -> Array:
    """Squared distance between normalised vectors, in one direction (BYOL).

        L = mean over examples of |p̂ - ẑ|² = 2 - 2 p̂·ẑ,   p̂ = p / |p|, ẑ = z / |z|

    BYOL adds up both directions, `cosine_regression(p1, z2) + cosine_regression(p2, z1)`: between 0 and 8.

    Args:
      prediction: p (batch, dim), what the predictor makes of one view; normalised here.
      target: z (batch, dim), the target network's projection of the other view; normalised here; no gradient flows
        into it.

    Returns: a float32 scalar, the mean over this shard's examples; the mean over the shards is that of the whole batch.

    Raises: ValueError if the shapes are not two equal (batch, dim).

    Grill et al., "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning", 2020, equation 2.
    """
    p, z = _prediction_and_target(prediction, target)
    # As a sum of squares, a distance near zero keeps its digits.
    return jnp.sum((p - z) ** 2, axis=-1).mean()


def negative_cosine(prediction: Array, target: Array) -> Array:
    """Negative cosine similarity, in one direction (SimSiam).

        L = -mean over examples of p̂·ẑ,   p̂ = p / |p|, ẑ = z / |z|

    SimSiam takes the mean of both directions, `(negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2`: between -1 and
    1.

    Args:
      prediction: p (batch, dim), what the predictor makes of one view; normalised here.
      target: z (batch, dim), the projection of the other view; normalised here; no gradient flows into it, without
        which all embeddings would soon be the same.

    Returns: a float32 scalar, the mean over this shard's examples; the mean over the shards is that of the whole batch.

    Raises: ValueError if the shapes are not two equal (batch, dim).

    Chen and He, "Exploring Simple Siamese Representation Learning", 2021, equation 1.
    """
    p, z = _prediction_and_target(prediction, target)
    return -jnp.sum(p * z, axis=-1).mean()


def _prediction_and_target(prediction, target) -> tuple[Array, Array]:
    """Both normalised, the target cut off from the gradient."""
    prediction, target = jnp.asarray(prediction), jnp.asarray(target)
    check_pair("prediction", prediction, "target", target)
    return normalize(prediction), normalize(jax.lax.stop_gradient(target))
