"""Batches: for training a pure function of (seed, step), for evaluation every example once.

Training batches hold what a self-supervised method may see, and no labels, unless they are asked for:

    image: uint8 (n, height, width, 3)
    index: int32 (n,), which examples of the source these are
    size:  int32 (n, 2), the height and width each image had in its file; only with a canvas
    label: int32 (n,); only for a method that learns from labels

A **canvas** is for images of varying size: the host resizes each whole image to canvas x canvas, without keeping its
aspect, and the device makes every random crop at this fixed shape, from boxes drawn in the pixels of ``size``.
"""

import functools
import os
from collections.abc import Generator, Iterable
from typing import Any

import grain
import numpy as np

from ssljax.data.images import resize
from ssljax.data.sources import NO_LABEL, DataError, Example, Source

Batch = dict[str, np.ndarray]

MAX_THREADS = 16
ENDLESS = 2**62


def batch_indices(examples: int, batch_size: int, seed: int, step: int, rows: np.ndarray | None = None) -> np.ndarray:
    """Which examples of a source make global batch ``step`` (or, of it, the places ``rows``): int64 (n,).

    Every example comes once in each epoch, in an order that is new in each; a batch may span two epochs, or many where
    the source is smaller than the batch. It depends on nothing else, so that any number of processes, each with rows
    of its own, make the same batch.
    """
    places = step * batch_size + (np.arange(batch_size) if rows is None else rows)
    order = grain.MapDataset.range(examples).seed(seed).shuffle().repeat(None)
    return np.array([order[int(place)] for place in places])


def train_dataset(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    canvas: int | None = None,
    rows: np.ndarray | None = None,
    labels: bool = False,
) -> grain.MapDataset:
    """The endless sequence of training batches: item k is global batch k, or this process's rows of it.

    Args:
        source: the images.
        batch_size: of the global batch.
        seed: in [0, 2**32).
        canvas: the side to which the host resizes images; needed if they differ in size.
        rows: the places in the global batch that this process makes; None for all.
        labels: whether the batches hold labels.

    Returns:
        A Grain dataset of batches, each a dict as described at the head of this module.

    Raises:
        DataError: the images differ in size and there is no canvas, or there are no labels where they are asked for.
    """
    _check_fixed_shape(source, canvas)
    if labels:
        source.require_labels("this method")
    make = functools.partial(_train_batch, source, canvas, batch_size, seed, rows, labels)
    return grain.MapDataset.range(ENDLESS).map(make)


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    canvas: int | None = None,
    rows: np.ndarray | None = None,
    labels: bool = False,
    threads: int | None = None,
) -> Generator[Batch]:
    """Iterates for ever over :func:`train_dataset` from batch ``start_step`` on, made ahead of time by threads.

    To resume costs nothing, since no batch before ``start_step`` is read. Each thread makes one batch at a time, so as
    many batches as threads (and two at least) lie in memory.

    Args:
        start_step: the number of batches already used.
        threads: as many as the machine has cores, at most 16, by default; 1 if there is nothing to decode or resize.

    The other arguments, and what is raised (at once, not at the first batch), are those of :func:`train_dataset`.
    """
    dataset = train_dataset(source, batch_size=batch_size, seed=seed, canvas=canvas, rows=rows, labels=labels)
    return _prefetched(dataset[start_step:], threads or _default_threads(source, canvas))


def eval_batches(
    source: Source, batch_size: int, canvas: int | None = None, rows: np.ndarray | None = None
) -> Generator[Batch]:
    """Iterates over each example once, in order, in batches of one shape, of which a process may make some rows only.

    Yields:
        image: uint8 (batch_size, height, width, 3).
        label: int32 (batch_size,), -1 where there is none.
        mask: bool (batch_size,), False for the zeros in place of undecodable images and at the end of the last batch.
        size: int32 (batch_size, 2), only with a canvas.

    Raises:
        DataError: the images differ in size and there is no canvas (at once), or none can be decoded.
    """
    _check_fixed_shape(source, canvas)
    make = functools.partial(_eval_batch, source, canvas, batch_size, np.arange(batch_size) if rows is None else rows)
    batches = grain.MapDataset.range(-(-len(source) // batch_size)).map(make)
    return _checked(source, _prefetched(batches, _default_threads(source, canvas)))


def _check_fixed_shape(source: Source, canvas: int | None) -> None:
    if canvas is None and source.image_shape is None:
        raise DataError(
            f"The images of {source.name} may differ in size, so they can't be put in one array: set "
            "--config.data.canvas to the side, in pixels, to which they shall be resized, for instance 256."
        )


def _default_threads(source: Source, canvas: int | None) -> int:
    # Threads help where Pillow decodes or resizes; to stack what lies in memory they would contend for the interpreter.
    return 1 if source.in_memory and canvas is None else min(os.cpu_count() or 1, MAX_THREADS)


def _prefetched(dataset: grain.MapDataset, threads: int) -> Generator[Any]:
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, 2))
    iterator = iter(dataset.to_iter_dataset(options))
    try:
        yield from iterator
    finally:
        iterator.close()


def _pixels(example: Example, canvas: int | None) -> dict[str, Any]:
    """The image of one example, on the canvas if there is one, and then its original size."""
    image = example["image"]
    if canvas is None:
        return {"image": image}
    return {"image": resize(image, canvas), "size": np.array(image.shape[:2], np.int32)}


def _train_batch(
    source: Source, canvas: int | None, batch_size: int, seed: int, rows: np.ndarray | None, labels: bool, step: int
) -> Batch:
    def row(example: Example) -> dict[str, Any]:
        return _pixels(example, canvas) | ({"label": np.int32(example["label"])} if labels else {})

    indices = batch_indices(len(source), batch_size, seed, step, rows)
    return _stack([row(source[int(index)]) for index in indices]) | {"index": indices.astype(np.int32)}


def _eval_batch(source: Source, canvas: int | None, batch_size: int, rows: np.ndarray, batch: int) -> Batch:
    def row(index: int) -> dict[str, Any]:
        example = source.read(index) if index < len(source) else None
        if example is None:
            return {**nothing, "label": np.int32(NO_LABEL), "mask": np.False_}
        return {**_pixels(example, canvas), "label": example.get("label", np.int32(NO_LABEL)), "mask": np.True_}

    shape = (canvas, canvas) if canvas else source.image_shape or ()
    nothing = {"image": np.zeros((*shape, 3), np.uint8)} | ({"size": np.ones(2, np.int32)} if canvas else {})
    return _stack([row(int(index)) for index in batch * batch_size + rows])


def _checked(source: Source, batches: Iterable[Batch]) -> Generator[Batch]:
    seen = False
    for batch in batches:
        seen |= bool(batch["mask"].any())
        yield batch
    if not seen and len(source.skipped):
        raise source.nothing_decodable()


def _stack(rows: list[dict[str, Any]]) -> Batch:
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}
