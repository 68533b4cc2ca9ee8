"""Images of any size, in three channels."""

import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ssljax.data.canvas import OnCanvas, canvas_shapes
from ssljax.data.images import image_shapes
from ssljax.data.sources import Shapes, Source, open_source, split_spec
from ssljax.evals.features import raw_pixels
from ssljax.fields import set_fields
from ssljax.typing import Array, Batch
from ssljax.views.images import Augment, center_view
from ssljax.views.recipes import RECIPES, make_views


class Images:
    recipes, view_fields, raw = RECIPES, Augment, "raw pixels"

    def data_fields(self) -> dict[str, Any]:
        return {"canvas": 0}  # the square that images of varying size are resized to first; 0: twice the views' size

    def make_views(self, name: str, **fields) -> tuple[Augment, ...]:
        return make_views(name, **fields)

    def open(self, config: ConfigDict, split: str) -> Source:
        source = open_source(config.data.source, config.data[f"{split}_split"])
        side = self.canvas(config, source.shapes)
        return source if side is None else OnCanvas(source, side)

    def canvas(self, config: ConfigDict, shapes: Shapes | None) -> int | None:
        """The side of the square that images are resized to on the host; None where all have the same `shapes`."""
        if config.data.canvas < 0:
            raise ValueError(
                f"--config.data.canvas={config.data.canvas} must be a side in pixels, or 0 for twice the views' size."
            )
        if config.data.canvas or shapes is None:
            return config.data.canvas or 2 * self._side(config)
        return None

    def settle(self, config: ConfigDict, source: Source) -> None:
        kind, _, where = config.data.source.partition(":")
        if kind in ("folder", "npz"):
            config.data.source = f"{kind}:{Path(where).expanduser().absolute()}"

    def shapes(self, config: ConfigDict) -> Shapes:
        return image_shapes(self._side(config), self._side(config))

    def stand_in(self, config: ConfigDict) -> tuple[Shapes, str]:
        """Of the views' size for arrays, a canvas for files of images."""
        (kind, _), side = split_spec(config.data.source), self._side(config)
        size = {"npz": (side, side), "tfds": _tfds_size(config, side)}.get(kind)
        shapes = None if size is None else image_shapes(*size)
        canvas = self.canvas(config, shapes)
        shapes = canvas_shapes(canvas) if canvas is not None else shapes or {}
        height, width, _ = shapes["image"][0]
        return shapes, f"images are taken to arrive with {height} x {width} pixels"

    def as_batch(self, inputs: Any) -> Batch:
        """Of images (n, height, width, 3), or grey ones (n, height, width) or (n, height, width, 1), whose channel is
        repeated as it is in training: uint8, or floats in [0, 1]."""
        images, shape = inputs, np.shape(inputs)
        # Three numbers of which the last is 3 are one image in colour, and not grey images that are 3 pixels wide.
        if len(shape) == 3 and shape[-1] != 3:
            images = np.asarray(images)[..., None]
        if np.ndim(images) != 4 or np.shape(images)[-1] not in (1, 3):
            raise ValueError(f"images {shape} must be (n, height, width, 3), or grey (n, height, width).")
        images = np.broadcast_to(images, (*np.shape(images)[:3], 3))
        kind, low, high = np.asarray(images).dtype, np.min(images), np.max(images)
        if kind != np.uint8 and not (np.issubdtype(kind, np.floating) and 0 <= low and high <= 1):
            raise ValueError(f"images must be uint8, or floats in [0, 1], but are {kind} from {low} to {high}.")
        return {"image": jnp.asarray(images)}

    def floor(self, batch: Batch) -> Array:
        return raw_pixels(batch)

    def pictures(self, shown: Array) -> np.ndarray:
        return np.asarray(shown)

    def thumbnails(self, batch: Batch, side: int) -> Array:
        return center_view(batch, size=side, fraction=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def _side(self, config: ConfigDict) -> int:
        return make_views(**set_fields(config.views))[0].size


def _tfds_size(config: ConfigDict, side: int) -> tuple[int, int] | None:
    """Height and width of a TFDS set's images, which its builder knows without data; of the views where it does not."""
    import tensorflow_datasets as tfds

    name = re.sub(r":(?!\d+\.)", "/", config.data.source.partition(":")[2])
    try:
        height, width, _ = tfds.builder(name).info.features["image"].shape
    except (ValueError, KeyError, ImportError):
        return side, side
    return (height, width) if height and width else None
