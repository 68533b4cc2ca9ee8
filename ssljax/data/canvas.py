"""Images of varying size, made one size on the host."""

import numpy as np

from ssljax.data.encoded import EncodedSource
from ssljax.data.images import image_shapes, resize
from ssljax.data.sources import Example, Shapes, Source
from ssljax.data.subset import Part


def canvas_shapes(side: int) -> Shapes:
    """Of images that lie on a canvas."""
    return image_shapes(side, side) | {"size": ((2,), np.int32)}


class OnCanvas(Part):
    """The images of a source, each resized whole to (side, side), without keeping its aspect.

    Examples also hold ``size``, int32 (2,): the height and width that the image had in its file. The device makes every
    random crop at this fixed shape, from boxes drawn in those pixels. others: shapes of what examples hold besides.
    """

    def __init__(self, source: Source, side: int, others: Shapes | None = None):
        super().__init__(source, np.arange(len(source)))
        self.shapes = (others or {}) | canvas_shapes(side)
        self.in_memory = False  # there is work for threads
        self._side = side

    def gap(self) -> Example:
        """An image of one pixel, for one of none can't be cropped."""
        return Source.gap(self) | {"size": np.ones(2, np.int32)}

    def _load(self, index: int) -> Example:
        if isinstance(self._source, EncodedSource):
            return self._source.load_resized(index, self._side)
        return self._resized(super()._load(index))

    def _sample(self, index: int, rng: np.random.Generator) -> Example:
        return self._resized(super()._sample(index, rng))

    def _resized(self, example: Example) -> Example:
        image = example["image"]
        return example | {"image": resize(image, self._side), "size": np.array(image.shape[:2], np.int32)}
