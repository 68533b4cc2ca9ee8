"""Features of a whole split, in host memory."""

from collections.abc import Callable, Iterable

import jax.numpy as jnp
import numpy as np

from ssljax.typing import Array


def extract(
    features: Callable[[dict[str, np.ndarray]], tuple[np.ndarray, np.ndarray, np.ndarray]],
    batches: Iterable[dict[str, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Features (examples, dim) float32 and labels (examples,) of a split, without the rows that `mask` hides.

    Where an example has many things to be judged, (things, dim) with labels (things,), these come one after the other,
    without those of no label (-1).

    features: gives the features, labels and mask of a batch (`ssljax.engine.mesh.over_devices`); where several
    processes make a part of each batch, all its rows.
    """
    parts = [(rows[mask], labels[mask]) for rows, labels, mask in map(features, batches)]
    rows, labels = np.concatenate([x for x, _ in parts]).astype(np.float32), np.concatenate([y for _, y in parts])
    return (rows, labels) if labels.ndim == 1 else (rows[labels >= 0], labels[labels >= 0])


def labelled(labels: np.ndarray) -> np.ndarray:
    """Which examples can be judged, bool (examples,): those with a label; all where none has one, or each has many."""
    has = labels >= 0 if labels.ndim == 1 else np.ones(len(labels), bool)
    return has if has.any() else ~has


def raw_pixels(batch: dict[str, Array], side: int = 32) -> Array:
    """The floor that needs no encoder: the pixels, black -0.5 and white 0.5, of images averaged down to about `side`
    pixels. Of numbers that are all positive a cosine would see little but that they are."""
    return block_means(batch, side) - 0.5


def block_means(batch: dict[str, Array], side: int = 32) -> Array:
    """The pixels, in [0, 1], of images averaged down to about `side` pixels, as rows."""
    images = jnp.asarray(batch["image"], jnp.float32) / 255.0
    n, height, width, channels = images.shape
    block_y, block_x = max(1, height // side), max(1, width // side)
    images = images[:, : height // block_y * block_y, : width // block_x * block_x]
    blocks = images.reshape(n, height // block_y, block_y, width // block_x, block_x, channels)
    return blocks.mean(axis=(2, 4)).reshape(n, -1)


def colour_histogram(batch: dict[str, Array], bins: int = 4) -> Array:
    """Which share of an image's pixels has which colour, of bins³: (batch, bins³); √, as shares are skewed."""
    images = jnp.asarray(batch["image"], jnp.float32) / 255.0
    place = jnp.minimum((images * bins).astype(jnp.int32), bins - 1) @ jnp.array([bins * bins, bins, 1])
    shares = jnp.stack([(place == k).mean(axis=(1, 2)) for k in range(bins**3)], axis=1)
    return jnp.sqrt(shares)
