"""Batches: for training a pure function of (seed, step), for evaluation every example once.

Training batches hold what a self-supervised method may see, and no labels:

    image: uint8 (n, height, width, 3)
    size:  int32 (n, 2), the height and width each image had in its file; only with a canvas

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
from ssljax.data.sources import DataError, Example, Source

Batch = dict[str, np.ndarray]

NO_LABEL = -1
MAX_THREADS = 16


def train_dataset(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    canvas: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.MapDataset:
    """The endless sequence of training batches: item k is this process's part of global batch k.

    Every example comes once in each epoch, in an order that is new in each; a batch may span two epochs, or many where
    the source is smaller than the batch. Process p holds rows [p, p + 1) * batch_size / process_count of the global
    batch, so the parts put together in order are the same batch for any number of processes.

    Args:
        source: the images.
        batch_size: of the global batch.
        seed: in [0, 2**32).
        canvas: the side to which the host resizes images; needed if they differ in size.
        process_index: which process this is.
        process_count: how many processes share each batch.

    Returns:
        A Grain dataset of batches, each a dict as described at the head of this module.

    Raises:
        DataError: the images differ in size and there is no canvas, or the processes can't share the batch equally.
    """
    _check_fixed_shape(source, canvas)
    if batch_size < 1 or batch_size % process_count:
        raise DataError(
            f"A batch of {batch_size} can't be shared equally by {process_count} processes: "
            f"make --config.batch_size a multiple of {process_count}."
        )
    # Grain shuffles indices, not examples: it is then as fast for a source in memory as the examples can be stacked.
    indices = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat(None)
    # Sliced last, by whole local batches: slicing single examples would give each process count another row order.
    local = indices.batch(batch_size // process_count)[process_index::process_count]
    return local.map(functools.partial(_train_batch, source, canvas))


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    canvas: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
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
    dataset = train_dataset(
        source,
        batch_size=batch_size,
        seed=seed,
        canvas=canvas,
        process_index=process_index,
        process_count=process_count,
    )
    return _prefetched(dataset[start_step:], threads or _default_threads(source, canvas))


def eval_batches(source: Source, batch_size: int, canvas: int | None = None) -> Generator[Batch]:
    """Iterates over each readable example once, in order, in batches of one shape.

    Yields:
        image: uint8 (batch_size, height, width, 3).
        label: int32 (batch_size,), -1 where there is none.
        mask: bool (batch_size,), False for the zeros that fill the last batch.
        size: int32 (batch_size, 2), only with a canvas.

    Raises:
        DataError: the images differ in size and there is no canvas (at once), or none can be decoded.
    """
    _check_fixed_shape(source, canvas)
    chunks = grain.MapDataset.range(len(source)).batch(batch_size).map(functools.partial(_eval_rows, source, canvas))
    return _repacked(source, _prefetched(chunks, _default_threads(source, canvas)), batch_size)


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


def _train_batch(source: Source, canvas: int | None, indices: np.ndarray) -> Batch:
    return _stack([_pixels(source[int(index)], canvas) for index in indices])


def _eval_rows(source: Source, canvas: int | None, indices: np.ndarray) -> list[dict[str, Any]]:
    """The rows of the readable ones among these examples."""
    examples = [example for index in indices if (example := source.read(int(index))) is not None]
    return [
        {**_pixels(example, canvas), "label": example.get("label", np.int32(NO_LABEL)), "mask": np.True_}
        for example in examples
    ]


def _repacked(source: Source, chunks: Iterable[list[dict[str, Any]]], batch_size: int) -> Generator[Batch]:
    """Joins chunks of rows, of which skipped files have made some short, to full batches and one that is padded."""
    rows: list[dict[str, Any]] = []
    yielded = False
    for chunk in chunks:
        rows += chunk
        if len(rows) >= batch_size:
            yield _stack(rows[:batch_size])
            rows = rows[batch_size:]
            yielded = True
    if rows:
        padding = {key: np.zeros_like(value) for key, value in rows[0].items()} | {"label": np.int32(NO_LABEL)}
        yield _stack(rows + [padding] * (batch_size - len(rows)))
    elif not yielded:
        raise source.nothing_decodable()


def _stack(rows: list[dict[str, Any]]) -> Batch:
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}
