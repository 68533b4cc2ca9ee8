"""A memory of the keys of earlier batches: MoCo, SimCLR v2."""

import jax
import jax.numpy as jnp

from ssljax.losses.contrastive import normalize
from ssljax.typing import Array


def new_queue(key: Array, size: int, dim: int) -> dict[str, Array]:
    """Random directions, and the place where the first keys will go."""
    return {"queue": normalize(jax.random.normal(key, (size, dim))), "pointer": jnp.int32(0)}


def enqueue(extra: dict[str, Array], keys: Array) -> dict[str, Array]:
    """The oldest keys make room for these of the global batch (n, dim). Raises ValueError if n does not divide them."""
    queue, pointer = extra["queue"], extra["pointer"]
    if len(queue) % len(keys):
        raise ValueError(
            f"a queue of {len(queue)} keys cannot take whole batches of {len(keys)}: let the batch divide it."
        )
    queue = jax.lax.dynamic_update_slice_in_dim(queue, keys, pointer, axis=0)
    return {"queue": queue, "pointer": (pointer + len(keys)) % len(queue)}
