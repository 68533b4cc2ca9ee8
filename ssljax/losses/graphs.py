"""Losses of methods for graphs."""

import jax
import jax.numpy as jnp

from ssljax import collectives
from ssljax.losses.blockwise import log_sum_exp
from ssljax.losses.checks import check_pair, check_positive
from ssljax.numerics import normalize
from ssljax.typing import Array


def dgi(positive: Array, negative: Array, *, convention: str = "mean") -> Array:
    """Deep Graph Infomax: tell the nodes of a graph from those of its corruption, by a summary of the graph.

        L = -1/2 (mean log σ(d(h, s)) + mean log(1 - σ(d(h̃, s))))

    Args:
      positive: the discriminator's logits d(h, s) of nodes, (…, nodes).
      negative: d(h̃, s), of the nodes of the corruption, with the same summary; as many of them.
      convention: "mean" over all 2N nodes (the authors), or "sum" of the two means (PyTorch Geometric), which is twice
        as much.

    Returns: a float32 scalar; with as many nodes on every shard, the mean over shards is the loss of the whole batch.

    Raises: ValueError if the shapes differ or hold nothing, or the convention is unknown.

    Veličković et al., "Deep Graph Infomax", 2019, equation 1.
    """
    positive, negative = jnp.asarray(positive, jnp.float32), jnp.asarray(negative, jnp.float32)
    if positive.shape != negative.shape or not positive.size:
        raise ValueError(f"positive {positive.shape} and negative {negative.shape} must be of one shape, not empty.")
    if convention not in ("mean", "sum"):
        raise ValueError(f"convention '{convention}' is unknown; use 'mean' or 'sum'.")
    loss = jax.nn.softplus(-positive).mean() + jax.nn.softplus(negative).mean()
    return loss if convention == "sum" else loss / 2


def graphcl(
    z1: Array, z2: Array, temperature: float = 0.2, *, axis: str | None = None, block: int | None = None
) -> Array:
    """GraphCL's contrastive loss: in one direction, the positive not among what it is compared with.

        l_i = -log( exp(z1_i·z2_i / T) / Σ_{j≠i} exp(z1_i·z2_j / T) ),   z normalised, mean over i

    Without the positive in the denominator it is no cross-entropy, and falls below zero where views are matched well.

    Args:
      z1: embeddings of the graphs, (batch, dim): the anchors; normalised here.
      z2: embeddings of their augmentations, (batch, dim), row i of the same graph as z1's; normalised here.
      temperature: T > 0.
      axis: mesh axis that the batch is split over; z2 is then everybody's, and the mean of the returned values over the
        shards is the loss of the whole batch.
      block: as in `nt_xent`.

    Returns: a float32 scalar, the mean over this shard's graphs, and no sum of two directions.

    Raises: ValueError if the shapes are not two equal (batch, dim), the temperature is not positive, or the global
    batch is a single graph.

    You et al., "Graph Contrastive Learning with Augmentations", 2020, equation 3.
    """
    z1, z2 = jnp.asarray(z1), jnp.asarray(z2)
    check_pair("z1", z1, "z2", z2)
    check_positive("temperature", temperature)
    anchors, others = normalize(z1) / jnp.asarray(temperature, jnp.float32), normalize(z2)
    everyone = collectives.gather(others, axis)
    if len(everyone) < 2:
        raise ValueError("at least 2 graphs are needed in the global batch: with one there are no negatives.")
    own = collectives.shard_offset(len(z1), axis) + jnp.arange(len(z1))
    rest = log_sum_exp(anchors, everyone, own, jnp.arange(len(everyone)), block=block)
    return (rest - jnp.sum(anchors * others, axis=-1)).mean()
