"""Features of a whole split, in host memory."""

from collections.abc import Callable, Iterable

import jax
import numpy as np

from ssljax.typing import Array


def extract(
    features: Callable[[dict[str, np.ndarray]], Array], batches: Iterable[dict[str, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Features (examples, dim) float32 and labels (examples,) of padded batches, without the rows that `mask` hides."""
    rows, labels = [], []
    for batch in batches:
        mask, label = batch.pop("mask"), batch.pop("label")
        rows.append(jax.device_get(features(batch))[mask])
        labels.append(label[mask])
    return np.concatenate(rows).astype(np.float32), np.concatenate(labels)


def raw_pixels(batch: dict[str, np.ndarray], side: int = 32) -> np.ndarray:
    """The floor that needs no encoder: the pixels, in [0, 1], of images averaged down to about `side` pixels."""
    images = np.asarray(batch["image"], np.float32) / 255.0
    n, height, width, channels = images.shape
    block_y, block_x = max(1, height // side), max(1, width // side)
    images = images[:, : height // block_y * block_y, : width // block_x * block_x]
    blocks = images.reshape(n, height // block_y, block_y, width // block_x, block_x, channels)
    return blocks.mean(axis=(2, 4)).reshape(n, -1)
