"""The demo for video: the photographs that ship with ssljax, under a camera that moves over them.

The photographs are real, their motion is made. The class is the direction, one of eight, which no single frame tells.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image

from ssljax.data.sources import Example, Shapes, Source, open_source

DIRECTIONS = {
    "right": (0, 1),
    "down right": (1, 1),
    "down": (1, 0),
    "down left": (1, -1),
    "left": (0, -1),
    "up left": (-1, -1),
    "up": (-1, 0),
    "up right": (-1, 1),
}
"""Where the camera goes: (down, right)."""
WINDOW, PIXELS_A_FRAME = 18.0, 1.5
"""The side of what the camera sees, and how far it goes along each axis, in pixels of the photographs."""


def video_shapes(frames: int, side: int) -> Shapes:
    """`Source.shapes` of clips on a canvas; `size` is the height and width that the video has."""
    return {"video": ((frames, side, side, 3), np.uint8), "size": ((2,), np.int32)}


class PanSource(Source):
    """`video` (frames, canvas, canvas, 3) and `size`. The middle of the camera's path is that of the photograph; in
    training it is drawn anew, from where all directions have room."""

    things = "clips"

    def __init__(self, photographs: Source, *, frames: int, stride: int, canvas: int, clips: int):
        shapes, names = video_shapes(frames, canvas), tuple(DIRECTIONS)
        super().__init__(photographs.name, has_labels=True, class_names=names, shapes=shapes)
        self.drawn = shapes
        self._photographs, self._frames, self._canvas, self._clips = photographs, frames, canvas, clips
        self._steps = PIXELS_A_FRAME * stride * (np.arange(frames) - (frames - 1) / 2)
        (side, _, _), _ = (photographs.shapes or {})["image"]
        self._side, self._room = side, side - WINDOW - 2 * self._steps[-1]
        if self._room < 0:
            raise ValueError(
                f"--config.data.frames={frames} and stride={stride} lead a camera beyond the photographs of the demo: "
                "lower one of them."
            )
        # Balanced, and of no relation to what a photograph shows.
        first = np.random.default_rng(0).permutation(len(photographs))
        self._labels = ((first[:, None] + np.arange(clips)) % len(DIRECTIONS)).reshape(-1).astype(np.int32)

    @classmethod
    def open(cls, split: str, **fields: int) -> "PanSource":
        """Raises DataError if there is no such split, ValueError if a clip would not fit into a photograph."""
        return cls(open_source("demo", split), **fields)

    def labels(self) -> np.ndarray:
        return self._labels

    def gap(self) -> Example:
        """A clip of one pixel, for one of none can't be cropped."""
        return super().gap() | {"size": np.ones(2, np.int32)}

    def __len__(self) -> int:
        return len(self._labels)

    def _where(self, index: int) -> str:
        return self._photographs._where(index // self._clips)

    def _load(self, index: int) -> Example:
        return self._clip(index, lambda: np.full(2, 0.5))

    def _sample(self, index: int, rng: np.random.Generator) -> Example:
        return self._clip(index, lambda: rng.random(2))

    def _clip(self, index: int, place: Callable[[], np.ndarray]) -> Example:
        """place: of the path's middle, as parts of the room."""
        photograph = Image.fromarray(self._photographs[index // self._clips]["image"])
        middle = self._side / 2 + (place() - 0.5) * self._room
        way = np.array(list(DIRECTIONS.values())[self._labels[index]])
        frames = []
        for y, x in middle + self._steps[:, None] * way - WINDOW / 2:
            box = (x, y, x + WINDOW, y + WINDOW)
            frame = photograph.resize((self._canvas, self._canvas), Image.Resampling.BICUBIC, box=box)
            frames.append(np.asarray(frame))
        size = np.full(2, self._canvas, np.int32)
        return {"video": np.stack(frames), "size": size, "label": self._labels[index]}
