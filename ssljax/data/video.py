"""Clips of video: a fixed number of frames, a fixed distance from each other.

    folder:PATH   videos in a folder, whose sub-folders are classes, and may be splits (as `ssljax.data.folder` has it)
    demo          photographs under a camera that moves: `ssljax.data.pans`

A video is a file, or a sub-folder of frames: image files, in the order of their names (in which 10 comes after 9).
Animated GIF and WebP are read by Pillow, all other files by PyAV (`pip install av`).

A video of fewer frames than a clip has, one frame for instance, and one that cannot be decoded is skipped, counted, and
named in the log and the report. Where there are enough frames for a clip, but not at its distance, the last one is
repeated.
"""

import errno
import importlib.util
import io
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ssljax.data.folder import folders_of, list_files, read_bytes, split_files
from ssljax.data.images import UndecodableImage, decode, resize
from ssljax.data.pans import PanSource, video_shapes
from ssljax.data.sources import DataError, Example, Source, resolve_split, split_spec

logger = logging.getLogger(__name__)

FORMS = {"demo": "demo", "folder": "folder:PATH"}
ANIMATIONS = (".gif", ".webp")
FILES = (*ANIMATIONS, ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ogv", ".wmv", ".flv")
FRAMES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
KEPT = 2**28
"""Bytes of animations that stay in memory: they can only be read from their beginning."""

Choose = Callable[[int], np.ndarray]
"""Which frames are wanted, ascending, of a video of so many. Raises UndecodableImage if there are too few."""


class VideoSource(Source):
    """`video` (frames, canvas, canvas, 3), each frame resized whole without keeping its aspect, and `size`, int32 (2,):
    the height and width in the file. A video gives as many clips as asked for, spread evenly over it; in training each
    lies at a place that is drawn anew."""

    things = "clips"

    def __init__(
        self,
        name: str,
        videos: Sequence[Sequence[str]],
        *,
        frames: int,
        stride: int,
        canvas: int,
        clips: int,
        labels: np.ndarray | None,
        classes: tuple[str, ...],
    ):
        """videos: of each its file, or those of its frames. labels: int32, one for each video, or None."""
        shapes, names = video_shapes(frames, canvas), None if labels is None else classes
        super().__init__(name, has_labels=labels is not None, class_names=names, shapes=shapes)
        self.drawn = shapes
        self._videos, self._frames, self._stride, self._canvas, self._clips = videos, frames, stride, canvas, clips
        self._labels = None if labels is None else np.repeat(labels, clips)

    def labels(self) -> np.ndarray:
        return super().labels() if self._labels is None else self._labels

    def gap(self) -> Example:
        """A clip of one pixel, for one of none can't be cropped."""
        return super().gap() | {"size": np.ones(2, np.int32)}

    def __len__(self) -> int:
        return len(self._videos) * self._clips

    def _where(self, index: int) -> str:
        files = self._videos[index // self._clips]
        return files[0] if _is_file(files) else os.path.dirname(files[0])

    def _load(self, index: int) -> Example:
        part = (index % self._clips + 0.5) / self._clips
        return self._clip(index, lambda room: int(part * (room + 1)))

    def _sample(self, index: int, rng: np.random.Generator) -> Example:
        return self._clip(index, lambda room: int(rng.integers(room + 1)))

    def _clip(self, index: int, start: Callable[[int], int]) -> Example:
        """start: the first frame, of a video with so many frames more than a clip spans."""
        frames, stride = self._frames, self._stride

        def choose(count: int) -> np.ndarray:
            if count < frames:
                raise UndecodableImage(f"it has {count} frames, and a clip {frames}")
            first = start(max(0, count - (frames - 1) * stride - 1))
            return np.minimum(first + stride * np.arange(frames), count - 1)

        files = self._videos[index // self._clips]
        if not _is_file(files):
            pictures = [decode(read_bytes(files[i], self.name)) for i in choose(len(files))]
            if len({picture.shape for picture in pictures}) > 1:
                raise UndecodableImage("its frames differ in size")
            video, size = np.stack([resize(picture, self._canvas) for picture in pictures]), pictures[0].shape[:2]
        elif files[0].lower().endswith(ANIMATIONS):
            whole, size = _animation(files[0], self.name, self._canvas)
            video = whole[choose(len(whole))]
        else:
            video, size = _by_pyav(files[0], self.name, self._canvas, choose)
        example: Example = {"video": video, "size": np.array(size, np.int32)}
        return example if self._labels is None else example | {"label": self._labels[index]}


def open_video(spec: str, split: str, *, frames: int, stride: int, canvas: int, clips: int = 1) -> Source:
    """The split of a source, spelt as the head of this module says.

    frames, stride: of a clip, and how far apart they are. canvas: the side in pixels that frames are resized to. clips:
    how many of them a video gives.

    Raises:
        ValueError: a number is below 1.
        DataError: the kind is unknown, there is no such folder or split or no video in it, frames lie in no folder of
            their own, or there are files that need PyAV, which is not installed.
    """
    for field, value in {"frames": frames, "stride": stride, "canvas": canvas, "clips": clips}.items():
        if value < 1:
            raise ValueError(f"--config.data.{field}={value} must be at least 1.")
    kind, where = split_spec(spec, FORMS)
    if kind == "demo":
        return PanSource.open(split, frames=frames, stride=stride, canvas=canvas, clips=clips)
    root = Path(where).expanduser()
    if not root.is_dir():
        raise DataError(f"There is no folder {str(root)!r}: check the path after 'folder:'.")
    videos = _videos(root)
    splits, depth = split_files(list(videos))
    chosen = splits[resolve_split(split, splits, spec)]
    name = f"{spec} ({split})"
    labels, classes = _classes(chosen, [path for paths in splits.values() for path in paths], depth, name)
    return VideoSource(
        name,
        [[str(root / file) for file in videos[path]] for path in chosen],
        frames=frames,
        stride=stride,
        canvas=canvas,
        clips=clips,
        labels=labels,
        classes=classes,
    )


def _videos(root: Path) -> dict[str, list[str]]:
    """The videos below a folder by their paths, and of each its files. Raises DataError."""
    videos: dict[str, list[str]] = {}
    files = list_files(root, (*FILES, *FRAMES))
    for file in files:
        is_frame = file.lower().endswith(FRAMES)
        if is_frame and "/" not in file:
            raise DataError(f"{str(root)!r} holds {file!r}, a frame of no video: give each video a sub-folder.")
        videos.setdefault(os.path.dirname(file) if is_frame else file, []).append(file)
    if not videos:
        raise DataError(
            f"The folder {str(root)!r} holds no videos: it needs files in {', '.join(FILES)}, or sub-folders of frames "
            f"in {', '.join(FRAMES)}."
        )
    for path, file in ((path, files[0]) for path, files in videos.items() if _is_file(files)):
        if not file.lower().endswith(ANIMATIONS) and not importlib.util.find_spec("av"):
            raise DataError(f"{path!r} in {str(root)!r} needs PyAV: `pip install av`, or store frames as images.")
    return {path: sorted(files, key=_by_numbers) for path, files in videos.items()}


def _classes(
    chosen: Sequence[str], every: Sequence[str], depth: int, name: str
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """A label for each video, or None, and the classes of all splits, as `ssljax.data.folder` has them."""
    classes = sorted({parts[depth] for parts in map(folders_of, every) if len(parts) > depth + 1})
    outside = [path for path in chosen if len(folders_of(path)) <= depth + 1]
    if len(classes) < 2 or outside:
        if classes and outside:
            logger.warning("%s: no labels, since %d videos, as %s, are in no class", name, len(outside), outside[0])
        return None, ()
    return np.array([classes.index(folders_of(path)[depth]) for path in chosen], np.int32), tuple(classes)


def _is_file(files: Sequence[str]) -> bool:
    return files[0].lower().endswith(FILES)


def _by_numbers(path: str) -> list[Any]:
    """What sorts names with numbers in them by these."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path)]


_kept: dict[tuple[str, int], tuple[np.ndarray, tuple[int, int]]] = {}


def _animation(path: str, name: str, canvas: int) -> tuple[np.ndarray, tuple[int, int]]:
    """All frames of a GIF or WebP, resized, and the size they had."""
    if (path, canvas) in _kept:
        return _kept[path, canvas]
    data = read_bytes(path, name)
    try:
        with Image.open(io.BytesIO(data)) as image:
            size, frames = (image.height, image.width), []
            for i in range(getattr(image, "n_frames", 1)):
                image.seek(i)
                frames.append(resize(np.asarray(image.convert("RGB")), canvas))
    except UnidentifiedImageError as error:
        raise UndecodableImage("not an animation in a format that Pillow knows") from error
    # Broad on purpose, as in `ssljax.data.images.decode`.
    except Exception as error:
        raise UndecodableImage(f"{type(error).__name__}: {error}") from error
    made = np.stack(frames), size
    if sum(x.nbytes for x, _ in list(_kept.values())) + made[0].nbytes <= KEPT:
        _kept[path, canvas] = made
    return made


def _by_pyav(path: str, name: str, canvas: int, choose: Choose) -> tuple[np.ndarray, tuple[int, int]]:
    """The frames of a file that `choose` wants, resized, and the size they had.

    A frame's place is its time times the average rate. Where the file does not say how many there are, that is its
    duration times the rate; for those that then are not there, the last one stands.
    """
    import av

    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise UndecodableImage("it has no pictures")
            stream = container.streams.video[0]
            rate, unit = stream.average_rate or stream.guessed_rate, stream.time_base
            if not rate or not unit:
                raise UndecodableImage("it does not say how many frames a second has")
            begin = stream.start_time or 0
            seconds = stream.duration * unit if stream.duration else (container.duration or 0) / 1_000_000
            wanted = choose(stream.frames or round(seconds * rate)).tolist()
            if wanted[0]:  # to the last frame before it that needs no other
                container.seek(begin + int(wanted[0] / rate / unit), stream=stream)
            found: list[np.ndarray] = []
            last = None
            for last in container.decode(stream):
                place = len(found) if last.pts is None else round((last.pts - begin) * unit * rate)
                if place >= wanted[len(found)]:
                    picture = resize(last.to_ndarray(format="rgb24"), canvas)
                    found += [picture] * sum(place >= i for i in wanted[len(found) :])
                if len(found) == len(wanted):
                    break
            if last is None:
                raise UndecodableImage("it has no frame that can be decoded")
            found += [resize(last.to_ndarray(format="rgb24"), canvas)] * (len(wanted) - len(found))
            return np.stack(found), (last.height, last.width)
    except av.FFmpegError as error:
        if error.errno == errno.ENOENT:
            raise DataError(
                f"{path} was there when {name} was listed, and is gone: bring the data back, then run the same command "
                "again."
            ) from error
        raise UndecodableImage(str(error)) from error
