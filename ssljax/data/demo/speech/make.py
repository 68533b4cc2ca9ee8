"""Made digits.npz of this folder from the recordings of the Free Spoken Digit Dataset.

    python ssljax/data/demo/speech/make.py free-spoken-digit-dataset/recordings

The files are named digit_speaker_take.wav; they are those of github.com/Jakobovski/free-spoken-digit-dataset.
"""

import lzma
import sys
from pathlib import Path

import numpy as np
import scipy.io.wavfile

from ssljax.data.speech import as_floats
from ssljax.data.speech_arrays import compress

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TAKES = {"test": range(2), "train": range(5, 13)}
PACKING = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 4, "lp": 0, "pb": 0}]


def main(folder: Path) -> None:
    clips = {}
    for path in folder.glob("*.wav"):
        digit, speaker, take = path.stem.split("_")
        for split, takes in TAKES.items():
            if int(take) in takes:
                rate, samples = scipy.io.wavfile.read(path)
                name = f"{split}/{DIGITS[int(digit)]}/{speaker}/{int(take):02}.wav"
                clips[name] = compress(as_floats(samples))
    files = sorted(clips)
    codes = lzma.compress(b"".join(clips[file].tobytes() for file in files), lzma.FORMAT_XZ, filters=PACKING)
    np.savez(
        Path(__file__).parent / "digits.npz",
        codes=np.frombuffer(codes, np.uint8),
        files=np.array(files),
        length=np.array([len(clips[file]) for file in files]),
        rate=rate,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
