"""Losses of time series, whose embeddings are one for each time step. They are float32."""

import jax
import jax.numpy as jnp

from ssljax import collectives
from ssljax.losses.blockwise import log_sum_exp
from ssljax.typing import Array

HIDDEN = -1e9
"""Similarity of everything to a step that is not there: finite, so that a row with nothing else has a gradient, 0."""


def ts2vec(
    z1: Array,
    z2: Array,
    alpha: float = 0.5,
    temporal_unit: int = 0,
    *,
    mask: Array | None = None,
    axis: str | None = None,
    block: int | None = None,
) -> Array:
    """TS2Vec's hierarchical contrastive loss.

        L = 1/D Σ_d ( α instance(d) + (1 - α) temporal(d) ),   d = 0 … D - 1

    At level d both views' embeddings are those of level d - 1, max-pooled over pairs of steps (a last odd one is left
    out), down to a single step. A view of a step tells the other view of that step

        instance: from the same step's two views in all other series of the global batch
        temporal: from both views of all other steps of its own series

    each by a softmax over plain dot products, not normalised and without temperature, averaged over all anchors, which
    are both views. At the last level, of a single step, there is nothing temporal, and with a single series nothing of
    instances; these terms are zero, and D counts every level all the same.

    Args:
      z1, z2: (batch, time, dim), of the same steps of the same series.
      alpha: share of the instance term, in [0, 1].
      temporal_unit: first level with a temporal term, for series whose neighbouring steps are too much alike.
      mask: (batch, time), bool: steps that are there, the first ones of each series where these are of different
        lengths; D is then that of the longest, and anchors with nothing to be told from are in no average. None: all.
      axis: mesh axis that the batch is split over; the mean of the returned values over the shards is the loss of the
        whole batch.
      block: as in `nt_xent`, of the matrices between the views of one step in all series, and of one series.

    Returns: a float32 scalar.

    Raises: ValueError if the shapes are not two equal (batch, time, dim), alpha is not in [0, 1], temporal_unit is
    negative, or the global batch is a single step of a single series.

    Yue et al., "TS2Vec: Towards Universal Representation of Time Series", 2022, equations 1 to 3.
    """
    z1, z2 = jnp.asarray(z1, jnp.float32), jnp.asarray(z2, jnp.float32)
    if z1.ndim != 3 or z1.shape != z2.shape or not z1.size:
        raise ValueError(f"z1 {z1.shape} and z2 {z2.shape} must both be (batch, time, dim), equal and not empty.")
    if mask is not None and mask.shape != z1.shape[:2]:
        raise ValueError(f"mask {mask.shape} must be (batch, time) of z1 {z1.shape}.")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], but is {alpha}.")
    if temporal_unit < 0:
        raise ValueError(f"temporal_unit must be 0 or more, but is {temporal_unit}.")
    views, real = jnp.stack([z1, z2]), jnp.ones(z1.shape[:2], bool) if mask is None else mask.astype(bool)
    everyone = jnp.stack([collectives.gather(z1, axis), collectives.gather(z2, axis)])
    all_real = collectives.gather(real, axis)
    series, own = everyone.shape[1], collectives.shard_offset(len(z1), axis) + jnp.arange(len(z1))
    if series == z1.shape[1] == 1:
        raise ValueError("a single step of a single series has nothing to be told from: raise the batch or the time.")
    loss, levels, level = jnp.float32(0.0), jnp.float32(0.0), 0
    while True:
        steps = views.shape[2]
        levels += all_real.any()
        if alpha > 0 and series > 1:
            anchors, others = (jnp.moveaxis(x, 2, 0) for x in (views, everyone))
            loss += alpha * _contrast(anchors, others, real.T, all_real.T, own, axis, block)
        if alpha < 1 and steps > 1 and level >= temporal_unit:
            of_series = views.swapaxes(0, 1)
            loss += (1 - alpha) * _contrast(of_series, of_series, real, real, jnp.arange(steps), axis, block)
        level += 1
        if steps == 1:
            return loss / jnp.maximum(levels, 1)
        views, everyone, real, all_real = _halve(views), _halve(everyone), _pairs(real), _pairs(all_real)


def _contrast(
    anchors: Array, others: Array, real: Array, all_real: Array, own: Array, axis: str | None, block: int | None
) -> Array:
    """Mean over anchors of the cross-entropy with which one view of a member of a group finds the other among all
    others.

    anchors: both views, (groups, 2, n, dim); others: both views of all members, (groups, 2, m, dim), of which those at
    `own` (n,) are the anchors themselves. real (groups, n), all_real (groups, m): which are there.
    """
    ids = jnp.tile(jnp.arange(others.shape[2]), 2)

    def of_group(anchors: Array, others: Array, all_real: Array) -> Array:
        rows, columns = (x.reshape(-1, x.shape[-1]) for x in (anchors, others))
        positive = jnp.tile(jnp.sum(anchors[0] * anchors[1], axis=-1), 2)
        # One dimension more, 1 in all rows, which hides what is not there.
        bias = jnp.where(jnp.tile(all_real, 2), 0.0, HIDDEN)[:, None]
        rows, columns = jnp.concatenate([rows, jnp.ones_like(rows[:, :1])], 1), jnp.concatenate([columns, bias], 1)
        return jax.nn.softplus(log_sum_exp(rows, columns, jnp.tile(own, 2), ids, block=block) - positive)

    counts = jnp.tile(real & (all_real.sum(axis=1, keepdims=True) > 1), (1, 2))
    losses = jax.vmap(of_group)(anchors, others, all_real)
    total = jnp.where(counts, losses, 0.0).sum()
    return total / jnp.maximum(collectives.mean(counts.sum(dtype=jnp.float32), axis), 1e-6)


def _halve(z: Array) -> Array:
    """The larger of each two steps: (views, batch, time, dim) -> (views, batch, time // 2, dim)."""
    pairs = 1, 1, 2, 1
    return jax.lax.reduce_window(z, -jnp.inf, jax.lax.max, pairs, pairs, "VALID")


def _pairs(real: Array) -> Array:
    """Where both of two steps are there: (batch, time) -> (batch, time // 2)."""
    even = real[:, : real.shape[1] // 2 * 2]
    return even[:, ::2] & even[:, 1::2]
