"""Contrastive losses. Logits and softmax are float32, whatever the type of the embeddings."""

import jax
import jax.numpy as jnp

from ssljax import collectives
from ssljax.losses.blockwise import log_sum_exp
from ssljax.losses.checks import check_pair, check_positive
from ssljax.numerics import normalize
from ssljax.typing import Array


def nt_xent(
    z1: Array,
    z2: Array,
    temperature: float = 0.1,
    *,
    convention: str = "mean",
    axis: str | None = None,
    block: int | None = None,
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
      block: side of the tiles of the similarity matrix, of which one at a time is held, so that memory grows with the
        batch and not with its square; value and gradients are the same, but for rounding (but tiles have
        no forward-mode derivative, `jax.jvp`). None: the whole matrix while it is small, tiles beyond
        (`ssljax.losses.blockwise`).

    Returns: a float32 scalar.

    Raises: ValueError if the shapes are not two equal (batch, dim), the temperature is not positive, the convention
    is unknown or block is not a positive integer.

    Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020, equation 1.
    """
    z1, z2 = jnp.asarray(z1), jnp.asarray(z2)
    check_pair("z1", z1, "z2", z2)
    check_positive("temperature", temperature)
    if convention not in ("mean", "sum"):
        raise ValueError(f"convention '{convention}' is unknown; use 'mean' or 'sum'.")
    z1, z2 = normalize(z1), normalize(z2)
    n = len(z1)
    _check_negatives(n, axis)
    everyone = jnp.concatenate([collectives.gather(z1, axis), collectives.gather(z2, axis)])
    place = collectives.shard_offset(n, axis) + jnp.arange(n)
    loss = _cross_entropy(
        jnp.concatenate([z1, z2]),
        jnp.concatenate([z2, z1]),
        everyone,
        jnp.tile(place, 2),
        jnp.tile(jnp.arange(len(everyone) // 2), 2),
        temperature,
        block,
    )
    return 2 * loss if convention == "sum" else loss


def info_nce(
    query: Array,
    key: Array,
    queue: Array | None = None,
    temperature: float = 0.07,
    *,
    in_batch: bool = False,
    key_gradient: bool = False,
    axis: str | None = None,
    block: int | None = None,
) -> Array:
    """InfoNCE: tell a query's own key from negatives.

        l = -log( exp(q·k⁺ / T) / (exp(q·k⁺ / T) + Σ_{k⁻} exp(q·k⁻ / T)) ),   mean over queries

    Args:
      query: (batch, dim), normalised here.
      key: (batch, dim), row i is the positive of query i; normalised here; no gradient flows into it, unless
        key_gradient=True (where one network makes both: SCARF's loss, but for a constant ln N).
      queue: negatives (size, dim), used as they are: MoCo keeps normalised keys. None: the other keys of the (global)
        batch are the negatives.
      temperature: T > 0.
      in_batch: with a queue, the other keys of the (global) batch are negatives too (SimCLR v2 with a memory).
      axis: mesh axis that the batch is split over; matters only where the batch's keys are negatives, for a queue is
        the same on all shards.
      block: as in `nt_xent`, of the matrix of similarities between queries and negatives.

    Returns: a float32 scalar, the mean over this shard's queries, in one direction and without a factor 2T.

    Raises: ValueError for shapes that do not fit, a temperature that is not positive or a block that is not a positive
    integer.

    van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018; with a queue: He et al.,
    "Momentum Contrast for Unsupervised Visual Representation Learning", 2020, equation 1.
    """
    query, key = jnp.asarray(query), jnp.asarray(key)
    check_pair("query", query, "key", key)
    check_positive("temperature", temperature)
    q, k = normalize(query), normalize(key if key_gradient else jax.lax.stop_gradient(key))
    n = len(q)
    if queue is None:
        _check_negatives(n, axis)
    own = collectives.shard_offset(n, axis) + jnp.arange(n)
    negatives = [collectives.gather(k, axis)] if queue is None or in_batch else []
    ids = [jnp.arange(len(keys)) for keys in negatives]
    if queue is not None:
        queue = jnp.asarray(queue)
        if queue.ndim != 2 or not len(queue) or queue.shape[1] != q.shape[1]:
            raise ValueError(f"queue {queue.shape} must be (size, dim) with the dim of query {query.shape}, not empty.")
        negatives.append(jax.lax.stop_gradient(queue).astype(jnp.float32))
        nobody = n * (1 if axis is None else jax.lax.axis_size(axis))
        ids.append(jnp.full(len(queue), nobody))
    return _cross_entropy(q, k, jnp.concatenate(negatives), own, jnp.concatenate(ids), temperature, block)


def nce(positive: Array, noise: Array, log_z: Array, examples: int) -> Array:
    """Noise-contrastive estimation with a constant Z (NPID): tell an example's own entry of a memory bank from noise.

        l = -log( P(s⁺) / (P(s⁺) + K/N) ) - Σ_k log( (K/N) / (P(s_k) + K/N) ),   P(s) = exp(s) / Z,   mean over examples

    where the K entries of noise are drawn uniformly, with replacement, from the bank of N. The authors' code adds 1e-7
    to both denominators; in logarithms, as here, nothing needs it.

    Args:
      positive: s⁺ (batch,): each embedding's similarity to its own entry, f·v / T.
      noise: s_k (batch, K): each embedding's similarities to its K entries of noise, over T too.
      log_z: log Z, a scalar that stays as it is from the first batch on (`nce_log_z`); no gradient flows into it.
      examples: N, the number of examples in the dataset.

    The bank is no parameter: stop the gradient into its entries where the similarities are made.

    Returns: a float32 scalar, the mean over this shard's examples; the mean over the shards is that of the whole batch.

    Raises: ValueError if the shapes do not fit, or examples is not positive.

    Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", 2018, equations 4 to 7.
    """
    positive, noise = _check_similarities(positive, noise, examples)
    log_z = jnp.asarray(log_z, jnp.float32)
    if log_z.ndim:
        raise ValueError(f"log_z {log_z.shape} must be a scalar: one constant serves all examples.")
    # With s' = log( P(s) / (K/N) ), the two terms are softplus(-s⁺') and softplus(s_k'): nothing overflows.
    zero = jax.lax.stop_gradient(log_z) + jnp.log(noise.shape[1] / examples)
    return jnp.mean(jax.nn.softplus(zero - positive) + jax.nn.softplus(noise - zero).sum(axis=1))


def nce_log_z(positive: Array, noise: Array, examples: int, *, axis: str | None = None) -> Array:
    """What NPID takes for log Z, from the similarities of the first batch.

        Z = N mean(exp(s)),   over all s of the global batch, the positives among them

    Args:
      positive, noise, examples: as in `nce`.
      axis: mesh axis that the batch is split over.

    Returns: a float32 scalar, the same on all shards and without a gradient: state that is kept with the bank.

    Raises: ValueError if the shapes do not fit, or examples is not positive.

    Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", 2018, equation 8.
    """
    positive, noise = _check_similarities(positive, noise, examples)
    similarities = jax.lax.stop_gradient(jnp.concatenate([positive[:, None], noise], axis=1))
    sums = collectives.gather_replicated(jax.nn.logsumexp(similarities)[None], axis)
    return jax.nn.logsumexp(sums) + jnp.log(examples / (similarities.size * len(sums)))


def _cross_entropy(anchors, positives, others, own, ids, temperature, block) -> Array:
    """Mean over the anchors a with positives p of -log( exp(a·p / T) / (exp(a·p / T) + Σ exp(a·o / T)) ).

    The sum is over the others o whose id is not the anchor's own. Written as softplus(log Σ exp(a·o / T) - a·p / T), a
    loss near zero keeps its digits, and only the logsumexp ever meets the whole matrix.
    """
    anchors = anchors / jnp.asarray(temperature, jnp.float32)
    positive = jnp.sum(anchors * positives, axis=-1)
    return jax.nn.softplus(log_sum_exp(anchors, others, own, ids, block=block) - positive).mean()


def _check_similarities(positive, noise, examples: int) -> tuple[Array, Array]:
    """Both in float32."""
    positive, noise = jnp.asarray(positive, jnp.float32), jnp.asarray(noise, jnp.float32)
    if positive.ndim != 1 or noise.ndim != 2 or len(positive) != len(noise) or not noise.size:
        raise ValueError(f"positive {positive.shape} must be (batch,) and noise {noise.shape} (batch, K), not empty.")
    if not examples > 0:
        raise ValueError(f"examples, the size of the dataset, must be positive, but is {examples}.")
    return positive, noise


def _check_negatives(n: int, axis: str | None) -> None:
    if n * (1 if axis is None else jax.lax.axis_size(axis)) < 2:
        raise ValueError("at least 2 examples are needed in the global batch: with one there are no negatives.")
