"""A part of a source, spread evenly over it."""

from ssljax.data.sources import Example, Source


class Subset(Source):
    """At most `size` examples at equal distances, so that a source that is sorted by class gives all its classes."""

    def __init__(self, source: Source, size: int):
        super().__init__(
            source.name, has_labels=source.has_labels, class_names=source.class_names, image_shape=source.image_shape
        )
        self.in_memory = source.in_memory
        self.skipped = source.skipped
        self._source = source
        self._size = min(size, len(source))

    def __len__(self) -> int:
        return self._size

    def _place(self, index: int) -> int:
        return index * len(self._source) // self._size

    def _where(self, index: int) -> str:
        return self._source._where(self._place(index))

    def _load(self, index: int) -> Example:
        return self._source._load(self._place(index))
