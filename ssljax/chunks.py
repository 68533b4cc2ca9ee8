"""A batch in parts, one after the other, so that only one part's intermediate arrays are alive."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ssljax.typing import PyTree


def split(batch: PyTree, chunks: int) -> PyTree:
    """(n, …) -> (chunks, n / chunks, …), of every array; chunk c holds the examples c, c + chunks, c + 2 chunks, …

    So each device's share of a chunk lies on that device already, and on any mesh chunk c is the same set of examples.
    """
    for x in jax.tree.leaves(batch):
        if len(x) % chunks:
            raise ValueError(f"{len(x)} examples on a device cannot be cut into {chunks} equal chunks.")
    return jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, chunks, *x.shape[1:]), 0, 1), batch)


def merge(parts: PyTree) -> PyTree:
    """The inverse of `split`."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), parts)


def map_chunks(f: Callable[[PyTree], PyTree], batch: PyTree, chunks: int) -> PyTree:
    """`f(batch)` for an `f` that treats each example by itself, by one chunk after the other."""
    return f(batch) if chunks == 1 else merge(jax.lax.map(f, split(batch, chunks)))
