"""Crops of time series at fixed shapes: what is outside of a crop becomes padding.

valid (batch, time) says which steps are there, the first ones of each series.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ssljax.typing import Array


class Crops(NamedTuple):
    """Two crops that overlap: `first` and `second`, (batch, time), bool; their overlap begins at `start` and has
    `length` steps, (batch,) both."""

    first: Array
    second: Array
    start: Array
    length: Array


def overlapping_crops(draws: Array, valid: Array, share: Array, shortest: int = 2) -> Crops:
    """TS2Vec's random cropping: [a1, b1) and [a2, b2) with a1 ≤ a2 < b1 ≤ b2, uniform where that leaves a choice.

    draws (batch, 3), in [0, 1): for each series the place of the overlap [a2, b1), and how far the crops reach beyond
    it. share, in [0, 1): one number for the whole batch, the overlap's length in each series of n steps:
    uniform from `shortest` (or n) to n, so that series of one length have overlaps of one length.
    """
    steps, n = jnp.arange(valid.shape[1]), valid.sum(axis=1)

    def choose(draw: Array, below: Array) -> Array:
        """0 … below - 1."""
        return jnp.minimum(jnp.floor(draw * below).astype(n.dtype), jnp.maximum(below - 1, 0))

    least = jnp.minimum(shortest, n)
    length = least + choose(share, n - least + 1)
    start = choose(draws[:, 0], n - length + 1)
    end = start + length
    left, right = choose(draws[:, 1], start + 1), end + choose(draws[:, 2], n - end + 1)

    def between(a: Array, b: Array) -> Array:
        return (a[:, None] <= steps) & (steps < b[:, None])

    return Crops(between(left, end), between(start, right), start, length)


def shift(z: Array, start: Array) -> Array:
    """(batch, time, dim) from step `start` (batch,) on, at the front; what is then behind the end is the last step."""
    places = jnp.minimum(start[:, None] + jnp.arange(z.shape[1]), z.shape[1] - 1)
    return jnp.take_along_axis(z, places[..., None], axis=1)


def seen_steps(keys: Array, valid: Array, probability: float = 0.5) -> Array:
    """(batch, time), bool: each step is seen with that probability. One key for each series."""
    return jax.vmap(lambda key: jax.random.bernoulli(key, probability, valid.shape[1:]))(keys)
