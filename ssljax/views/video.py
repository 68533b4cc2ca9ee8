"""Crops of clips: all frames of a clip are cropped alike."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.typing import Array, Batch
from ssljax.views.images import as_float, crop_and_resize, normalize, on_canvas, unnormalize
from ssljax.views.recipes import IMAGENET_MEAN, IMAGENET_STD

PLACES = np.array([(y, x) for y in range(5) for x in range(5) if (y % 2, x % 2) in ((0, 0), (1, 1))]) / 4
"""Where a crop may lie, as parts of the room that is left: the corners, the centre, and between them; thirteen."""


@dataclass(frozen=True)
class MultiScaleCrop:
    """VideoMAE's only augmentation (it does not flip, for left and right may be the class).

    A crop's height and width are two of `scales` times the short side, which are neighbours or the same; it lies at one
    of 13 `PLACES`, and is resized to (size, size). Pixels stay in [0, 1]: mean and std are for `normalize`.

    Wang et al., "Temporal Segment Networks", 2016, section 3.3; Tong et al., 2022.
    """

    size: int = 224
    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self):
        if self.size < 1 or not self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise ValueError(
                f"--config.views.size={self.size} must be at least 1, and scales={self.scales} parts above 0 and at "
                "most 1."
            )

    def __call__(self, keys: Array, batch: Batch) -> Array:
        """keys (batch,), `video` (batch, frames, height, width, 3) and maybe `size` (batch, 2), the original ones ->
        (batch, frames, size, size, 3) in [0, 1]."""
        pairs = [(a, b) for i, a in enumerate(self.scales) for j, b in enumerate(self.scales) if abs(i - j) <= 1]

        def part(key: Array) -> tuple[Array, Array]:
            scale_key, place_key = jax.random.split(key)
            return jax.random.choice(scale_key, jnp.array(pairs)), jax.random.choice(place_key, jnp.array(PLACES))

        scales, places = jax.vmap(part)(keys)
        return self._crop(batch, scales, places, "bilinear")

    def center(self, batch: Batch) -> Array:
        """For evaluation: the central square of the short side, of the same shape."""
        count = len(batch["video"])
        return self._crop(batch, jnp.ones((count, 2)), jnp.full((count, 2), 0.5), "bicubic")

    def normalize(self, videos: Array) -> Array:
        return normalize(videos, self.mean, self.std)

    def unnormalize(self, videos: Array) -> Array:
        return unnormalize(videos, self.mean, self.std)

    def _crop(self, batch: Batch, scales: Array, places: Array, interpolation: str) -> Array:
        videos = as_float(batch["video"])
        count, frames, height, width, channels = videos.shape
        images = jnp.moveaxis(videos, 1, -2).reshape(count, height, width, frames * channels)
        sizes = jnp.asarray(batch.get("size", jnp.tile(jnp.array([height, width]), (count, 1))), jnp.float32)
        extent = jnp.floor(sizes.min(axis=1, keepdims=True) * scales)
        boxes = on_canvas(jnp.concatenate([(sizes - extent) * places, extent], axis=1), sizes, images)
        cropped = crop_and_resize(images, boxes, self.size, interpolation)
        return jnp.moveaxis(cropped.reshape(count, self.size, self.size, frames, channels), -2, 1)
