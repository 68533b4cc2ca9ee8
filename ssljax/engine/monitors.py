"""Is the representation alive? Statistics of a batch's features, cheap enough to be computed in every step."""

import jax
import jax.numpy as jnp

from ssljax import collectives
from ssljax.typing import Array

COLLAPSED_STD = 0.1
COLLAPSED_RANK = 1.2
UNIFORMITY_SAMPLE = 256


def collapse_statistics(aux: dict, axis: str | None) -> dict[str, Array]:
    """Health of `aux["features"]` (batch, dim) and of the pair in `aux["embeddings"]`, over the global batch.

    feature_std: √dim · the mean over dimensions of the standard deviation of normalised features: 1 where they fill
      the sphere evenly, 0 where all are the same point.
    effective_rank: (Σλ)² / Σλ² over the eigenvalues λ of their covariance: between 1 and dim.
    embedding_std: as feature_std, of the first of the pair.
    alignment: mean squared distance of the two normalised embeddings of an example (0: identical).
    uniformity: log of the mean of exp(-2 d²) over pairs of examples (0: collapsed; lower is more uniform), on the first
      256 examples of the batch.

    Alignment and uniformity: Wang and Isola, 2020. These three are absent where a method does not compare two views.
    """
    x = _unit(jax.lax.stop_gradient(aux["features"]))
    mean = collectives.mean(x.mean(0), axis)
    # The covariance's trace and squared norm are all that the effective rank needs: no eigenvalues.
    covariance = collectives.mean(x.T @ x / len(x), axis) - jnp.outer(mean, mean)
    variance = jnp.maximum(jnp.diagonal(covariance), 0.0)
    statistics = {
        "feature_std": jnp.sqrt(variance).mean() * jnp.sqrt(x.shape[1]),
        "effective_rank": jnp.square(variance.sum()) / jnp.maximum(jnp.sum(jnp.square(covariance)), 1e-12),
    }
    if len(aux["embeddings"]) == 2:
        first, second = (_unit(jax.lax.stop_gradient(z)) for z in aux["embeddings"])
        statistics["embedding_std"] = collectives.std(first, axis) * jnp.sqrt(first.shape[1])
        statistics["alignment"] = collectives.mean(jnp.square(first - second).sum(-1).mean(), axis)
        z = collectives.gather_replicated(first, axis)[:UNIFORMITY_SAMPLE]
        potential = jnp.exp(-4.0 * (1.0 - jnp.matmul(z, z.T, precision=jax.lax.Precision.HIGHEST)))
        others = 1.0 - jnp.eye(len(z))
        statistics["uniformity"] = jnp.log(jnp.sum(potential * others) / jnp.maximum(others.sum(), 1.0) + 1e-30)
    return statistics


def alarm(metrics: dict[str, float]) -> str | None:
    """A sentence that says what looks wrong and what to try, or None."""
    if metrics["feature_std"] < COLLAPSED_STD:
        return (
            f"feature_std is {metrics['feature_std']:.3f}: all images get nearly the same representation. Lower the "
            "learning rate, lengthen the warm-up, or check that the views are neither identical nor blank."
        )
    if metrics["effective_rank"] < COLLAPSED_RANK:
        return (
            f"effective_rank is {metrics['effective_rank']:.2f}: the representation lives on a line. Lower the "
            "learning rate, raise the batch size, or strengthen the augmentation."
        )
    return None


def _unit(x: Array) -> Array:
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-24))
