"""Random masks of static size: the same number of tokens is hidden in every example."""

import jax.numpy as jnp
from flax import struct

from ssljax.typing import Array
from ssljax.views.images import uniform


class Mask(struct.PyTreeNode):
    """Which tokens are seen.

    keep: (batch, kept) their indexes. hidden: (batch, tokens), 1 or 0. restore: (batch, tokens), each token's place in
    the order [kept, hidden].
    """

    keep: Array
    hidden: Array
    restore: Array


def mask_from_noise(noise: Array, kept: int) -> Mask:
    """Keep the `kept` tokens with the smallest noise (batch, tokens), in that order, as MAE does.

    Raises ValueError unless at least one token is kept and one hidden.
    """
    tokens = noise.shape[1]
    if not 0 < kept < tokens:
        raise ValueError(
            f"{kept} of {tokens} tokens would be kept; at least one must be kept and one hidden: change the mask ratio."
        )
    order = jnp.argsort(noise, axis=1)
    restore = jnp.argsort(order, axis=1)
    return Mask(keep=order[:, :kept], hidden=(restore >= kept).astype(jnp.float32), restore=restore)


def mae_mask(keys: Array, tokens: int, ratio: float = 0.75) -> Mask:
    """MAE's mask: int(tokens * (1 - ratio)) tokens are kept, chosen uniformly; one key for each example."""
    return mask_from_noise(uniform(keys, shape=(tokens,)), int(tokens * (1 - ratio)))


def unshuffle(visible: Array, filler: Array, restore: Array) -> Array:
    """Put tokens back in their places: visible (batch, kept, dim), `filler` (dim,) where tokens were hidden."""
    batch, kept, dim = visible.shape
    hidden = jnp.broadcast_to(filler.astype(visible.dtype), (batch, restore.shape[1] - kept, dim))
    return jnp.take_along_axis(jnp.concatenate([visible, hidden], axis=1), restore[:, :, None], axis=1)
