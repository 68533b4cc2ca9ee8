"""Batches: for training a pure function of (seed, step), for evaluation every example once.

Training batches hold what a self-supervised method may see, and no labels, unless they are asked for:

    index: int32 (n,), which examples of the source these are
    label: int32 (n,); only for a method that learns from labels
    …      (n, …): each array of the examples, and what is drawn for them, by its name (``Source.shapes``, ``.drawn``)
"""

import functools
import os
from collections.abc import Generator, Iterable
from typing import Any

import grain
import numpy as np
from grain.experimental import index_shuffle

from ssljax.data.sources import NO_LABEL, DataError, Source, stacked

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
    epochs, within = np.divmod(places, examples)
    seeds = {epoch: int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0]) for epoch in set(epochs.tolist())}
    return np.array(
        [
            index_shuffle(place, max_index=examples - 1, seed=seeds[epoch], rounds=4)
            for epoch, place in zip(epochs.tolist(), within.tolist(), strict=True)
        ]
    )


def train_dataset(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    rows: np.ndarray | None = None,
    labels: bool = False,
) -> grain.MapDataset:
    """The endless sequence of training batches: item k is global batch k, or this process's rows of it.

    Args:
        source: the examples, all of the same shapes.
        batch_size: of the global batch.
        seed: in [0, 2**32).
        rows: the places in the global batch that this process makes; None for all.
        labels: whether the batches hold labels.

    Returns:
        A Grain dataset of batches, each a dict as described at the head of this module.

    Raises:
        DataError: the examples differ in shape, or there are no labels where they are asked for.
    """
    _check_fixed_shapes(source)
    if labels:
        source.require_labels("this method")
    make = functools.partial(_train_batch, source, batch_size, seed, rows, labels)
    return grain.MapDataset.range(ENDLESS).map(make)


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    rows: np.ndarray | None = None,
    labels: bool = False,
    threads: int | None = None,
) -> Generator[Batch]:
    """Iterates for ever over :func:`train_dataset` from batch ``start_step`` on, made ahead of time by threads.

    To resume costs nothing, since no batch before ``start_step`` is read. Each thread makes one batch at a time, so as
    many batches as threads (and two at least) lie in memory.

    Args:
        start_step: the number of batches already used.
        threads: as many as the machine has cores, at most 16, by default; 1 if all lies in memory.

    The other arguments, and what is raised (at once, not at the first batch), are those of :func:`train_dataset`.
    """
    dataset = train_dataset(source, batch_size=batch_size, seed=seed, rows=rows, labels=labels)
    return _prefetched(dataset[start_step:], threads or _default_threads(source))


def index_batches(
    examples: int, *, batch_size: int, seed: int, start_step: int = 0, rows: np.ndarray | None = None
) -> Generator[Batch]:
    """As :func:`train_batches`, of which each has only the ``index``: for examples that lie on the devices."""

    def make(step: int) -> Batch:
        return {"index": batch_indices(examples, batch_size, seed, step, rows).astype(np.int32)}

    return _prefetched(grain.MapDataset.range(ENDLESS).map(make)[start_step:], threads=1)


def all_examples(source: Source, *, labels: bool = False, most: int | None = None) -> Batch:
    """What training batches are made of, (examples, …); in the place of an undecodable one the next that can be.

    Raises:
        DataError: as :func:`train_dataset`, and where a part of the examples is drawn anew each time, or they have more
            than ``most`` bytes.
    """
    _check_fixed_shapes(source)
    if labels:
        source.require_labels("this method")
    if source.drawn:
        raise DataError(
            f"of {source.name} {', '.join(source.drawn)} is drawn anew each time, which cannot lie on a device: set "
            "--config.data.resident=False."
        )
    if most is not None and source.nbytes > most:
        raise DataError(
            f"{source.name} has {source.nbytes / 2**30:.1f} GiB, more than the {most / 2**30:.1f} GiB that it may take "
            "of a device: set --config.data.resident=False."
        )
    names = {*(source.shapes or {}), *(["label"] if labels else [])}
    return stacked([{name: x for name, x in source[i].items() if name in names} for i in range(len(source))])


def eval_batches(source: Source, batch_size: int, rows: np.ndarray | None = None) -> Generator[Batch]:
    """Iterates over each example once, in order, in batches of one shape, of which a process may make some rows only.

    Yields:
        label: int32 (batch_size,), -1 where there is none.
        mask: bool (batch_size,), False for what fills the place of undecodable examples and the end of the last batch.
        …: (batch_size, …), each array of the examples.

    Raises:
        DataError: the examples differ in shape (at once), or none can be decoded.
    """
    _check_fixed_shapes(source)
    make = functools.partial(_eval_batch, source, batch_size, np.arange(batch_size) if rows is None else rows)
    batches = grain.MapDataset.range(-(-len(source) // batch_size)).map(make)
    return _checked(source, _prefetched(batches, _default_threads(source)))


def _check_fixed_shapes(source: Source) -> None:
    if source.shapes is None:
        raise DataError(
            f"The {source.things} of {source.name} may differ in size, so they can't be put in one array: give them "
            "one size first (ssljax.data.canvas.OnCanvas does so to images)."
        )


def _default_threads(source: Source) -> int:
    # Threads help where Pillow decodes or resizes; to stack what lies in memory they would contend for the interpreter.
    return 1 if source.in_memory else min(os.cpu_count() or 1, MAX_THREADS)


def _prefetched(dataset: grain.MapDataset, threads: int) -> Generator[Any]:
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, 2))
    iterator = iter(dataset.to_iter_dataset(options))
    try:
        yield from iterator
    finally:
        iterator.close()


def _train_batch(source: Source, batch_size: int, seed: int, rows: np.ndarray | None, labels: bool, step: int) -> Batch:
    names = {*(source.shapes or ()), *source.drawn, *(["label"] if labels else [])}
    indices = batch_indices(len(source), batch_size, seed, step, rows)
    places = np.arange(batch_size) if rows is None else rows
    return source.samples(names, indices, places, (seed, step)) | {"index": indices.astype(np.int32)}


def _eval_batch(source: Source, batch_size: int, rows: np.ndarray, batch: int) -> Batch:
    gap = source.gap()
    nothing = {"label": np.int32(NO_LABEL)} | gap

    def row(index: int) -> dict[str, Any]:
        example = source.read(index) if index < len(source) else None
        if example is None:
            return nothing | {"mask": np.False_}
        return nothing | {name: x for name, x in example.items() if name in nothing} | {"mask": np.True_}

    return stacked([row(int(index)) for index in batch * batch_size + rows])


def _checked(source: Source, batches: Iterable[Batch]) -> Generator[Batch]:
    seen = False
    for batch in batches:
        seen |= bool(batch["mask"].any())
        yield batch
    if not seen and len(source.skipped):
        raise source.nothing_decodable()
