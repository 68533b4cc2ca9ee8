"""Losses of methods for tables."""

import jax.numpy as jnp
import optax

from ssljax.typing import Array


def vime(mask_logits: Array, mask: Array, reconstruction: Array, target: Array, alpha: float = 2.0) -> Array:
    """VIME's two pretext tasks: which values were replaced, and what stood there.

        L = mean binary cross-entropy(mask, σ(mask_logits)) + α · mean (reconstruction - target)²

    Args:
      mask_logits, mask: (batch, columns); mask is 1 where a value is another than it was.
      reconstruction, target: (batch, dim), of all values, replaced or not.
      alpha: weight of the reconstruction.

    Returns: a float32 scalar; the mean over shards is the loss of the whole batch.

    Raises: ValueError if the shapes do not fit.

    Yoon et al., "VIME: Extending the Success of Self- and Semi-supervised Learning to Tabular Domain", 2020, equations
    4 to 6.
    """
    arrays = [jnp.asarray(x, jnp.float32) for x in (mask_logits, mask, reconstruction, target)]
    logits, mask, reconstruction, target = arrays
    if logits.ndim != 2 or logits.shape != mask.shape:
        raise ValueError(f"mask_logits {logits.shape} and mask {mask.shape} must both be (batch, columns).")
    if target.ndim != 2 or reconstruction.shape != target.shape or len(target) != len(mask):
        raise ValueError(
            f"reconstruction {reconstruction.shape} and target {target.shape} must both be (batch, dim), with the "
            f"{len(mask)} rows of mask {mask.shape}."
        )
    return optax.sigmoid_binary_cross_entropy(logits, mask).mean() + alpha * jnp.square(reconstruction - target).mean()
