"""Losses of methods for graphs."""

import jax
import jax.numpy as jnp

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
