"""A pretrained encoder, out of a run's folder or out of a file."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssljax.build import Run, modality_of, open_run
from ssljax.modalities import Modality
from ssljax.pretrained import PretrainedEncoder
from ssljax.typing import TrainState
from ssljax.weights.files import is_weights


def load(path: str | Path, step: int | None = None, architecture: str | None = None) -> "Encoder | PretrainedEncoder":
    """The encoder of a run's folder, of its newest checkpoint or of that of `step`; or of a safetensors file, or a
    folder with one and its config.json, of timm, Hugging Face or `ssljax.export`.

        encoder = ssljax.load("runs/quickstart")
        features = encoder(images)  # uint8 (n, height, width, 3), or grey (n, height, width) -> float32 (n, dim)

    architecture: of a file without config.json; see `ssljax.weights.files.load`.

    Raises ValueError if the folder holds neither, or the file another architecture, CheckpointError if a run has no
    checkpoint that can be read.
    """
    path = Path(path).expanduser()
    if architecture is not None or is_weights(path):
        if step is not None:
            raise ValueError(f"step={step} is of a run, but {path} holds weights: leave it out.")
        return PretrainedEncoder.of(path, architecture)
    config, built, state = open_run(path, step)
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
