"""Random masks of static shape, made on the device from one key for each example.

MAE hides the same number of tokens in every example; where the number varies, a mask is (batch, tokens), true where a
token is hidden, and `pad_masked` gives the hidden tokens a fixed number of slots.
"""

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

    @property
    def hide(self) -> Array:
        """(batch, tokens - kept): indexes of the hidden tokens, in the order that `restore` puts them back from."""
        return jnp.argsort(self.restore, axis=1)[:, self.keep.shape[1] :]


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


def tube_mask(keys: Array, slots: int, patches: int, ratio: float = 0.9) -> Mask:
    """VideoMAE's mask of a video's slots * patches tokens: int(ratio * patches) patches, chosen uniformly, are hidden
    in every slot of time, so that none can be copied from another moment. Kept and hidden tokens are in ascending
    order; slots come one after the other.

    Raises ValueError unless at least one patch is kept and one hidden.
    """
    hidden = mask_from_noise(uniform(keys, shape=(patches,)), patches - int(ratio * patches)).hidden
    return mask_from_noise(jnp.tile(hidden, (1, slots)), slots * (patches - int(ratio * patches)))


def unshuffle(visible: Array, filler: Array, restore: Array) -> Array:
    """Put tokens back in their places: visible (batch, kept, dim), `filler` (dim,) where tokens were hidden."""
    batch, kept, dim = visible.shape
    hidden = jnp.broadcast_to(filler.astype(visible.dtype), (batch, restore.shape[1] - kept, dim))
    return jnp.take_along_axis(jnp.concatenate([visible, hidden], axis=1), restore[:, :, None], axis=1)


def random_mask(keys: Array, tokens: int, hidden: Array | float) -> Array:
    """(batch, tokens) bool: `hidden` tokens, a number or one for each example, rounded down, chosen uniformly."""
    order = jnp.argsort(uniform(keys, shape=(tokens,)), axis=1)
    return jnp.argsort(order, axis=1) < jnp.floor(jnp.broadcast_to(hidden, keys.shape))[:, None]


def pad_masked(mask: Array, slots: int, *, together: bool = False) -> tuple[Array, Array]:
    """The hidden tokens of a mask (batch, tokens) in a fixed number of slots: their indexes, and weights.

    A weight is 1 / (number of tokens hidden in this example), and 0 in slots that are left over, whose index is that of
    a token that is not hidden: `(weight * loss[index]).sum() / batch` is DINOv2's mean over examples of means over
    hidden tokens, whatever the number of slots. What does not fit is left out: the tokens that come last.

    together: the batch shares its slots, and index and weight (slots,) are of the tokens laid out as (batch * tokens,);
    else each example has its own, (batch, slots). Raises ValueError if there are more slots than tokens.
    """
    weight = mask / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
    if together:
        mask, weight = mask.reshape(-1), weight.reshape(-1)
    if not 0 < slots <= mask.shape[-1]:
        raise ValueError(f"{slots} slots cannot hold the hidden ones of {mask.shape[-1]} tokens: use 1 to that many.")
    index = jnp.argsort(~mask.astype(bool), axis=-1)[..., :slots]
    return index, jnp.take_along_axis(weight, index, axis=-1)
