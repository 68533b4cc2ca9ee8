"""Time series."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.data.series import FORMS, Long, Scale, SeriesSource, open_long, open_series
from ssljax.data.sources import DataError, Shapes, split_spec
from ssljax.modalities.modality import INKS, Modality
from ssljax.typing import Array, Batch

logger = logging.getLogger(__name__)

WIDE = 64
"""Pixels of the side of a picture."""


class Series(Modality):
    protocols = ("nn1", "linear", "svm")
    data_fields = {
        "scale": "standard",  # of each channel, by the training split: standard or none
        "length": 0,  # longer series are cut into equal pieces of at most so many steps; 0: none is
        "parts": (),  # steps of one long series to train on, to choose by and to test, or shares; (): the last tenth
        "columns": (),  # of csv:, which are channels; (): all that hold numbers
        "time": "",  # of csv:, the column of dates, from which there are channels of the time of day and of the year
        "shape": (),  # steps of the longest series, and channels; a run writes down what it finds, as of the next two
        "mean": (),
        "std": (),
    }
    view_fields = {}

    def open(self, split: str) -> SeriesSource:
        return open_series(self.data.source, self.data[f"{split}_split"], length=self.data.length, **self._reading())

    def long(self) -> Long:
        """All of one long series. Raises DataError if there are many."""
        return open_long(self.data.source, **self._reading())

    def _reading(self) -> dict[str, Any]:
        return {name: self.data[name] for name in ("scale", "parts", "columns", "time")}

    def settle(self) -> None:
        super().settle()
        source = self.open("train")
        if len(source) < self.config.batch_size:
            # As the authors do it: a series that is in a batch twice would be told from itself.
            logger.warning("%s: batches are of all its %d series", source.name, len(source))
            self.config.batch_size = len(source)
        self.data.shape = (source.shapes or {})["series"][0]
        self.data.mean, self.data.std = source.scale.mean, source.scale.std

    def shapes(self) -> Shapes:
        if not self.data.shape:
            raise ValueError("how long the series are is not known yet: settle the config (ssljax.build.settle).")
        steps, channels = self.data.shape
        return {"series": ((steps, channels), np.float32), "valid": ((steps,), np.bool_)}

    def stand_in(self, wrong: DataError) -> tuple[Shapes, str]:
        split_spec(self.data.source, FORMS)
        if not self.data.shape:
            raise DataError(f"{wrong} Or say how large the series are by --config.data.shape=(steps,channels).")
        steps, channels = self.data.shape
        return self.shapes(), f"series are taken to have at most {steps} steps of {channels} channels"

    def as_batch(self, inputs: np.ndarray | Sequence[np.ndarray]) -> Batch:
        """Of series (n, time, channels), or a list of series (time, channels) of any lengths; of one channel also
        without the last dimension. Numbers as in the data: they are scaled here; NaN where there is none."""
        channels = len(self.data.mean)
        series = [np.asarray(x, np.float32) for x in inputs]
        series = [x[:, None] if x.ndim == 1 and channels == 1 else x for x in series]
        if not series or any(x.ndim != 2 or x.shape[1] != channels or not len(x) for x in series):
            found = sorted({x.shape for x in series})
            raise ValueError(f"series {found} must each be (time, {channels}), as those that were trained on.")
        if any(np.isinf(x).any() for x in series):
            raise ValueError("series must be finite, or NaN where there is no number.")
        scale = Scale(tuple(self.data.mean), tuple(self.data.std))
        values, valid = scale.pad(series, max(map(len, series)))
        return {"series": jnp.asarray(values), "valid": jnp.asarray(valid)}

    def floors(self) -> dict[str, Callable[[Batch], Array]]:
        """The numbers one after the other, 0 (the mean) where there is none, so that 1-NN is that of Euclid."""
        return {"raw series": lambda batch: jnp.nan_to_num(batch["series"]).reshape(len(batch["series"]), -1)}

    def pictures(self, shown: dict[str, Array]) -> np.ndarray:
        """Of `series` (examples, time, channels), each with `valid` (examples, pictures, time) and `representation`
        (examples, time, features): the series where it is valid, and below each other its features over time."""
        count = shown["valid"].shape[1]
        lines = jnp.stack([_drawn(shown["series"], shown["valid"][:, i], WIDE) for i in range(count)], axis=1)
        z, valid = np.asarray(shown["representation"]), np.asarray(shown["valid"][:, 0])[..., None]
        low = np.where(valid, z, np.inf).min(axis=(0, 1), initial=np.inf)
        high = np.where(valid, z, -np.inf).max(axis=(0, 1), initial=-np.inf)
        shade = np.where(valid, (z - low) / np.maximum(high - low, 1e-12), 0.0).swapaxes(1, 2)[..., None]
        heat = jax.image.resize(1 - np.clip(np.nan_to_num(shade), 0, 1), (len(z), WIDE, WIDE, 1), "nearest")
        return np.concatenate([lines, np.repeat(heat, 3, axis=-1)[:, None]], axis=1)

    def thumbnails(self, batch: Batch, side: int) -> Array:
        return _drawn(batch["series"], batch["valid"], side)


def _drawn(series: Array, valid: Array, side: int) -> Array:
    """Curves, time from left to right, one for each of the first channels, from -3 at the bottom to 3 at the top:
    (batch, time, channels) -> (batch, side, side, 3)."""
    series = jnp.where(valid[..., None], series, jnp.nan)[..., : len(INKS)]
    steps = series.shape[1]
    at = jnp.linspace(0, steps - 1, side + 1)
    left = jnp.minimum(at.astype(int), max(steps - 2, 0))
    right, part = jnp.minimum(left + 1, steps - 1), (at - left)[:, None]
    # A step beside a gap is drawn to its own edge of the gap, and no further.
    value = jnp.where(part < 1, series[:, left], 0) * (1 - part) + jnp.where(part > 0, series[:, right], 0) * part
    rows = (0.5 - jnp.clip(value, -3, 3) / 6) * (side - 1)
    a, b = rows[:, :-1], rows[:, 1:]
    a, b = jnp.where(jnp.isnan(a), b, a), jnp.where(jnp.isnan(b), a, b)
    low, high = jnp.minimum(a, b) - 0.5, jnp.maximum(a, b) + 0.5
    height = jnp.arange(side)[:, None, None]
    inked = (low[:, None] <= height) & (height <= high[:, None])  # (batch, side, side, channels), false where NaN
    picture = jnp.ones((len(series), side, side, 3))
    for channel in range(series.shape[-1]):
        picture = jnp.where(inked[..., channel, None], jnp.asarray(INKS[channel], jnp.float32), picture)
    return picture
