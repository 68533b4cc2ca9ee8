"""Losses that assign examples to prototypes. Scores, assignments and softmax are float32."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.losses.checks import check_positive, check_weights
from ssljax.losses.distillation import cross_entropy_between_views
from ssljax.typing import Array


def sinkhorn(
    scores: Array,
    *,
    epsilon=0.05,
    iterations: int = 3,
    weights: Array | None = None,
    axis: str | None = None,
) -> Array:
    """Assignments of examples to prototypes that use all prototypes alike (SwAV), by Sinkhorn and Knopp's algorithm.

    Q = exp(scores / ε) is scaled `iterations` times: first each prototype's assignments, so that they have the same sum
    over the batch, then each example's, so that they sum to one. Computed with logarithms, which is the same where the
    exponential can be represented and right where it cannot.

    Args:
      scores: (batch, prototypes): example · prototype, or a teacher's logits (DINOv2), with its temperature as epsilon.
      epsilon: ε > 0; small makes assignments hard.
      iterations: at least 1.
      weights: (batch,), 1 for rows that count, and 0 for padding, which then touches no other row. None: all count.
      axis: mesh axis that the rows are split over; the sums over the batch are then over the rows of all shards. So a
        queue's scores must be split over the shards too: what is on every shard would be counted on each.

    Returns: (batch, prototypes) float32, without gradient; rows sum to one, those of weight 0 are zero.

    Raises: ValueError if the shapes do not fit, epsilon is not positive or there is no iteration.

    Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", 2020, section 3.1;
    Cuturi, "Sinkhorn Distances: Lightspeed Computation of Optimal Transport", 2013.
    """
    scores = jnp.asarray(scores)
    if scores.ndim != 2:
        raise ValueError(f"scores {scores.shape} must be (batch, prototypes).")
    weights = jnp.ones(len(scores)) if weights is None else jnp.asarray(weights)
    check_weights("scores", scores, weights)
    check_positive("epsilon", epsilon)
    if isinstance(iterations, bool) or not isinstance(iterations, int | np.integer) or iterations < 1:
        raise ValueError(f"iterations must be a whole number of at least 1, but is {iterations}.")
    counts = weights[:, None] > 0
    log_q = jnp.where(counts, jax.lax.stop_gradient(scores).astype(jnp.float32) / epsilon, 0.0)
    log_weights = jnp.log(weights.astype(jnp.float32))[:, None]
    for _ in range(iterations):
        log_q -= _log_sum_of_rows(log_q + log_weights, axis)
        log_q = jax.nn.log_softmax(log_q, axis=1)
    return jnp.where(counts, jnp.exp(log_q), 0.0)


def _log_sum_of_rows(x: Array, axis: str | None) -> Array:
    """log Σ_rows exp(x), over the rows of all shards: (rows, columns) -> (columns,)."""
    here = jax.nn.logsumexp(x, axis=0)
    if axis is None:
        return here
    largest = jax.lax.pmax(here, axis)
    return largest + jnp.log(jax.lax.psum(jnp.exp(here - largest), axis))


def swav(scores_per_crop: Sequence[Array], assignments_per_crop: Sequence[Array], temperature=0.1) -> Array:
    """Swapped prediction (SwAV): from each crop's scores, the assignments of the image's other crops must follow.

        L = 1/A Σ_{i≤A} 1/(V-1) Σ_{v≠i} mean over the batch of  -Σ_k q_i[k] · log softmax(s_v / T)[k]

    Args:
      scores_per_crop: s, V ≥ 2 arrays (batch, prototypes); the crops that are assigned come first.
      assignments_per_crop: q, A arrays (batch, prototypes) for the first A crops (`sinkhorn`); no gradient flows into
        them. Where a queue took part, give the batch's own rows only.
      temperature: T > 0.

    Returns: a float32 scalar, ln(prototypes) where all scores are equal. With equal numbers of examples on all shards,
    the mean over shards is the loss of the whole batch.

    Raises: ValueError if there are no two different crops to compare, shapes differ, or the temperature is not
    positive.

    Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", 2020, equations 2, 6.
    """
    names = "scores_per_crop", "assignments_per_crop"
    return cross_entropy_between_views(scores_per_crop, assignments_per_crop, temperature, names=names)
