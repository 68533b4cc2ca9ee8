"""What a kind of data must say of itself."""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ssljax.data.sources import DataError, Shapes, Source, absolute
from ssljax.evals.scores import Score
from ssljax.typing import Array, Batch

Compute = Callable[[Callable[[Any, Batch], Array], Any, Source], tuple[np.ndarray, np.ndarray]]
"""`compute(f, state, source)`: rows of f(state, batch) for all examples of a source, float32, and their labels."""

INKS = np.array(
    [[0.0, 0.45, 0.7], [0.84, 0.37, 0.0], [0.0, 0.62, 0.45], [0.8, 0.47, 0.65], [0.34, 0.71, 0.91], [0.9, 0.62, 0.0]]
)
"""Of what is drawn in colours, in turn: six that the colour-blind can tell apart, too (Okabe and Ito, 2008)."""


class Judged(NamedTuple):
    """scores: {encoder or floor: {protocol: score}}; described: the protocols in words; pictures: for the report, by
    what they show, (queries, 1 + found, height, width, 3) uint8, the query first, and whose each is (queries, 1 +
    found)."""

    scores: dict[str, dict[str, Score]]
    described: dict[str, str]
    pictures: dict[str, tuple[np.ndarray, np.ndarray]]


class Modality(abc.ABC):
    """A kind of data, as the config of a run has it: where it comes from, what a method sees of it, what it is worth
    without an encoder, and how it is shown.

    Where an example has many things to be judged, such as the nodes of a graph, features are (batch, things, dim),
    labels (batch, things), and thumbnails (batch, things, side, side, 3).
    """

    protocols: ClassVar[tuple[str, ...]]
    """What an encoder is judged by if nobody says (`ssljax.evaluate`)."""
    own: ClassVar[Mapping[str, str]] = {}
    """Those of its protocols that only it has (`judge`), and what they are called."""
    encodes: ClassVar[str] = ""
    """The kind of data whose encoders its methods take; "": its own."""
    scaling: ClassVar[str] = "standard"
    """Of features for linear probes (`ssljax.evals.linear`)."""
    classifiers: ClassVar[Mapping[str, Callable[..., Score]]] = {}
    """Floors that learn from the first of the `floors`, with the arguments of `ssljax.evals.columns`."""
    folds: ClassVar[int] = 0
    """If not 0 and both splits are the same, it is judged by so many folds of cross-validation."""
    data_fields: ClassVar[Mapping[str, Any]]
    """Fields of `config.data` that only it has, with their defaults."""
    view_fields: ClassVar[Mapping[str, Callable]]
    """What has, as parameters, the fields of `config.views`."""

    def __init__(self, config: ConfigDict):
        self.config, self.data = config, config.data

    def views(self) -> Any:
        """What methods take as `augmentations`; a kind of data whose methods corrupt it themselves has none.

        Raises ValueError that lists what there is.
        """
        if self.config.views.name:
            raise ValueError(
                f"--config.views.name={self.config.views.name} has no meaning for method '{self.config.method.name}', "
                "whose fields say how it corrupts its data: leave it empty."
            )
        return ()

    def encoder_fields(self) -> dict[str, Any]:
        """What encoders must know of the data. Raises ValueError where the config is not settled."""
        return {}

    @abc.abstractmethod
    def open(self, split: str) -> Source:
        """The `train` or `test` split, its examples all of one shape where that can be had.

        Raises DataError if it cannot be had, ValueError for fields that cannot be.
        """

    def judged_by(self, split: str) -> Source | None:
        """Other data that features are judged by; None: the same. Raises as `open`."""
        return None

    def on_other_data(self, source: str) -> ConfigDict:
        """The same run's config with another source to judge by, its splits `train` and `test`. Raises DataError where
        an encoder is of no other data than it was trained on."""
        config = ConfigDict(self.config.to_dict())
        config.data.update(source=source, train_split="train", test_split="test")
        return config

    def objective_floors(self, train: Source, test: Source) -> dict[str, dict[str, float]]:
        """What needs no network reaches on the test split, by its name: some of the numbers of `Method.measure`."""
        return {}

    def settle(self) -> None:
        """Write into `config.data` what it leaves to the source and to the place it is used in: where the source is."""
        self.data.source = absolute(self.data.source)

    @abc.abstractmethod
    def shapes(self) -> Shapes:
        """Of a training example that such an encoder could see, from a config that is settled."""

    @abc.abstractmethod
    def stand_in(self, wrong: DataError) -> tuple[Shapes, str]:
        """For data that cannot be had: shapes that its examples are taken to have, and that in words.

        wrong: why not. Raises DataError if they cannot be told.
        """

    @abc.abstractmethod
    def as_batch(self, inputs: Any) -> Batch:
        """What a user gives to a loaded encoder, as a batch. Raises ValueError for what it cannot be."""

    @abc.abstractmethod
    def floors(self) -> dict[str, Callable[[Batch], Array]]:
        """What needs no encoder, by its name: features (batch, dim) of a batch."""

    def judge(self, method: Any, states: Mapping[str, Any], compute: Compute, protocols: Sequence[str]) -> Judged:
        """By its own `protocols`, which may do without labels: a method with the states "pretrained" and "random init",
        and floors. Raises DataError if there is no test split."""
        return Judged({}, {}, {})

    @abc.abstractmethod
    def pictures(self, shown: Any) -> np.ndarray:
        """What a method's `show` gives, as pictures (examples, columns, height, width, 3) in [0, 1]."""

    @abc.abstractmethod
    def thumbnails(self, batch: Batch, side: int) -> Array:
        """Pictures of the examples themselves, (batch, side, side, 3) in [0, 1]."""
