"""A pretrained encoder out of a run's folder."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssljax.build import Run, build_run
from ssljax.config import recall, set_fields
from ssljax.engine.checkpoint import CheckpointError, Checkpoints
from ssljax.engine.mesh import make_mesh, replicated
from ssljax.typing import TrainState
from ssljax.views.images import make_views


def load(run: str | Path, step: int | None = None) -> "Encoder":
    """The encoder of a run's folder: of its newest checkpoint, or of that of `step`.

        encoder = ssljax.load("runs/quickstart")
        features = encoder(images)  # uint8 (n, height, width, 3) -> float32 (n, dim)

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
        """images (n, height, width, 3): uint8, or floats in [0, 1]; all n go through at once.

        Raises ValueError for other shapes, types and ranges.
        """
        if np.ndim(images) != 4 or np.shape(images)[-1] != 3:
            raise ValueError(f"images {np.shape(images)} must be (n, height, width, 3).")
        kind, low, high = np.asarray(images).dtype, np.min(images), np.max(images)
        if kind != np.uint8 and not (np.issubdtype(kind, np.floating) and 0 <= low and high <= 1):
            raise ValueError(f"images must be uint8, or floats in [0, 1], but are {kind} from {low} to {high}.")
        return np.asarray(self._features({"image": jnp.asarray(images)}))


def open_run(workdir: Path, step: int | None = None, mesh: Mesh | None = None) -> tuple[ConfigDict, Run, TrainState]:
    """A run's config, what it is made of, and its newest state (or that of `step`), whole on each device of `mesh`.

    mesh: one device of this process if None; `Run` itself is always of one device.
    """
    config = recall(workdir)
    config.train.microbatch = 0  # of one device it would be another number, and evaluation does not train
    size = make_views(**set_fields(config.views))[0].size
    one_device = make_mesh(1, 1, jax.local_devices()[:1])
    example = {"image": jax.ShapeDtypeStruct((2, size, size, 3), jnp.uint8)}
    run = build_run(config, examples=config.batch_size, example=example, mesh=one_device, total=1)
    whole = replicated(mesh or one_device)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), run.abstract)
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    state = checkpoints.restore(abstract, step)
    checkpoints.close()
    if state is None:
        raise CheckpointError(f"{workdir} has no checkpoint yet; run ssljax.train with this --workdir first.")
    return config, run, state
