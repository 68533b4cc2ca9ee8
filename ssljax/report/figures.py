"""The pictures of a report, Pillow images on white: curves and maps drawn by matplotlib, collages made from pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from einops import rearrange
from matplotlib import color_sequences, colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from PIL import Image

INK, MUTED, HAIRLINE, BLUE = "#1f2328", "#6b7280", "#e5e7eb", "#3563a8"
RIGHT, WRONG, NEUTRAL = "#009e73", "#d55e00", "#d0d4da"
"""Frames of neighbours; the two colours are told apart by colour-blind readers too (Okabe and Ito)."""

DPI = 200
"""Pixels of an inch, which the page shows as about 100: sharp on dense screens."""
SMOOTHED_FROM = 200
"""Curves of so many points are drawn pale, with their running mean over a fiftieth of them in front."""
LEAST_SHOWN = 1e-5
"""Of singular values, as a part of the largest: below it is rounding."""
MAP_MARGIN = 0.04
"""Of a map's picture, at each of its sides."""
MOST_NAMED_CLASSES = 20
"""Beyond these no two colours can be told apart by a legend."""


@dataclass(frozen=True)
class Curve:
    """How one metric is drawn against the step.

    name: its key in the rows of metrics.
    reading: what tells the reader how to read it.
    form, scale, unit: how a value is written, after multiplication by `scale`.
    level: a value worth a dashed line.
    alarm_below, alarm_above: values beyond it are shaded.
    """

    name: str
    title: str
    reading: str
    form: str = "{:.2f}"
    scale: float = 1.0
    unit: str = ""
    level: float | None = None
    alarm_below: float | None = None
    alarm_above: float | None = None

    def points(self, metrics: Sequence[dict[str, float]]) -> tuple[np.ndarray, np.ndarray]:
        """Steps and scaled values of the rows that have this metric."""
        rows = [(row["step"], row[self.name] * self.scale) for row in metrics if self.name in row]
        steps, values = np.array(rows, np.float64).reshape(-1, 2).T
        return steps, values

    def text(self, value: float) -> str:
        """`value`, already scaled, with its unit."""
        return self.form.format(value).replace("-", "−") + (f" {self.unit}" if self.unit else "")


PROGRESS = (
    Curve(
        "loss",
        "Loss",
        "What is minimised, on training batches. Compare it only between runs of one loss and batch size.",
        form="{:.3f}",
    ),
    Curve(
        "learning_rate",
        "Learning rate",
        "As the optimiser used it, after scaling, warm-up and decay.",
        form="{:.2g}",
    ),
    Curve(
        "examples_per_second",
        "Throughput",
        "Training examples in a second, over all devices.",
        form="{:,.0f}",
        unit="examples/s",
    ),
    Curve(
        "knn",
        "Online k-NN",
        "Accuracy during the run, on a part of the test examples. It uses labels, which training never sees.",
        form="{:.1f}",
        scale=100.0,
        unit="%",
    ),
)
COLLAPSE = (
    Curve(
        "feature_std",
        "Feature standard deviation",
        "1: features fill the sphere evenly. In the shaded zone all examples get nearly the same representation.",
        level=1.0,
        alarm_below=0.1,
    ),
    Curve(
        "effective_rank",
        "Effective rank",
        "How many dimensions the features really use. In the shaded zone they lie on a line.",
        form="{:.1f}",
        alarm_below=1.2,
    ),
    Curve(
        "alignment",
        "Alignment",
        "Mean squared distance of an example's views, from 0 to 4. Lower is better, while uniformity stays low too.",
    ),
    Curve(
        "uniformity",
        "Uniformity",
        "How evenly different examples spread. 0: all at one point; about −4: as even as can be. Lower is better.",
    ),
    Curve(
        "embedding_std",
        "Embedding standard deviation",
        "As of features, but of what the loss compares. In the shaded zone it is the same for all examples.",
        level=1.0,
        alarm_below=0.1,
    ),
    Curve(
        "embedding_rank",
        "Effective rank of embeddings",
        "How many dimensions they really use, of 255 at most. In the shaded zone they lie on a line.",
        form="{:.1f}",
        alarm_below=1.1,
    ),
    Curve(
        "output_std",
        "Standard deviation of the output",
        "Of embeddings that are not normalised; the variance term pushes it to 1.",
        level=1.0,
        alarm_below=0.1,
    ),
    Curve(
        "prototypes_used",
        "Prototypes in use",
        "1: the batch spreads over all prototypes. In the shaded zone nearly all examples have the same one.",
        alarm_below=0.1,
    ),
    Curve(
        "target_entropy",
        "Entropy of targets",
        "0: each example has one prototype. In the shaded zone none prefers any.",
        alarm_above=0.99,
    ),
    Curve(
        "codebook_use",
        "Codebook in use",
        "1: all codes are as likely, over a batch. In the shaded zone nearly all frames have the same one.",
        alarm_below=0.05,
    ),
    Curve(
        "target_std",
        "Standard deviation of targets",
        "Between patches. In the shaded zone all patches have the same target.",
        alarm_below=0.1,
    ),
    Curve(
        "prediction_std",
        "Standard deviation of predictions",
        "Between hidden patches. In the shaded zone the same is predicted for all of them.",
        alarm_below=0.01,
    ),
)


