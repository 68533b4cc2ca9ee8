"""Clips of speech."""

import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.data.sources import DataError, Shapes, split_spec
from ssljax.data.speech import FORMS, SHORTEST, SpeechSource, as_floats, audio_shapes, open_speech, standardise
from ssljax.data.speech_arrays import LOUDEST, narrowed
from ssljax.modalities.modality import Modality
from ssljax.models.pooling import segment_means
from ssljax.typing import Array, Batch
from ssljax.views.speech import log_mel

HEIGHT, WIDTH = 80, 160
"""Of pictures."""
RANGE = 10.0
"""Of log energies in a picture: what is so much less than the loudest is white, and that black."""
HIDDEN = np.array([0.55, 0.68, 0.86])
SEGMENTS = 4
"""Of the floor: parts of a clip over which its spectrogram is averaged."""


class Speech(Modality):
    protocols = ("knn", "linear", "groups", "left_out")
    data_fields = {
        "rate": 16000,  # samples in a second; clips of another rate are resampled
        "crop": 1.0,  # seconds of a training example; 0: clips are whole
        "longest": 4.0,  # seconds that evaluation hears of a clip, of its middle
        "normalise": False,  # each clip has mean 0 and standard deviation 1
        # What names a clip's class and its speaker: which of its folders, counted from that below the split's, or of an
        # archive which array; empty: nothing does.
        "label": "1",
        "group": "",
    }
    view_fields = {}

    def open(self, split: str) -> SpeechSource:
        return open_speech(
            self.data.source,
            self.data[f"{split}_split"],
            **{name: self.data[name] for name in self.data_fields},
        )

    def shapes(self) -> Shapes:
        return audio_shapes(round(self.data.rate * (self.data.crop or self.data.longest)), bool(self.data.group))

    def stand_in(self, wrong: DataError) -> tuple[Shapes, str]:
        split_spec(self.data.source, FORMS)
        seconds = self.data.crop or self.data.longest
        return self.shapes(), f"examples have {seconds} seconds at {self.data.rate} Hz, whatever the clips are"

    def as_batch(self, inputs: Sequence[np.ndarray] | np.ndarray) -> Batch:
        """Of clips (samples,) of any lengths, at the rate that was trained at: whole numbers, or floats in [-1, 1].

        Whole numbers of larger types are taken for those of 16 bits, if these hold those of all clips, or of 32.
        Floats may go beyond, as resampled ones and some files' do, but those above `LOUDEST` are no such samples.
        An array (n, samples) is n clips.
        """
        clips = [as_floats(clip) for clip in narrowed([np.asarray(clip) for clip in inputs], "clips")]
        if not clips or any(clip.ndim != 1 or not clip.size for clip in clips):
            found = [clip.shape for clip in clips[:3]]
            raise ValueError(f"clips must be arrays (samples,), not empty, in a list; the first are {found}.")
        if not all(np.isfinite(clip).all() for clip in clips):
            raise ValueError("clips must be finite numbers.")
        if (peak := max(np.abs(clip).max() for clip in clips)) > LOUDEST:
            raise ValueError(
                f"clips must be whole numbers, or floats in about [-1, 1], but one has {peak:.6g}: divide floats by "
                "the largest that their format can hold, as 32768, or give the whole numbers themselves."
            )
        least, shortest = math.ceil(SHORTEST * self.data.rate), min(map(len, clips))
        if shortest < least:
            raise ValueError(
                f"clips must have {least} samples at least, which are {SHORTEST} seconds, but one has {shortest}."
            )
        clips = [standardise(clip) for clip in clips] if self.data.normalise else clips
        lengths = [len(clip) for clip in clips]
        audio = np.stack([np.pad(clip, (0, max(lengths) - len(clip))) for clip in clips])
        return {"audio": jnp.asarray(audio), "length": jnp.array(lengths, jnp.int32)}

    def floors(self) -> dict[str, Callable[[Batch], Array]]:
        def means(batch: Batch) -> Array:
            return segment_means(*log_mel(batch["audio"], batch["length"], self.data.rate), SEGMENTS)

        return {"log-mel": means}

    def pictures(self, shown: Mapping[str, Array]) -> np.ndarray:
        """Of `audio` (n, samples) of which `length` (n,) are the clip, and `hidden` (n, frames), bool: its spectrogram,
        and again with the hidden frames in blue; and of `rows` (n, frames, count) in [0, 1], dark where they are 1, of
        which `frames` (n,) are the clip."""
        grey = 1.0 - self._shade(shown["audio"], shown["length"], HEIGHT, WIDTH)
        sound = np.repeat(np.asarray(grey)[..., None], 3, axis=-1)
        places = _places(np.asarray(shown["frames"]), WIDTH)
        hidden = np.take_along_axis(np.asarray(shown["hidden"]), places, axis=1)
        columns = [sound, np.where(hidden[:, None, :, None], HIDDEN, sound)]
        if "rows" in shown:
            rows = np.take_along_axis(np.asarray(shown["rows"]), places[:, :, None], axis=1)
            picked = np.arange(HEIGHT) * rows.shape[2] // HEIGHT
            if rows.shape[2] > HEIGHT:  # a row of the picture is then of several codes
                rows = np.maximum.reduceat(rows, picked, axis=2)
            else:
                rows = rows[:, :, picked]
            columns.append(np.repeat(1.0 - np.swapaxes(rows, 1, 2)[..., None], 3, axis=-1))
        return np.clip(np.stack(columns, axis=1), 0.0, 1.0)

    def thumbnails(self, batch: Batch, side: int) -> Array:
        shade = self._shade(batch["audio"], batch["length"], side, side)
        return jnp.broadcast_to(1.0 - shade[..., None], (*shade.shape, 3))

    def _shade(self, audio: Array, lengths: Array, height: int, width: int) -> Array:
        """Spectrograms (n, height, width) of the clips, each from end to end, low notes below: 0 quiet, 1 loud."""
        energies, frames = log_mel(audio, lengths, self.data.rate)
        places = (jnp.arange(width) * frames[:, None]) // width
        energies = jnp.take_along_axis(energies, places[:, :, None], axis=1)
        loudest = energies.max(axis=(1, 2), keepdims=True)
        shade = jnp.clip(1.0 + (energies - loudest) / RANGE, 0.0, 1.0)
        return jax.image.resize(jnp.swapaxes(shade, 1, 2)[:, ::-1], (len(shade), height, width), "nearest")


def _places(frames: np.ndarray, width: int) -> np.ndarray:
    """(n, width): which frame each column of a picture shows, where so many `frames` (n,) fill it."""
    return np.arange(width) * frames[:, None] // width
