"""Corruption of graphs."""

import jax

from ssljax.typing import Array


def permute_nodes(keys: Array, features: Array) -> Array:
    """Deep Graph Infomax's corruption: the rows of features (batch, nodes, dim) change places. One key for a graph."""
    return jax.vmap(lambda key, rows: jax.random.permutation(key, rows))(keys, features)