def draw_curve(curve: Curve, metrics: Sequence[dict[str, float]]) -> Image.Image | None:
    """The metric against the step, its last value by the title (vermilion if alarming); None where no row has it."""
    steps, values = curve.points(metrics)
    if not len(steps):
        return None
    line = _smoothed(values)
    figure, axes = _figure(4.8, 2.7)
    if line is not values:
        axes.plot(steps, values, color=BLUE, linewidth=0.7, alpha=0.3)
    axes.plot(steps, line, color=BLUE, linewidth=1.6)
    axes.plot(steps[-1:], line[-1:], "o", color=BLUE, markersize=4.5, clip_on=False)
    _zones(axes, curve)
    low, high = curve.alarm_below, curve.alarm_above
    alarmed = (low is not None and line[-1] < low) or (high is not None and line[-1] > high)
    axes.set_title(curve.title, loc="left", fontsize=10, fontweight="bold", color=INK)
    axes.set_title(curve.text(line[-1]), loc="right", fontsize=10, color=WRONG if alarmed else BLUE)
    _scale(axes, last_step=max(row["step"] for row in metrics))
    return _rendered(figure)


def draw_curves(curve: Curve, runs: Sequence[Sequence[dict[str, float]]], colours: np.ndarray) -> Image.Image | None:
    """The metric of several runs, each in its colour (runs, 3), smoothed if it is long; None where no run has it."""
    lines = [curve.points(metrics) for metrics in runs]
    if not any(len(steps) for steps, _ in lines):
        return None
    figure, axes = _figure(4.8, 2.7)
    for (steps, values), colour in zip(lines, colours, strict=True):
        axes.plot(steps, _smoothed(values), color=colour, linewidth=1.6)
        axes.plot(steps[-1:], _smoothed(values)[-1:], "o", color=colour, markersize=4.5, clip_on=False)
    _zones(axes, curve)
    axes.set_title(curve.title, loc="left", fontsize=10, fontweight="bold", color=INK)
    axes.set_title(curve.unit, loc="right", fontsize=10, color=MUTED)
    _scale(axes, last_step=max(row["step"] for metrics in runs for row in metrics))
    return _rendered(figure)


def describe_curve(curve: Curve, metrics: Sequence[dict[str, float]]) -> str:
    """What the drawing shows, for a reader who does not see it."""
    steps, values = curve.points(metrics)
    line = _smoothed(values)
    return (
        f"{curve.title} against step: {curve.text(line[0])} at step {steps[0]:,.0f}, "
        f"{curve.text(line[-1])} at step {steps[-1]:,.0f}."
    )


