"""A random part of a source."""

import numpy as np

from ssljax.data.sources import Example, Source


class Subset(Source):
    """At most `size` examples in a random order that the seed gives, after the first `skip` of that order."""

    def __init__(self, source: Source, size: int, *, skip: int = 0, seed: int = 0):
        super().__init__(
            source.name, has_labels=source.has_labels, class_names=source.class_names, image_shape=source.image_shape
        )
        self.in_memory = source.in_memory
        self.skipped = source.skipped
        self._source = source
        self._places = np.random.default_rng(seed).permutation(len(source))[skip : skip + size]

    def __len__(self) -> int:
        return len(self._places)

    def _where(self, index: int) -> str:
        return self._source._where(int(self._places[index]))

    def _load(self, index: int) -> Example:
        return self._source._load(int(self._places[index]))
