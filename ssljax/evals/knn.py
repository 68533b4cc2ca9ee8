"""Classification by the nearest neighbours of frozen features."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ssljax.evals.scores import Score

BLOCK = 2**16
"""Rows of the bank that a device holds at a time."""
NEIGHBOURS, TEMPERATURES = (1, 5, 10, 20, 50, 100, 200), (0.07, 0.1, None)
"""What `knn_grid` tries: k, and T of the weights, None for votes that weigh the same."""

Grid = dict[tuple[int, float | None], Score]
"""{(k, T): score}"""


def nearest(
    bank: np.ndarray, queries: np.ndarray, k: int, *, chunk: int = 1024, block: int = BLOCK
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine similarities and bank indexes, both (queries, k), of each query's k nearest rows; the nearest comes first,
    and of rows that are equally near the one that is first in the bank.

    bank (rows, dim), queries (queries, dim). Of a bank with fewer rows than k, all are given. A bank of more rows than
    `block` is dealt to this process's devices, `block` rows at a time to each; queries go by chunks.
    """
    bank, queries, k = _unit(bank), _unit(queries), min(k, len(bank))
    devices = jax.local_devices()[: -(-len(bank) // block)]
    mesh = jax.make_mesh((len(devices),), ("bank",), axis_types=(AxisType.Auto,), devices=devices)
    best: list[tuple[np.ndarray, np.ndarray]] = []
    for first in range(0, len(bank), len(devices) * block):
        part = bank[first : first + len(devices) * block]
        padded = np.pad(part, ((0, -len(part) % len(devices)), (0, 0)))
        dealt = jax.device_put(padded, NamedSharding(mesh, P("bank")))
        top = partial(_top, k=min(k, len(part)), shards=len(devices), real=len(part))
        found = [jax.device_get(top(dealt, queries[i : i + chunk])) for i in range(0, len(queries), chunk)]
        found = [(similarity, first + index) for similarity, index in found]
        best = [_best(*pair, k) for pair in zip(best, found, strict=True)] if best else found
    return np.concatenate([s for s, _ in best]), np.concatenate([i for _, i in best])


def knn(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> Score:
    """The protocol of instance discrimination: cosine similarity s, a neighbour's vote weighs exp(s / temperature).

    bank (rows, dim) and queries (examples, dim) are features of un-augmented images; labels are 0 … classes - 1. Of a
    bank with fewer rows than k, all vote. queries, labels: None for the bank's own rows, each of which is judged by all
    others (leave-one-out).
    Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", 2018, section 3.4.
    """
    k = min(k, len(bank) - (queries is None))
    (score,) = knn_grid(bank, bank_labels, queries, labels, ks=(k,), temperatures=(temperature,)).values()
    return score


def knn_grid(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    *,
    ks: Sequence[int] = NEIGHBOURS,
    temperatures: Sequence[float | None] = TEMPERATURES,
) -> Grid:
    """As `knn`, for each k and each temperature, from one search; those k of which the bank has not so many rows are
    left out. Of equal votes the first class wins.

    queries, labels: None for the bank's own rows, each of which is judged by all others (leave-one-out).
    """
    ks = sorted(k for k in set(ks) if k <= len(bank) - (queries is None))
    if queries is None or labels is None:
        labels = bank_labels
        similarity, neighbours = nearest_others(bank, ks[-1])
    else:
        similarity, neighbours = nearest(bank, queries, ks[-1])
    return _voted(similarity, neighbours, bank_labels, labels, ks, temperatures)


def nearest_others(bank: np.ndarray, k: int, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """As `nearest`, of some rows (places) of the bank, or of all, among all others, which must be k at least."""
    rows = np.arange(len(bank)) if rows is None else rows
    similarity, index = nearest(bank, bank[rows], k + 1)
    # A row that has more than k copies may not be among its own neighbours; the last of these then goes instead.
    order = np.argsort(index == rows[:, None], axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarity, order, axis=1), np.take_along_axis(index, order, axis=1)


def one_nearest(bank: np.ndarray, bank_labels: np.ndarray, queries: np.ndarray, labels: np.ndarray) -> Score:
    """The class of the nearest row by Euclid's distance, the archives' baseline of time series.

    bank (rows, dim), queries (examples, dim); labels 0 … classes - 1.
    """
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(1, algorithm="brute").fit(bank, bank_labels)
    return Score(model.predict(queries) == labels)


def _voted(
    similarity: np.ndarray,
    neighbours: np.ndarray,
    bank_labels: np.ndarray,
    labels: np.ndarray,
    ks: Sequence[int],
    temperatures: Sequence[float | None],
) -> Grid:
    """similarity and neighbours (queries, the largest k or all rows there are); ks ascend."""
    everyone, found = np.arange(len(labels)), {}
    for temperature in temperatures:
        weights = np.ones_like(similarity)
        if temperature is not None:
            weights = np.exp((similarity - similarity[:, :1]) / temperature)
        votes, counted = np.zeros((len(labels), int(bank_labels.max()) + 1)), 0
        for k in ks:
            for rank in range(counted, min(k, neighbours.shape[1])):
                votes[everyone, bank_labels[neighbours[:, rank]]] += weights[:, rank]
            counted = k
            found[k, temperature] = Score(votes.argmax(axis=1) == labels)
    return found


@partial(jax.jit, static_argnames=("k", "shards", "real"))
def _top(bank, queries, k, shards, real):
    """bank (rows, dim), of which the rows after `real` are padding, dealt to so many shards by rows: each finds its own
    k first."""
    similarity = jnp.matmul(queries, bank.T, precision=jax.lax.Precision.HIGHEST)
    if shards == 1:
        return jax.lax.top_k(similarity, k)
    each = len(bank) // shards
    similarity = jnp.where(jnp.arange(len(bank)) < real, similarity, -jnp.inf).reshape(-1, shards, each)
    values, index = jax.lax.top_k(similarity, min(k, each))
    index = (index + each * jnp.arange(shards)[:, None]).reshape(len(queries), -1)
    values, places = jax.lax.top_k(values.reshape(len(queries), -1), k)
    return values, jnp.take_along_axis(index, places, axis=1)


def _best(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray], k: int):
    """The k first of both, each (similarities, indexes), both (queries, …)."""
    similarity, index = (np.concatenate(pair, axis=1) for pair in zip(one, other, strict=True))
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarity, order, axis=1), np.take_along_axis(index, order, axis=1)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