def draw_spectrum(of: Mapping[str, Sequence[float]]) -> Image.Image:
    """Singular values of features, as parts of the largest, by their place: a line for each encoder or floor."""
    figure, axes = _figure(6.4, 3.2)
    for colour, (name, values) in zip(class_colours(len(of)), of.items(), strict=True):
        axes.plot(
            np.arange(1, len(values) + 1), np.maximum(values, LEAST_SHOWN), color=colour, linewidth=1.6, label=name
        )
    axes.set(xscale="log", yscale="log", ylim=(LEAST_SHOWN, 1.5))
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("place", fontsize=8.5, color=MUTED)
    axes.legend(loc="lower left", frameon=False, fontsize=8.5, labelcolor=INK)
    axes.set_title("Singular values", loc="left", fontsize=10, fontweight="bold", color=INK)
    return _rendered(figure)


def class_colours(classes: int) -> np.ndarray:
    """(classes, 3) colours in [0, 1]: ten or twenty that are easy to tell apart, or a rainbow where there are more."""
    for palette in ("petroff10", "tab20"):
        colours = color_sequences[palette]
        if classes <= len(colours):
            return np.array([to_rgb(colour) for colour in colours[:classes]])
    return colormaps["turbo"](np.linspace(0.03, 0.97, classes))[:, :3]


