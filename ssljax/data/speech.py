"""Clips of speech: WAV and FLAC files of any rate, resampled to one; crops of one length to train on.

    folder:PATH   audio files in a folder, whose sub-folders may be splits (as of images: `ssljax.data.folder`), and
                  below them name classes and speakers; several split folders are joined by +, as in
                  --config.data.train_split=train-clean-100+train-clean-360
    npz:PATH      clips joined in one array, with others that name splits, classes and speakers:
                  `ssljax.data.speech_arrays`
    demo          600 spoken digits by six speakers, which ship with ssljax, at 8 kHz

WAV files are read by SciPy, all others by soundfile (`pip install soundfile`). Several channels are averaged. A clip
that cannot be read, is empty, shorter than `SHORTEST`, not finite or, as floats, beyond `LOUDEST`, or of a rate
beyond `RATES`, is skipped, counted, and named in the log and the report.
"""

import importlib.util
import io
import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy

from ssljax.data.folder import folders_of, list_files, read_bytes, split_files
from ssljax.data.images import UndecodableImage
from ssljax.data.sources import DataError, Example, Shapes, Source, resolve_split, split_spec
from ssljax.data.speech_arrays import LOUDEST, RATES, Clips, Numbered, read_arrays, read_demo

logger = logging.getLogger(__name__)

FORMS = {"demo": "demo", "folder": "folder:PATH", "npz": "npz:PATH"}
EXTENSIONS = (".wav", ".flac", ".ogg")
SHORTEST = 0.05
"""Seconds: what is shorter holds no frame of some encoder."""


def audio_shapes(samples: int, group: bool) -> Shapes:
    """`Source.shapes` of clips that all have this many samples, or are padded to it."""
    grouped: Shapes = {"group": ((), np.int32)} if group else {}
    return {"audio": ((samples,), np.float32), "length": ((), np.int32), **grouped}


