"""Made digits.npz of this folder from the clips of ssljax/data/demo/speech.

python ssljax/data/demo/series/make.py
"""

import numpy as np

from ssljax.data.series_files import DEMO, SILENCE, UNIT
from ssljax.data.speech import open_speech
from ssljax.views.speech import log_mel

RATE, MELS = 8000, 40
TOGETHER = 2
"""Frames of 10 ms that are one step, their mean."""


def main() -> None:
    arrays = {}
    for split in ("train", "test"):
        source = open_speech("demo", split, rate=RATE, crop=0.0, longest=2.0)
        clips = [source[i] for i in range(len(source))]
        audio, length = (np.stack([clip[name] for clip in clips]) for name in ("audio", "length"))
        energies, frames = map(np.asarray, log_mel(audio, length, RATE, MELS))
        whole = [e[: n - n % TOGETHER] for e, n in zip(energies, frames, strict=True)]
        steps = [e.reshape(-1, TOGETHER, MELS).mean(axis=1) for e in whole]
        codes = np.clip(np.round((np.concatenate(steps) - SILENCE) / UNIT), 0, 255).astype(np.uint8)
        arrays |= {f"{split}_codes": codes, f"{split}_length": np.array([len(x) for x in steps], np.uint8)}
        arrays[f"{split}_label"] = np.array(source.class_names)[source.labels()]
    np.savez_compressed(DEMO, **arrays)


if __name__ == "__main__":
    main()
