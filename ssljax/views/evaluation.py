"""What evaluation sees of images, where it is more than the central view: random crops, and masks beside the view."""

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.typing import Array, Batch
from ssljax.views.images import Augment, center_view

CHUNK = 256
"""Masks that are resized at once."""


@jax.jit
def cropped(keys: Array, batch: Batch) -> Batch:
    """Square images that are a random part of each, of 8 to 100 % of its area, mirrored or not: what supervised
    training sees. keys: (batch,)."""
    side = min(batch["image"].shape[1:3])
    found = {"image": Augment(side)(keys, batch)}
    return found | ({"size": jnp.full((len(keys), 2), side)} if "size" in batch else {})


def masks_in_view(masks: np.ndarray, side: int, fraction: float) -> np.ndarray:
    """Masks (images, height, width) as an encoder's view of their images shows them: (images, side, side)."""
    view = jax.jit(lambda x: center_view({"image": x}, side, fraction, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))[..., 0])
    classes = np.unique(masks)
    parts = [
        np.stack([view(np.repeat(part[..., None] == c, 3, axis=-1).astype(np.float32)) for c in classes])
        for part in np.array_split(masks, -(-len(masks) // CHUNK))
    ]
    return classes[np.concatenate([part.argmax(axis=0) for part in parts])]
