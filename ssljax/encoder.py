"""A pretrained encoder, out of a run's folder or out of a file."""

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssljax.build import Run, modality_of, open_run
from ssljax.modalities import Modality
from ssljax.modalities.image_text import ImageText, has_texts
from ssljax.pretrained import PretrainedEncoder
from ssljax.typing import Array, Batch, TrainState
from ssljax.weights.files import is_weights


def load(path: str | Path, step: int | None = None, architecture: str | None = None) -> "Encoder | PretrainedEncoder":
    """The encoder of a run's folder, of its newest checkpoint or of that of `step`; or of a safetensors file, or a
    folder with one and its config.json, of timm, Hugging Face or `ssljax.export`.

        encoder = ssljax.load("runs/quickstart")
        features = encoder(images)  # uint8 (n, height, width, 3) -> float32 (n, dim)

    A run's encoder takes examples of the kind that it was trained on (that of a file: see `PretrainedEncoder`):

        images    (n, height, width, 3), or grey (n, height, width): uint8, or floats in [0, 1]
        video     (n, frames, height, width, 3), with as many frames as in training: the same
        speech    a list of clips (samples,), at the rate that was trained at: whole numbers, or floats in [-1, 1]
        series    a list of series (time, channels), with numbers as in the data; NaN where there is no number
        text      a list of strings
        tables    columns by their names, in a dictionary, a pandas.DataFrame or a pyarrow.Table; None is a gap
        graphs    a list of dictionaries of `features` (nodes, dim) and `edges` (2, edges)
        nodes     one such dictionary -> (1, nodes, dim)

    Of a run on images with texts the encoder is that of images; its `embed` takes texts, too.

    architecture: of a file without config.json; see `ssljax.weights.files.load`.

    Raises ValueError if the folder holds neither, or the file another architecture, CheckpointError if a run has no
    checkpoint that can be read.
    """
    path = Path(path).expanduser()
    if architecture is not None or is_weights(path):
        if step is not None:
            raise ValueError(f"step={step} is of a run, but {path} holds weights: leave it out.")
        return PretrainedEncoder.of(path, architecture)
    if path.suffix == ".onnx" or (path / "model.onnx").exists():
        raise ValueError(f"{path} holds a graph for ONNX Runtime: onnxruntime.InferenceSession reads it, not this.")
    if not (path / "config.json").exists():
        wrong = "holds no run and no weights" if path.exists() else "is not there"
        raise ValueError(
            f"{path} {wrong}: give the folder of a run, a safetensors file, or a folder with one and its config.json."
        )
    config, built, state = open_run(path, step)
    return Encoder(built, state, modality_of(config))


class Encoder:
    """Examples in, features out: float32 (n, dim), un-augmented and in evaluation mode."""

    def __init__(self, run: Run, state: TrainState, modality: Modality):
        self.method: Any = run.method
        self.state, self.modality = state, modality
        self._features = partial(jax.jit(run.method.features), state)

    def __repr__(self) -> str:
        of, step = type(self.method.encoder).__name__, int(self.state.step)
        return f"<{of} of {type(self.method).__name__}, step {step}, which takes {self.method.modality}>"

    def __call__(self, inputs: Any) -> np.ndarray:
        """Of examples as `load` lists them for each kind of data; all go through at once.

        Raises ValueError for other shapes, types and ranges.
        """
        return np.asarray(self._features(self.modality.as_batch(inputs)))

    def embed(self, inputs: Any) -> np.ndarray:
        """Of a run of CLIP or SigLIP: images, or texts in a list of strings, in the space where training compares both;
        float32 (n, dim), of length 1, so that a product is a cosine.

        Raises ValueError for an encoder that has no such space, and as a call does.
        """
        if not isinstance(self.modality, ImageText):
            raise ValueError("only runs on images with texts have a space for both: call the encoder itself.")
        if not has_texts(inputs):
            return np.asarray(self._embed_images(self.modality.as_batch(inputs)))
        if isinstance(inputs, str) or not all(isinstance(text, str) and text for text in inputs):
            raise ValueError("texts must be a list of strings, none of them empty.")
        return np.asarray(self._embed_texts(self.modality.token_ids(inputs)))

    @cached_property
    def _embed_images(self) -> Callable[[Batch], Array]:
        return partial(jax.jit(self.method.embed_images), self.state)

    @cached_property
    def _embed_texts(self) -> Callable[[np.ndarray], Array]:
        return partial(jax.jit(self.method.embed_texts), self.state)
