"""Contrastive losses. Logits and softmax are float32, whatever the type of the embeddings."""

import jax
import jax.numpy as jnp
import optax

from ssljax import collectives
from ssljax.typing import Array


def normalize(x: Array) -> Array:
    """x / max(|x|, 1e-12) along the last axis, in float32; its gradient is finite at zero."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))


def nt_xent(
    z1: Array, z2: Array, temperature: float = 0.1, *, convention: str = "mean", axis: str | None = None
) -> Array:
    """Normalised temperature-scaled cross-entropy (SimCLR).

        l(i, j) = -log( exp(z_i·z_j / T) / Σ_{k≠i} exp(z_i·z_k / T) ),   z normalised, k over all 2N embeddings

    averaged over the 2N anchors, where j is the other view of i.

    Args:
      z1, z2: embeddings of two views, (batch, dim); row i of both comes from example i. They are normalised here.
      temperature: T > 0.
      convention: "mean" over the 2N anchors (lightly, solo-learn), or "sum" of the two directions' means (Google's
        code), which is twice as much.
      axis: mesh axis that the batch is split over. Anchors are this shard's, the embeddings they are compared with are
        everybody's; the mean of the returned values over the shards is the loss of the whole batch.

    Returns: a float32 scalar.

    Raises: ValueError if the shapes are not two equal (batch, dim), the temperature is not positive or the convention
    is unknown.

    Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020, equation 1.
    """
    z1, z2 = jnp.asarray(z1), jnp.asarray(z2)
    _check_pair("z1", z1, "z2", z2)
    _check_temperature(temperature)
    if convention not in ("mean", "sum"):
        raise ValueError(f"convention '{convention}' is unknown; use 'mean' or 'sum'.")
    z1, z2 = normalize(z1), normalize(z2)
    n = len(z1)
    _check_negatives(n, axis)
    all1, all2 = collectives.gather(z1, axis), collectives.gather(z2, axis)
    place = collectives.shard_offset(n, axis) + jnp.arange(n)

    def direction(anchors, others, own):
        logits = _dot(anchors, jnp.concatenate([others, own])) / temperature
        itself = jax.nn.one_hot(len(others) + place, logits.shape[1], dtype=bool)
        return optax.softmax_cross_entropy_with_integer_labels(jnp.where(itself, -jnp.inf, logits), place).mean()

    both = direction(z1, all2, all1) + direction(z2, all1, all2)
    return both if convention == "sum" else both / 2


def info_nce(
    query: Array, key: Array, queue: Array | None = None, temperature: float = 0.07, *, axis: str | None = None
) -> Array:
    """InfoNCE: tell a query's own key from negatives.

        l = -log( exp(q·k⁺ / T) / (exp(q·k⁺ / T) + Σ_{k⁻} exp(q·k⁻ / T)) ),   mean over queries

    Args:
      query: (batch, dim), normalised here.
      key: (batch, dim), row i is the positive of query i; normalised here; no gradient flows into it.
      queue: negatives (size, dim), used as they are: MoCo keeps normalised keys. None: the other keys of the (global)
        batch are the negatives.
      temperature: T > 0.
      axis: mesh axis that the batch is split over; matters only without a queue, which is the same on all shards.

    Returns: a float32 scalar, the mean over this shard's queries, in one direction and without a factor 2T.

    Raises: ValueError for shapes that do not fit or a temperature that is not positive.

    van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018; with a queue: He et al.,
    "Momentum Contrast for Unsupervised Visual Representation Learning", 2020, equation 1.
    """
    query, key = jnp.asarray(query), jnp.asarray(key)
    _check_pair("query", query, "key", key)
    _check_temperature(temperature)
    q, k = normalize(query), normalize(jax.lax.stop_gradient(key))
    if queue is None:
        _check_negatives(len(q), axis)
        logits = _dot(q, collectives.gather(k, axis))
        labels = collectives.shard_offset(len(q), axis) + jnp.arange(len(q))
    else:
        queue = jnp.asarray(queue)
        if queue.ndim != 2 or not len(queue) or queue.shape[1] != q.shape[1]:
            raise ValueError(f"queue {queue.shape} must be (size, dim) with the dim of query {query.shape}, not empty.")
        negatives = jax.lax.stop_gradient(queue).astype(jnp.float32)
        logits = jnp.concatenate([jnp.sum(q * k, axis=-1, keepdims=True), _dot(q, negatives)], axis=1)
        labels = jnp.zeros(len(q), jnp.int32)
    return optax.softmax_cross_entropy_with_integer_labels(logits / temperature, labels).mean()


def _dot(a: Array, b: Array) -> Array:
    """a bᵀ in full float32: on a TPU the default would multiply in bfloat16, and exp(x / 0.1) would show it."""
    return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)


def _check_pair(name_a: str, a: Array, name_b: str, b: Array) -> None:
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"{name_a} {a.shape} and {name_b} {b.shape} must both be (batch, dim) and equal.")


def _check_negatives(n: int, axis: str | None) -> None:
    if n * (1 if axis is None else jax.lax.axis_size(axis)) < 2:
        raise ValueError("at least 2 examples are needed in the global batch: with one there are no negatives.")


def _check_temperature(temperature) -> None:
    if not isinstance(temperature, jax.core.Tracer) and not temperature > 0:
        raise ValueError(f"temperature must be positive, but is {temperature}.")
