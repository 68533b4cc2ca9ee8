"""A pretrained encoder out of a run's folder."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssljax.build import Run, modality_of, open_run
from ssljax.modalities import Modality
from ssljax.typing import TrainState


def load(run: str | Path, step: int | None = None) -> "Encoder":
    """The encoder of a run's folder: of its newest checkpoint, or of that of `step`.

        encoder = ssljax.load("runs/quickstart")
        features = encoder(images)  # uint8 (n, height, width, 3), or grey (n, height, width) -> float32 (n, dim)

    Raises ValueError if the folder holds no run, CheckpointError if it has no checkpoint that can be read.
    """
    config, built, state = open_run(Path(run), step)
    return Encoder(built, state, modality_of(config))


class Encoder:
    """Examples in, features out: float32 (n, dim), un-augmented and in evaluation mode."""

    def __init__(self, run: Run, state: TrainState, modality: Modality):
        self.method, self.state, self.modality = run.method, state, modality
        self._features = partial(jax.jit(run.method.features), state)

    def __call__(self, inputs: Any) -> np.ndarray:
        """What the examples must be, the modality says (`as_batch`); all go through at once.

        Raises ValueError for other shapes, types and ranges.
        """
        return np.asarray(self._features(self.modality.as_batch(inputs)))
