"""A pretrained encoder out of a run's folder."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.build import Run, open_run
from ssljax.typing import TrainState


def load(run: str | Path, step: int | None = None) -> "Encoder":
    """The encoder of a run's folder: of its newest checkpoint, or of that of `step`.

        encoder = ssljax.load("runs/quickstart")
        features = encoder(images)  # uint8 (n, height, width, 3), or grey (n, height, width) -> float32 (n, dim)

    Raises ValueError if the folder holds no run, CheckpointError if it has no checkpoint that can be read.
    """
    _, built, state = open_run(Path(run), step)
    return Encoder(built, state)


class Encoder:
    """Images in, features out: float32 (n, dim), un-augmented and in evaluation mode."""

    def __init__(self, run: Run, state: TrainState):
        self.method = run.method
        self.state = state
        self._features = partial(jax.jit(run.method.features), state)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """images (n, height, width, 3), or grey ones (n, height, width) or (n, height, width, 1), whose channel is
        repeated as it is in training: uint8, or floats in [0, 1]; all n go through at once.

        Raises ValueError for other shapes, types and ranges.
        """
        shape = np.shape(images)
        # Three numbers of which the last is 3 are one image in colour, and not grey images that are 3 pixels wide.
        if len(shape) == 3 and shape[-1] != 3:
            images = np.asarray(images)[..., None]
        if np.ndim(images) != 4 or np.shape(images)[-1] not in (1, 3):
            raise ValueError(f"images {shape} must be (n, height, width, 3), or grey (n, height, width).")
        images = np.broadcast_to(images, (*np.shape(images)[:3], 3))
        kind, low, high = np.asarray(images).dtype, np.min(images), np.max(images)
        if kind != np.uint8 and not (np.issubdtype(kind, np.floating) and 0 <= low and high <= 1):
            raise ValueError(f"images must be uint8, or floats in [0, 1], but are {kind} from {low} to {high}.")
        return np.asarray(self._features({"image": jnp.asarray(images)}))