def draw_map(points: np.ndarray, colours: np.ndarray | None) -> Image.Image:
    """Points (n, 2), stretched to fill a square, in their colours (n, 3), all alike where that is None: each where
    `places` says. There are no axes: these maps have none worth a number."""
    figure = Figure((4.8, 4.8), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    area = float(np.clip(12000 / max(len(points), 1), 6, 40))
    x, y = places(points).T
    axes.scatter(x, 1 - y, s=area, c=BLUE if colours is None else colours, alpha=0.85, linewidths=0)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_axis_off()
    return _rendered(figure)


def places(points: np.ndarray) -> np.ndarray:
    """Where `draw_map` puts points: parts of the picture (n, 2) from its left and from its top."""
    x, y = (MAP_MARGIN + (1 - 2 * MAP_MARGIN) * _stretched(points)).T
    return np.stack([x, 1 - y], axis=1)


def draw_image_map(points: np.ndarray, images: np.ndarray, *, cells: int = 20, side: int = 32) -> Image.Image:
    """The same map made of the images (n, h, w, 3), uint8, each moved to the nearest of `cells` × `cells` places.

    Where several would lie on one another, the image closest to the place is shown. side: pixels of a place.
    """
    at = _stretched(points) * (cells - 1)
    place = np.rint(at).astype(int)
    closest_first = np.argsort(np.square(at - place).sum(axis=1), kind="stable")
    _, first = np.unique(place[closest_first], axis=0, return_index=True)
    shown = closest_first[first]
    pictures = _fit(images[shown], side)
    canvas = np.full((cells, cells, *pictures.shape[1:]), 255, np.uint8)
    canvas[cells - 1 - place[shown, 1], place[shown, 0]] = pictures
    return _tiled(canvas, gap=2)


def draw_panels(pictures: np.ndarray) -> Image.Image:
    """What belongs to each example, (examples, lines, columns, h, w, 3) in [0, 1], in a block of its own."""
    examples, lines, columns = pictures.shape[:3]
    across = min(max(1, 14 // columns), examples)
    pixels = np.rint(255 * np.clip(np.nan_to_num(pictures), 0, 1)).astype(np.uint8)
    fitted = _fit(pixels.reshape(-1, *pixels.shape[3:]), 112)
    blocks = [np.asarray(_tiled(x, gap=4)) for x in fitted.reshape(examples, lines, columns, *fitted.shape[1:])]
    blocks += [np.full_like(blocks[0], 255)] * (-examples % across)
    return _tiled(np.stack(blocks).reshape(-1, across, *blocks[0].shape), gap=24)


def draw_sprite(images: np.ndarray, side: int = 64) -> Image.Image:
    """All images (n, h, w, 3) in one, line by line, ⌈√n⌉ in a line; each in a white cell of `side` pixels."""
    fitted = _fit(images, side)
    height, width = fitted.shape[1:3]
    across = int(np.ceil(np.sqrt(len(images))))
    cells = np.full((-(-len(images) // across) * across, side, side, 3), 255, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    cells[: len(images), top : top + height, left : left + width] = fitted
    return _tiled(cells.reshape(-1, across, side, side, 3), gap=0)


def draw_neighbours(pictures: np.ndarray, labels: np.ndarray | None, side: int = 64) -> Image.Image:
    """Queries in the first column, then their nearest images: pictures (queries, 1 + k, h, w, 3) uint8.

    With labels (queries, 1 + k), a neighbour of the query's class has a green frame and any other a vermilion one.
    """
    queries, columns = pictures.shape[:2]
    fitted = _fit(pictures.reshape(-1, *pictures.shape[2:]), side)
    height, width = fitted.shape[1:3]
    frame = 4
    framed = np.full((queries, columns, height + 2 * frame, width + 2 * frame, 3), _rgb(NEUTRAL), np.uint8)
    if labels is not None:
        right = labels[:, 1:] == labels[:, :1]
        framed[:, 1:] = np.where(right[..., None], _rgb(RIGHT), _rgb(WRONG))[:, :, None, None]
    framed[:, :, frame:-frame, frame:-frame] = fitted.reshape(queries, columns, height, width, 3)
    framed[:, 0, :frame] = framed[:, 0, -frame:] = framed[:, 0, :, :frame] = framed[:, 0, :, -frame:] = 255
    query, nearest = (np.asarray(_tiled(part, gap=6)) for part in (framed[:, :1], framed[:, 1:]))
    space = np.full((len(query), 16, 3), 255, np.uint8)
    return Image.fromarray(np.concatenate([query, space, nearest], axis=1))


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches, with one set of axes in the style of all."""
    figure = Figure((width, height), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.grid(axis="y", color=HAIRLINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=MUTED)
    return figure, axes


def _zones(axes: Axes, curve: Curve) -> None:
    """Its level, and shades where a value is alarming."""
    if curve.level is not None:
        axes.axhline(curve.level, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    if curve.alarm_below is not None:
        axes.axhspan(0, curve.alarm_below, color=WRONG, alpha=0.15, linewidth=0)
        axes.set_ylim(bottom=0)
    if curve.alarm_above is not None:
        axes.axhspan(curve.alarm_above, 1.0, color=WRONG, alpha=0.15, linewidth=0)
        axes.set_ylim(bottom=0)


def _scale(axes: Axes, last_step: float) -> None:
    """The horizontal axis of all curves of a run, from 0 to its last step, and ticks at round numbers."""
    axes.set_xlim(0, last_step)
    axes.set_xlabel("step", fontsize=8.5, color=MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.ticklabel_format(axis="y", scilimits=(-2, 5), useMathText=True)
    axes.yaxis.get_offset_text().set(fontsize=8, color=MUTED)


def _stretched(points: np.ndarray) -> np.ndarray:
    """Points (n, 2) moved and stretched so that each coordinate runs from 0 to 1."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - low) / np.maximum(high - low, 1e-12)


def _smoothed(values: np.ndarray) -> np.ndarray:
    """The running mean of many values, over fewer at the ends; few values as they are."""
    if len(values) < SMOOTHED_FROM:
        return values
    window = np.ones(len(values) // 50)
    return np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")


def _rendered(figure: Figure) -> Image.Image:
    """The drawing in 256 colours, which are plenty for lines and points and make a file a third of the size."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(256, dither=Image.Dither.NONE)


def _fit(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 images (n, h, w, 3), enlarged by a whole factor or averaged down to at most `side` pixels a side."""
    height, width = images.shape[1:3]
    longer = max(height, width)
    if longer <= side:
        return images.repeat(side // longer, axis=1).repeat(side // longer, axis=2)
    size = max(1, round(width * side / longer)), max(1, round(height * side / longer))
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)) for image in images])


def _tiled(pictures: np.ndarray, gap: int) -> Image.Image:
    """uint8 pictures (rows, columns, h, w, 3) on a white ground, `gap` pixels apart."""
    spaced = np.pad(pictures, [(0, 0), (0, 0), (0, gap), (0, gap), (0, 0)], constant_values=255)
    return Image.fromarray(rearrange(spaced, "r c h w d -> (r h) (c w) d")[: -gap or None, : -gap or None])


def _rgb(colour: str) -> np.ndarray:
    return np.rint(255 * np.array(to_rgb(colour))).astype(np.uint8)
