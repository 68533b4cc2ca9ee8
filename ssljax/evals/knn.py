"""Weighted k-nearest-neighbour classification on frozen features."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from ssljax.evals.scores import Score


def nearest(bank: np.ndarray, queries: np.ndarray, k: int, *, chunk: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """Cosine similarities and bank indexes, both (queries, k), of each query's k nearest rows; the nearest comes first.

    bank (rows, dim), queries (queries, dim). Of a bank with fewer rows than k, all are given.
    """
    bank, k = _unit(bank), min(k, len(bank))
    found = [jax.device_get(_top(bank, _unit(queries[i : i + chunk]), k)) for i in range(0, len(queries), chunk)]
    return np.concatenate([s for s, _ in found]), np.concatenate([i for _, i in found])


def knn(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    labels: np.ndarray,
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> Score:
    """The protocol of instance discrimination: cosine similarity s, a neighbour's vote weighs exp(s / temperature).

    bank (rows, dim) and queries (examples, dim) are features of un-augmented images; labels are 0 … classes - 1.
    Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", 2018, section 3.4.
    """
    similarity, neighbours = nearest(bank, queries, k)
    weights = np.exp((similarity - similarity[:, :1]) / temperature)
    votes = np.zeros((len(queries), int(bank_labels.max()) + 1))
    for rank in range(neighbours.shape[1]):
        votes[np.arange(len(queries)), bank_labels[neighbours[:, rank]]] += weights[:, rank]
    return Score(votes.argmax(axis=1) == labels)


def one_nearest(bank: np.ndarray, bank_labels: np.ndarray, queries: np.ndarray, labels: np.ndarray) -> Score:
    """The class of the nearest row by Euclid's distance, the archives' baseline of time series.

    bank (rows, dim), queries (examples, dim); labels 0 … classes - 1.
    """
    model = KNeighborsClassifier(1, algorithm="brute").fit(bank, bank_labels)
    return Score(model.predict(queries) == labels)


@partial(jax.jit, static_argnames="k")
def _top(bank, queries, k):
    return jax.lax.top_k(jnp.matmul(queries, bank.T, precision=jax.lax.Precision.HIGHEST), k)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
