"""From the frames of a clip to one vector, whatever its length."""

import jax.numpy as jnp

from ssljax.typing import Array


def segment_means(x: Array, frames: Array, segments: int) -> Array:
    """Means over `segments` equal parts of each clip, one after the other: (batch, time, dim) ->
    (batch, segments * dim).

    frames (batch,): how many of the times are the clip, one at least; what comes after them changes nothing. Where a
    bound lies within a frame, both parts have the frame.
    """
    n, time = frames[:, None, None], jnp.arange(x.shape[1])
    part = jnp.arange(segments)[:, None]
    inside = (time >= part * n // segments) & (time < -(-(part + 1) * n // segments))
    weights = inside / inside.sum(axis=-1, keepdims=True)
    # What is padding may hold anything: it is left out, not multiplied by zero.
    x = jnp.where((time < frames[:, None])[:, :, None], x.astype(jnp.float32), 0.0)
    return jnp.einsum("bst,btd->bsd", weights, x, precision="highest").reshape(x.shape[0], -1)
