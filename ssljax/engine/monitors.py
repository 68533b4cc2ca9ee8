"""Is the representation alive? Statistics of a batch's features, cheap enough to be computed in every step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ssljax import collectives
from ssljax.numerics import normalize, product
from ssljax.typing import Array

SAMPLE = 256


class Sign(NamedTuple):
    """Of collapse: a metric below `limit`, or above it. advice: what it means and what to try."""

    limit: float
    advice: str
    above: bool = False

    def shows(self, value: float) -> bool:
        return value > self.limit if self.above else value < self.limit


SIGNS = {
    "feature_std": Sign(
        0.1,
        "all examples get nearly the same representation. Lower the learning rate, lengthen the warm-up, or check that "
        "the views are neither identical nor blank.",
    ),
    "effective_rank": Sign(
        1.2,
        "the representation lives on a line. Lower the learning rate, raise the batch size, or strengthen the "
        "augmentation.",
    ),
    "embedding_std": Sign(
        0.1,
        "what the loss compares is nearly the same for all examples, so that it learns nothing more. Lower the "
        "learning rate, and give more weight to what keeps examples apart: negatives, the variance term, a predictor "
        "whose learning rate stays, a slower target.",
    ),
    "embedding_rank": Sign(
        1.1,
        "what the loss compares lies on a line. Lower the learning rate, and give more weight to what keeps examples "
        "apart: negatives, the covariance term, a predictor whose learning rate stays, a slower target.",
    ),
    "output_std": Sign(
        0.1,
        "the embeddings, before they are normalised, shrink to one point. Raise --config.method.variance, or lower the "
        "learning rate.",
    ),
    "prototypes_used": Sign(
        0.1,
        "the targets of nearly all examples are the same prototype. Let the centre follow faster (a lower "
        "method.center_momentum), or raise the teacher's temperature.",
    ),
    "target_entropy": Sign(
        0.99,
        "the targets are the same for every prototype, and there is nothing to learn from them. Lower the teacher's "
        "temperature (SwAV: epsilon), take fewer prototypes, or a faster teacher (a momentum of 0.99).",
        above=True,
    ),
    "target_std": Sign(
        0.1,
        "the targets of all patches are nearly the same. Lower the learning rate, or move the target faster.",
    ),
    "prediction_std": Sign(
        0.01,
        "the predictions for all patches are nearly the same. Lower the learning rate, or lengthen the warm-up.",
    ),
}
"""What the logs warn of, wherever a method has the metric."""


def collapse_statistics(aux: dict, axis: str | None) -> dict[str, Array]:
    """Health of `aux["features"]` (batch, dim) and of the pair in `aux["embeddings"]`, over the global batch.

    feature_std: √dim · the mean over dimensions of the standard deviation of normalised features: 1 where they fill
      the sphere evenly, 0 where all are the same point.
    effective_rank: (Σλ)² / Σλ² over the eigenvalues λ of their covariance: between 1 and dim.
    embedding_std, embedding_rank: the same, of the first of the pair.
    alignment: mean squared distance of the two normalised embeddings of an example (0: identical).
    uniformity: log of the mean of exp(-2 d²) over pairs of examples (0: collapsed; lower is more uniform).

    embedding_rank and uniformity are of the first 256 examples of the batch. Alignment and uniformity: Wang and Isola,
    2020. What is of embeddings is absent where a method does not compare two views, and all where a batch is one image.
    """
    x = normalize(jax.lax.stop_gradient(aux["features"]))
    if len(x) * (1 if axis is None else jax.lax.axis_size(axis)) == 1:
        return {}
    x = x - collectives.mean(x.mean(0), axis)
    # The covariance's trace and squared norm are all that the effective rank needs: no eigenvalues.
    covariance = collectives.mean(product(x.T, x) / len(x), axis)
    variance = jnp.diagonal(covariance)
    statistics = {
        "feature_std": jnp.sqrt(variance).mean() * jnp.sqrt(x.shape[1]),
        "effective_rank": jnp.square(variance.sum()) / jnp.maximum(jnp.sum(jnp.square(covariance)), 1e-12),
    }
    if len(aux["embeddings"]) == 2:
        first, second = (normalize(jax.lax.stop_gradient(z)) for z in aux["embeddings"])
        statistics["embedding_std"] = collectives.std(first, axis) * jnp.sqrt(first.shape[1])
        statistics["alignment"] = collectives.mean(jnp.square(first - second).sum(-1).mean(), axis)
        z = collectives.gather_replicated(first, axis)[:SAMPLE]
        # The Gram matrix has the covariance's eigenvalues, and stays small where an embedding has 65,536 numbers.
        gram = product(z - z.mean(0), (z - z.mean(0)).T)
        statistics["embedding_rank"] = jnp.square(jnp.trace(gram)) / jnp.maximum(jnp.sum(jnp.square(gram)), 1e-12)
        potential = jnp.exp(-4.0 * (1.0 - product(z, z.T)))
        others = 1.0 - jnp.eye(len(z))
        statistics["uniformity"] = jnp.log(jnp.sum(potential * others) / jnp.maximum(others.sum(), 1.0) + 1e-30)
    return statistics


def alarm(metrics: dict[str, float]) -> str | None:
    """A sentence that says what looks wrong and what to try, or None."""
    for name, sign in SIGNS.items():
        if name in metrics and sign.shows(metrics[name]):
            return f"{name} is {metrics[name]:.3g}: {sign.advice}"
    return None
