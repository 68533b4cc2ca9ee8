"""Images that lie as files, or as the bytes of files."""

import abc

import numpy as np

from ssljax.data.images import decode, decode_resized
from ssljax.data.sources import Example, Source


class EncodedSource(Source):
    """Images of which a source knows the bytes, and their labels if it has some."""

    things = "images"

    @abc.abstractmethod
    def _encoded(self, index: int) -> tuple[bytes, Example]:
        """The bytes of example ``index``, and what else it holds."""

    def _load(self, index: int) -> Example:
        data, rest = self._encoded(index)
        return {"image": decode(data)} | rest

    def load_resized(self, index: int, side: int) -> Example:
        """Example ``index`` with its image resized to (side, side) and its ``size`` before: `ssljax.data.canvas`."""
        data, rest = self._encoded(index)
        image, size = decode_resized(data, side)
        return {"image": image, "size": np.array(size, np.int32)} | rest
