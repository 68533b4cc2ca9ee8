"""Parts of a source."""

from collections.abc import Collection

import numpy as np

from ssljax.data.sources import Example, Source


class Part(Source):
    """The examples at some places of a source."""

    def __init__(self, source: Source, places: np.ndarray):
        super().__init__(
            source.name, has_labels=source.has_labels, class_names=source.class_names, shapes=source.shapes
        )
        self.in_memory, self.things = source.in_memory, source.things
        self.drawn, self.skipped, self.left_out = source.drawn, source.skipped, source.left_out
        self._source = source
        self._places = places

    def labels(self) -> np.ndarray:
        return self._source.labels()[self._places]

    def samples(
        self, names: Collection[str], indices: np.ndarray, places: np.ndarray, key: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        if self.in_memory:  # and so none is undecodable
            return self._source.samples(names, self._places[indices], places, key)
        return super().samples(names, indices, places, key)

    def _sample(self, index: int, rng: np.random.Generator) -> Example:
        return self._source._sample(int(self._places[index]), rng)

    def gap(self) -> Example:
        return self._source.gap()

    def __len__(self) -> int:
        return len(self._places)

    def _where(self, index: int) -> str:
        return self._source._where(int(self._places[index]))

    def text(self, index: int) -> str:
        return self._source.text(int(self._places[index]))

    def _load(self, index: int) -> Example:
        return self._source._load(int(self._places[index]))


class Subset(Part):
    """At most `size` examples in a random order that the seed gives, after the first `skip` of that order."""

    def __init__(self, source: Source, size: int, *, skip: int = 0, seed: int = 0):
        super().__init__(source, np.random.default_rng(seed).permutation(len(source))[skip : skip + size])


class Share(Part):
    """A share of each class, and one example at least; which ones, the seed says.

    Raises ValueError if the share is not in (0, 1], DataError if the examples have no labels.
    """

    def __init__(self, source: Source, share: float, *, seed: int = 0):
        if not 0 < share <= 1:
            raise ValueError(f"--config.data.labelled={share} must be a share of the examples in (0, 1].")
        labels = source.labels()
        order = np.random.default_rng(seed).permutation(len(labels))
        places: list[int] = []
        for label in np.unique(labels[labels >= 0]):
            members = order[labels[order] == label]
            places += members[: max(1, round(share * len(members)))].tolist()
        super().__init__(source, np.sort(np.array(places)))
