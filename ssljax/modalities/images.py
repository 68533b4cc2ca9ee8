"""Images of any size, in three channels."""

import re
from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from ssljax.data.canvas import OnCanvas, canvas_shapes
from ssljax.data.images import image_shapes
from ssljax.data.sources import DataError, Shapes, Source, open_source, split_spec
from ssljax.evals.features import raw_pixels
from ssljax.fields import set_fields
from ssljax.modalities.modality import Modality
from ssljax.typing import Array, Batch
from ssljax.views.images import Augment, center_view
from ssljax.views.recipes import RECIPES, make_views


class Images(Modality):
    protocols: ClassVar[tuple[str, ...]] = ("knn", "linear")
    data_fields = {
        "canvas": 0,  # images of varying size are resized to this square first; 0: twice the views' size
    }
    view_fields = {**RECIPES, "all": Augment}

    def views(self) -> tuple[Augment, ...]:
        return make_views(**set_fields(self.config.views))

    def open(self, split: str) -> Source:
        source = open_source(self.data.source, self.data[f"{split}_split"])
        side = self._canvas(source.shapes)
        return source if side is None else OnCanvas(source, side)

    def shapes(self) -> Shapes:
        side = self.views()[0].size
        return image_shapes(side, side)

    def stand_in(self, wrong: DataError) -> tuple[Shapes, str]:
        """Of the views' size for arrays, a canvas for files of images."""
        (kind, where), side = split_spec(self.data.source), self.views()[0].size
        size = {"npz": (side, side), "tfds": _tfds_size(where, side)}.get(kind)
        shapes = None if size is None else image_shapes(*size)
        canvas = self._canvas(shapes)
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
        if np.ndim(images) != 4 or np.shape(images)[-1] not in (1, 3) or not np.size(images):
            raise ValueError(f"images {shape} must be (n, height, width, 3), or grey (n, height, width), not empty.")
        images = np.broadcast_to(images, (*np.shape(images)[:3], 3))
        kind, low, high = np.asarray(images).dtype, np.min(images), np.max(images)
        if kind != np.uint8 and not (np.issubdtype(kind, np.floating) and 0 <= low and high <= 1):
            raise ValueError(f"images must be uint8, or floats in [0, 1], but are {kind} from {low} to {high}.")
        return {"image": jnp.asarray(images)}

    def floors(self) -> dict[str, Callable[[Batch], Array]]:
        return {"raw pixels": raw_pixels}

    def pictures(self, shown: Array) -> np.ndarray:
        return np.asarray(shown)

    def thumbnails(self, batch: Batch, side: int) -> Array:
        return center_view(batch, size=side, fraction=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def _canvas(self, shapes: Shapes | None) -> int | None:
        """The side of the square that images are resized to on the host; None where all have the same `shapes`."""
        if self.data.canvas < 0:
            raise ValueError(
                f"--config.data.canvas={self.data.canvas} must be a side in pixels, or 0 for twice the views' size."
            )
        if self.data.canvas or shapes is None:
            return self.data.canvas or 2 * self.views()[0].size
        return None


def _tfds_size(dataset: str, side: int) -> tuple[int, int] | None:
    """Height and width of a TFDS set's images, which its builder knows without data; of the views where it does not."""
    import tensorflow_datasets as tfds

    name = re.sub(r":(?!\d+\.)", "/", dataset)
    try:
        height, width, _ = tfds.builder(name).info.features["image"].shape
    except (ValueError, KeyError, ImportError):
        return side, side
    return (height, width) if height and width else None
