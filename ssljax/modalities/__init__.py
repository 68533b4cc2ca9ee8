"""Kinds of data. A method says which it is for, and the commands take from here what they must know of it."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from ml_collections import ConfigDict

from ssljax.data.sources import Shapes, Source
from ssljax.modalities.images import Images
from ssljax.typing import Array, Batch


class Modality(Protocol):
    """A kind of data: where it comes from, what a method sees of it, what it is worth without an encoder, and how it
    is shown."""

    @property
    def recipes(self) -> Mapping[str, Callable]:
        """Views, by the names that configs use; each may be given the fields of `view_fields` besides its own."""

    @property
    def view_fields(self) -> Callable:
        """What has, as parameters, the fields that all views have."""

    @property
    def raw(self) -> str:
        """What `floor` gives, in words."""

    def data_fields(self) -> dict[str, Any]:
        """Fields of `config.data` that only it has, with their defaults."""

    def make_views(self, name: str, **fields) -> Any:
        """What the methods take as `augmentations`. Raises ValueError that lists what there is."""

    def open(self, config: ConfigDict, split: str) -> Source:
        """The `train` or `test` split, its examples all of one shape where that can be had.

        Raises DataError if it cannot be had, ValueError for fields that cannot be.
        """

    def settle(self, config: ConfigDict, source: Source) -> None:
        """Write into `config.data` what it leaves to the source and to the place it is used in."""

    def shapes(self, config: ConfigDict) -> Shapes:
        """Of an example that the encoder of such a run could see, from a config that is settled."""

    def stand_in(self, config: ConfigDict) -> tuple[Shapes, str]:
        """For data that is not there: shapes that its examples are taken to have, and that in words.

        Raises DataError if they cannot be told.
        """

    def as_batch(self, inputs: Any) -> Batch:
        """What a user gives to a loaded encoder, as a batch. Raises ValueError for what it cannot be."""

    def floor(self, batch: Batch) -> Array:
        """(batch, dim): what needs no encoder."""

    def pictures(self, shown: Any) -> np.ndarray:
        """What a method's `show` gives, as pictures (examples, columns, height, width, 3) in [0, 1]."""

    def thumbnails(self, batch: Batch, side: int) -> Array:
        """Pictures of the examples themselves, (batch, side, side, 3) in [0, 1]."""


MODALITIES: dict[str, Modality] = {"images": Images()}
