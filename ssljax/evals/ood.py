"""Whether features tell examples of other data from those of the data that were learnt from."""

import numpy as np
import scipy

from ssljax.evals.knn import nearest

NEAREST = 50
"""The neighbour whose distance counts; Sun et al. take so many for CIFAR-10."""
SMALLEST = 1e-6
"""Directions in which the variance is less than this part of the largest are left out."""


def knn_distance(bank: np.ndarray, queries: np.ndarray, k: int = NEAREST) -> np.ndarray:
    """How far each query is from the k-th nearest row of the bank (of fewer rows, the farthest), both of length 1:
    (queries,).

    Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", 2022, section 3.
    """
    similarity, _ = nearest(bank, queries, k)
    return np.sqrt(np.maximum(2.0 - 2.0 * similarity[:, -1], 0.0))


def mahalanobis(bank: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """min over classes c of (x - μ_c)ᵀ Σ⁻¹ (x - μ_c), with the classes' means in the bank and the covariance Σ that is
    common to them: (queries,).

    Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks", 2018,
    section 2.1.
    """
    bank, queries = bank.astype(np.float64), queries.astype(np.float64)
    names, place = np.unique(labels, return_inverse=True)
    means = np.stack([bank[labels == name].mean(axis=0) for name in names])
    apart = (bank - means[place]) / np.sqrt(len(bank))
    if len(bank) < bank.shape[1]:  # of few examples the other product is smaller, and has the same values
        values, vectors = np.linalg.eigh(apart @ apart.T)
        kept = values > SMALLEST * values[-1]
        whiten = apart.T @ vectors[:, kept] / values[kept]
    else:
        values, vectors = np.linalg.eigh(apart.T @ apart)
        kept = values > SMALLEST * values[-1]
        whiten = vectors[:, kept] / np.sqrt(values[kept])
    x, centres = queries @ whiten, means @ whiten
    squares = np.square(x).sum(axis=1)[:, None] - 2 * x @ centres.T + np.square(centres).sum(axis=1)
    return squares.min(axis=1)


def auroc(inside: np.ndarray, outside: np.ndarray) -> dict[str, float]:
    """How often an example from outside has the higher of two scores, ties counting half, and the standard error.

    inside, outside: scores, (examples,) each. The error is that of DeLong et al., 1988: √(var(v)/n + var(w)/m) with
    v, of each of n examples from inside, the share of those from outside that are higher, and w the other way round;
    each of both with two more examples, which are told quite right and quite wrong, so that a few leave some doubt.
    """
    rankdata = scipy.stats.rankdata
    ranks, n, m = rankdata(np.concatenate([inside, outside])), len(inside), len(outside)
    v = 1 - (ranks[:n] - rankdata(inside)) / m
    w = (ranks[n:] - rankdata(outside)) / n
    with_doubt = (np.append(each, [0.0, 1.0]) for each in (v, w))
    error = np.sqrt(sum(each.var() / len(each) for each in with_doubt))
    return {"value": float(w.mean()), "standard_error": float(error)}
