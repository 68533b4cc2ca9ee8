"""Clips of video."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.data.pans import video_shapes
from ssljax.data.sources import DataError, Shapes, Source, split_spec
from ssljax.data.video import FORMS, open_video
from ssljax.evals.features import block_means, raw_pixels
from ssljax.fields import set_fields
from ssljax.modalities.modality import Modality
from ssljax.typing import Array, Batch
from ssljax.views.video import MultiScaleCrop

RAW, MEAN = 8, 16
"""Sides, in pixels, that floors average frames down to."""


class Video(Modality):
    protocols = ("knn", "linear")
    data_fields = {
        "frames": 16,  # of a clip
        "stride": 4,  # how many frames of the video lie from one of the clip to the next
        "canvas": 0,  # frames are resized to this square on the host; 0: 10/7 of the views' size
        "clips": 1,  # how many of them each video gives, to training and to evaluation
    }
    view_fields = {"multi_scale": MultiScaleCrop}

    def views(self) -> MultiScaleCrop:
        fields = set_fields(self.config.views)
        if (name := fields.pop("name")) not in self.view_fields:
            raise ValueError(f"views '{name}' are unknown; use one of {', '.join(self.view_fields)}.")
        return MultiScaleCrop(**fields)

    def open(self, split: str) -> Source:
        fields = {name: self.data[name] for name in ("frames", "stride", "clips")}
        return open_video(self.data.source, self.data[f"{split}_split"], canvas=self._canvas(), **fields)

    def shapes(self) -> Shapes:
        return video_shapes(self.data.frames, self._canvas())

    def stand_in(self, wrong: DataError) -> tuple[Shapes, str]:
        split_spec(self.data.source, FORMS)
        return self.shapes(), f"clips of {self.data.frames} frames are taken to be there"

    def as_batch(self, inputs: Any) -> Batch:
        """Of clips (n, frames, height, width, 3), with as many frames as in training: uint8, or floats in [0, 1]."""
        shape = np.shape(inputs)
        if len(shape) != 5 or shape[1] != self.data.frames or shape[-1] != 3:
            raise ValueError(f"clips {shape} must be (n, {self.data.frames}, height, width, 3).")
        kind, low, high = np.asarray(inputs).dtype, np.min(inputs), np.max(inputs)
        if kind != np.uint8 and not (np.issubdtype(kind, np.floating) and 0 <= low and high <= 1):
            raise ValueError(f"clips must be uint8, or floats in [0, 1], but are {kind} from {low} to {high}.")
        return {"video": jnp.asarray(inputs)}

    def floors(self) -> dict[str, Callable[[Batch], Array]]:
        """The pixels of small frames, the mean over time of larger ones, and that of how much each pixel changes."""

        def raw(batch: Batch) -> Array:
            video = batch["video"]
            frames = raw_pixels({"image": video.reshape(-1, *video.shape[2:])}, RAW)
            return frames.reshape(len(video), -1)

        def mean(batch: Batch) -> Array:
            return raw_pixels({"image": jnp.asarray(batch["video"], jnp.float32).mean(axis=1)}, MEAN)

        def change(batch: Batch) -> Array:
            steps = jnp.abs(jnp.diff(jnp.asarray(batch["video"], jnp.float32), axis=1))
            return block_means({"image": steps.mean(axis=1)}, MEAN)

        return {"raw pixels": raw, "mean frame": mean, "mean change": change}

    def pictures(self, shown: Any) -> np.ndarray:
        """Of clips (examples, columns, frames, height, width, 3): four frames of each, two by two."""
        clips = np.asarray(shown)
        four = clips[:, :, np.linspace(0, clips.shape[2] - 1, 4).round().astype(int)]
        rows = np.concatenate([four[:, :, ::2], four[:, :, 1::2]], axis=4)  # each a pair, side by side
        return np.concatenate([rows[:, :, 0], rows[:, :, 1]], axis=2)

    def thumbnails(self, batch: Batch, side: int) -> Array:
        """The frames in the middle."""
        middle = batch["video"][:, batch["video"].shape[1] // 2].astype(jnp.float32) / 255.0
        return jnp.clip(jax.image.resize(middle, (len(middle), side, side, 3), "linear"), 0.0, 1.0)

    def _canvas(self) -> int:
        """Raises ValueError for a side that cannot be."""
        if self.data.canvas < 0:
            raise ValueError(f"--config.data.canvas={self.data.canvas} must be a side in pixels, or 0.")
        return self.data.canvas or round(self.views().size * 10 / 7)
