"""Retrieval: whether what is near is of the same class."""

import numpy as np

from ssljax.evals.knn import nearest, nearest_others
from ssljax.evals.scores import mean_of, share_of

DEPTHS = (1, 5, 10)
"""The k of R@k."""
MOST = 2000
"""Of more queries so many are drawn, for each has the whole bank in order."""


def same_class(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    *,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """R@k, whether one of the k nearest by cosine similarity is of the query's class, for k in DEPTHS, and mAP, the
    mean over queries of the average precision of the whole bank in that order; each with its standard error.

        AP = mean over the rows r of the query's class of (rows of its class up to r) / (rank of r)

    bank (rows, dim), queries (examples, dim). queries, labels: None for the bank's own rows, each among all others.
    Queries of classes that the bank has not are left out.
    """
    if queries is None or labels is None:
        asked, truth, find = bank, bank_labels, lambda rows: nearest_others(bank, len(bank) - 1, rows)
    else:
        asked, truth, find = queries, labels, lambda rows: nearest(bank, asked[rows], len(bank))
    rows = np.sort(np.random.default_rng(seed).permutation(len(asked))[:MOST])
    parts = np.array_split(rows, -(-len(rows) // 256))
    hit = np.concatenate([bank_labels[find(part)[1]] == truth[part, None] for part in parts])
    hit = hit[hit.any(axis=1)]
    precision = np.cumsum(hit, axis=1) / np.arange(1, hit.shape[1] + 1)
    found = {f"R@{k}": share_of(np.any(hit[:, :k], axis=1)) for k in DEPTHS}
    return found | {"mAP": mean_of((precision * hit).sum(axis=1) / hit.sum(axis=1), np.ones(len(hit)))}
