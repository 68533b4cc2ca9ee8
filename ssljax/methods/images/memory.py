"""A memory of the keys of earlier batches: MoCo, SimCLR v2."""

import jax
import jax.numpy as jnp

from ssljax.numerics import normalize
from ssljax.typing import Array


def new_queue(key: Array, size: int, dim: int) -> dict[str, Array]:
    """Random directions, and the place where the first keys will go."""
    return {"queue": normalize(jax.random.normal(key, (size, dim))), "pointer": jnp.int32(0)}


def enqueue(extra: dict[str, Array], keys: Array) -> dict[str, Array]:
    """The oldest keys make room for these of the global batch (n, dim). Raises ValueError if there are fewer than n."""
    queue, pointer = extra["queue"], extra["pointer"]
    if len(queue) < len(keys):
        raise ValueError(
            f"a queue of {len(queue)} keys cannot take the {len(keys)} of a batch: let it be at least as large."
        )
    queue = queue.at[(pointer + jnp.arange(len(keys))) % len(queue)].set(keys, unique_indices=True)
    return {"queue": queue, "pointer": (pointer + len(keys)) % len(queue)}
