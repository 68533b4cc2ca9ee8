"""Made digits.npz of this folder from the clips of ssljax/data/demo/speech.

    python ssljax/data/demo/series/make.py

A step is of 20 ms.
"""

import numpy as np

from ssljax.data.series_files import DEMO, SILENCE, UNIT
from ssljax.data.speech import open_speech

RATE, BANDS = 8000, 40
WINDOW, HOP, BINS = RATE // 40, RATE // 100, 256
TOGETHER = 2
"""Windows that are one step, their mean."""


def mels(frequency: np.ndarray | np.float64) -> np.ndarray:
    return 2595 * np.log10(1 + frequency / 700)


def steps(clip: np.ndarray) -> np.ndarray:
    """(steps, BANDS): logarithms of energies in triangular bands of equal width in mels."""
    windows = np.lib.stride_tricks.sliding_window_view(clip.astype(np.float64), WINDOW)[::HOP] * np.hanning(WINDOW)
    power = np.square(np.abs(np.fft.rfft(windows, BINS)))
    edges = np.interp(np.linspace(0, mels(np.array(RATE / 2)), BANDS + 2), mels(np.arange(RATE)), np.arange(RATE))
    frequency = np.linspace(0, RATE / 2, BINS // 2 + 1)
    bands = np.stack([np.interp(frequency, edges[i : i + 3], [0, 1, 0]) for i in range(BANDS)], axis=1)
    energies = np.log(power @ bands + 1e-6)
    return energies[: len(energies) // TOGETHER * TOGETHER].reshape(-1, TOGETHER, BANDS).mean(axis=1)


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "test"):
        source = open_speech("demo", split, rate=RATE, crop=0.0, longest=2.0)
        clips = [steps(source[i]["clip"]) for i in range(len(source))]
        codes = np.clip(np.round((np.concatenate(clips) - SILENCE) / UNIT), 0, 255)
        arrays[f"{split}_codes"] = codes.astype(np.uint8)
        arrays[f"{split}_length"] = np.array([len(clip) for clip in clips], np.uint8)
        arrays[f"{split}_label"] = np.array(source.class_names)[source.labels()]
    np.savez_compressed(DEMO, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
