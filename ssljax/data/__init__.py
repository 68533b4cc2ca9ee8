"""Examples for training and evaluation: sources with random access, and batches as a pure function of (seed, step)."""

from ssljax.data.canvas import OnCanvas
from ssljax.data.pipeline import batch_indices, eval_batches, train_batches, train_dataset
from ssljax.data.sources import DataError, Source, open_source

__all__ = [
    "DataError",
    "OnCanvas",
    "Source",
    "batch_indices",
    "eval_batches",
    "open_source",
    "train_batches",
    "train_dataset",
]