class SpeechSource(Source):
    """`audio` (longest,), in [-1, 1] or normalised, of which `length` samples are the clip, or its middle, and zeros
    follow; `group`, which speaker it is of, where that is known; and `clip`, all of it, as long as it is.

    In a training batch `audio` is a crop, unless these have 0 samples, which leaves clips whole: of a clip of enough
    samples at a place that is drawn anew; a shorter one is followed by other clips (of the same speaker, where that is
    known), as in CPC's code, so that a crop is speech from end to end. No class is looked at for that.
    """

    things = "clips"

    def __init__(
        self,
        name: str,
        clips: Clips,
        *,
        rate: int,
        crop: int,
        longest: int,
        normalise: bool = False,
    ):
        """crop, longest: in samples."""
        (labels, classes), (groups, group_names) = clips.labels, clips.groups
        shapes = audio_shapes(longest, groups is not None)
        class_names = None if labels is None else classes
        super().__init__(name, has_labels=labels is not None, class_names=class_names, shapes=shapes)
        self.drawn = audio_shapes(crop, group=False) if crop else {}
        self.group_names = group_names
        self._files, self._read, self._rate, self._normalise = clips.files, clips.read, rate, normalise
        self._labels, self._groups = labels, groups

    def labels(self) -> np.ndarray:
        return super().labels() if self._labels is None else self._labels

    def draw(self, rng: np.random.Generator, example: Example) -> Example:
        (crop,) = self.drawn["audio"][0]
        stream = example["clip"]
        others = np.arange(len(self)) if self._groups is None else np.flatnonzero(self._groups == example["group"])
        while len(stream) < crop:
            stream = np.concatenate([stream, self[int(rng.choice(others))]["clip"]])
        start = rng.integers(len(stream) - crop + 1)
        return {"audio": stream[start : start + crop], "length": np.int32(crop)}

    def __len__(self) -> int:
        return len(self._files)

    def _where(self, index: int) -> str:
        return self._files[index]

    def _load(self, index: int) -> Example:
        clip = _at_rate(*self._read(self._files[index]), self._rate)
        clip = standardise(clip) if self._normalise else clip
        (longest,) = (self.shapes or {})["audio"][0]
        start = max(0, (len(clip) - longest) // 2)
        heard = clip[start : start + longest]
        example = {"audio": np.pad(heard, (0, longest - len(heard))), "length": np.int32(len(heard)), "clip": clip}
        numbers = {"label": self._labels, "group": self._groups}
        return example | {key: of[index] for key, of in numbers.items() if of is not None}


def open_speech(
    spec: str,
    split: str,
    *,
    rate: int,
    crop: float,
    longest: float,
    normalise: bool = False,
    label: str = "1",
    group: str = "",
) -> SpeechSource:
    """The split of a source, spelt as the head of this module says.

    crop, longest: seconds of a training example (0: as evaluation hears it), and of what evaluation hears of a clip.
    normalise: each clip has mean 0 and standard deviation 1. label, group: what names a clip's class and its speaker:
    the level of a folder that it lies in, counted from that below the split's, or of npz: an array; empty: nothing.

    Raises:
        ValueError: a field is out of range.
        DataError: the kind is unknown, or there is no such folder, file or split, no audio in it, or no folder or array
            that names the speaker; or files are of a kind that needs a package which is not installed.
    """
    _check(rate, crop, longest)
    kind, where = split_spec(spec, FORMS)
    path, name = Path(where).expanduser(), f"{spec} ({split})"
    if kind == "npz":
        clips = read_arrays(path, split, rate=rate, label=label, group=group)
    else:
        files, read = read_demo() if kind == "demo" else (_files_of(path), _Files(path, name))
        chosen, every, depth = _of_split(files, split, spec)
        labels, groups = (
            _of_level(field, level, chosen, every, depth, name) for field, level in (("label", label), ("group", group))
        )
        clips = Clips(chosen, read, labels, groups)
    source = SpeechSource(
        name, clips, rate=rate, crop=round(rate * crop), longest=round(rate * longest), normalise=normalise
    )
    source.in_memory = kind != "folder"
    return source


def _check(rate: int, crop: float, longest: float) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise ValueError(
            f"--config.data.rate={rate} must be a rate in samples a second, from {RATES[0]} to {RATES[1]}."
        )
    for field, seconds in (("crop", crop or longest), ("longest", longest)):
        if not SHORTEST <= seconds <= 600:
            raise ValueError(f"--config.data.{field}={seconds} must be seconds of audio, from {SHORTEST} to 600.")


def _files_of(root: Path) -> list[str]:
    if not root.is_dir():
        raise DataError(f"There is no folder {str(root)!r}: check the path after 'folder:'.")
    files = list_files(root, EXTENSIONS)
    if not files:
        raise DataError(f"The folder {str(root)!r} holds no audio: it needs files in {', '.join(EXTENSIONS)}.")
    return files


def _of_split(files: Sequence[str], split: str, spec: str) -> tuple[list[str], list[str], int]:
    """The files of a split, those of all splits, and at which place of a path the folders below the split begin."""
    wanted = split.split("+")
    tops = [folders_of(file)[0] for file in files]
    if set(wanted) <= set(tops):
        return [file for file, top in zip(files, tops, strict=True) if top in wanted], list(files), 1
    splits, depth = split_files(files)
    every = [file for of_split in splits.values() for file in of_split]
    return splits[resolve_split(split, splits, spec)], every, depth


def _of_level(field: str, level: str, files: Sequence[str], every: Sequence[str], depth: int, name: str) -> Numbered:
    """What the folders of a level, counted from `depth`, say of files; of classes it may be that they say nothing."""
    if not level:
        return None, ()
    if not level.isdecimal() or not int(level):
        raise ValueError(f"--config.data.{field}={level} must be a level of folders from 1 on, or empty for none.")
    numbers, names = _numbered(files, every, depth + int(level) - 1)
    if numbers is None and field == "group":
        raise DataError(
            f"{name}: --config.data.group={level} says that a clip's folder of level {level} names its speaker, but "
            "there are not two such folders, or clips in none: leave it empty if speakers are not known."
        )
    if numbers is None:
        logger.warning("%s: no labels, since clips are not in two folders or more of level %s", name, level)
    return numbers, names


def _numbered(files: Sequence[str], every: Sequence[str], place: int) -> Numbered:
    """(a number for each file by the folder at that place of its path, the folders' names in order); no numbers if
    there are fewer than two such folders, or a file lies in none."""
    found = [parts[place] if len(parts) > place + 1 else "" for parts in map(folders_of, files)]
    names = sorted({parts[place] for parts in map(folders_of, every) if len(parts) > place + 1})
    if len(names) < 2 or "" in found:
        return None, ()
    places = {name: number for number, name in enumerate(names)}
    return np.array([places[name] for name in found], np.int32), tuple(names)


def _at_rate(rate: int, samples: np.ndarray, wanted: int) -> np.ndarray:
    """Mono float32 in [-1, 1] at the rate that is wanted. Raises UndecodableImage for what cannot be used."""
    if not RATES[0] <= rate <= RATES[1]:
        raise UndecodableImage(f"its rate is {rate} samples in a second, and must be from {RATES[0]} to {RATES[1]}")
    if not len(samples):
        raise UndecodableImage("it is empty")
    wave = as_floats(samples)
    if not np.isfinite(wave).all():
        raise UndecodableImage("it holds numbers that are not finite")
    if (peak := np.abs(wave).max()) > LOUDEST:
        raise UndecodableImage(f"it holds {peak:.6g}, and floats must be in about [-1, 1]")
    wave = wave.mean(axis=1) if wave.ndim == 2 else wave
    if rate != wanted:
        shared = math.gcd(rate, wanted)
        wave = scipy.signal.resample_poly(wave, wanted // shared, rate // shared)
    if len(wave) < SHORTEST * wanted:
        raise UndecodableImage(f"{len(wave) / wanted:.3f} seconds are too short, {SHORTEST} is the least")
    return wave.astype(np.float32)


def as_floats(samples: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1]: whole numbers over the largest of their type (of 8 bits, which are unsigned, around 128)."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    if np.issubdtype(samples.dtype, np.signedinteger):
        return samples.astype(np.float32) / (1.0 + np.iinfo(samples.dtype).max)
    return samples.astype(np.float32)


def standardise(wave: np.ndarray) -> np.ndarray:
    """A clip less its mean, over its standard deviation; silence stays silent."""
    return ((wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)).astype(np.float32)


class _Files:
    """Reads the files of a folder."""

    def __init__(self, root: Path, name: str):
        self._root, self._name = root, name

    def __call__(self, file: str) -> tuple[int, np.ndarray]:
        data = io.BytesIO(read_bytes(str(self._root / file), self._name))
        try:
            if file.lower().endswith(".wav"):
                with warnings.catch_warnings():  # chunks that hold no audio
                    warnings.simplefilter("ignore", scipy.io.wavfile.WavFileWarning)
                    return scipy.io.wavfile.read(data)
            if not importlib.util.find_spec("soundfile"):
                raise DataError(
                    f"{file} of {self._name} is no WAV file: `pip install soundfile`, or convert it to WAV."
                )
            import soundfile

            samples, rate = soundfile.read(data, dtype="float32")
            return rate, samples
        except DataError:
            raise
        # Broad on purpose: of damaged files SciPy raises ValueError, struct.error, ZeroDivisionError and more.
        except Exception as error:
            reason = getattr(error, "error_string", error)  # soundfile's own names the bytes by their address
            raise UndecodableImage(f"no audio that can be read: {reason}") from error
