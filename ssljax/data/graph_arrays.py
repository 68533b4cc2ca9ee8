"""Checks of the arrays of graphs: of one (`ssljax.data.nodes`), of many (`ssljax.data.graphs`), and of those that an
encoder is given."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssljax.data.sources import DataError


def finite_rows(rows: np.ndarray, what: str, name: str) -> np.ndarray:
    """(nodes, dim) float32, of finite numbers. Raises DataError, which calls them `what` of `name`."""
    if rows.ndim != 2 or not rows.size or rows.dtype.kind not in "fiub":
        raise DataError(f"The {what} of {name} are {rows.shape} of {rows.dtype}: give numbers (nodes, dim), not empty.")
    rows = np.asarray(rows, np.float32)
    if bad := int((~np.isfinite(rows)).any(axis=1).sum()):
        raise DataError(f"The {what} of {bad} nodes of {name} are not finite: fill in what is missing.")
    return rows


def one_each(array: np.ndarray, count: int, things: str, what: str, name: str, most_axes: int = 1) -> np.ndarray:
    """The array as it is, (count,) or of so many axes. Raises DataError if its first axis is of another length."""
    if not 1 <= array.ndim <= most_axes or len(array) != count:
        raise DataError(f"The {what} of {name} are {array.shape}, but there are {count} {things}: give one for each.")
    return array


def edge_index(edges: np.ndarray | None, name: str) -> np.ndarray:
    """(2, edges) of whole numbers; with no edge, of any type. Raises DataError."""
    if edges is None or edges.ndim != 2 or len(edges) != 2 or (edges.size and edges.dtype.kind not in "iu"):
        what = "no edges" if edges is None else f"edges {edges.shape} of {edges.dtype}"
        raise DataError(f"{name} has {what}: give edge_index (2, edges), whole numbers from 0 to nodes - 1.")
    return edges if edges.size else np.zeros((2, 0), np.int32)


def edge_pairs(edges: np.ndarray | None, nodes: int, name: str) -> np.ndarray:
    """(2, edges) int32, each edge once in both directions; loops are left out, for encoders see each node's own
    features anyway. Raises DataError for what is no `edge_index`, and for nodes that are not there."""
    edges = edge_index(edges, name)
    if edges.size and not (0 <= edges.min() and edges.max() < nodes):
        raise DataError(
            f"The edges of {name} are between nodes {edges.min()} to {edges.max()}, but there are {nodes}: number them "
            "from 0."
        )
    both = np.concatenate([edges, edges[::-1]], axis=1)
    return np.unique(both[:, both[0] != both[1]], axis=1).astype(np.int32)


def given_graph(graph: Any, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (nodes, dim) and edges (2, edges) of a graph as users give it. Raises ValueError for what is none."""
    wanted = f"a graph must be a dictionary of features (nodes, {dim}) and edges (2, edges)"
    if not isinstance(graph, Mapping):
        raise ValueError(f"{wanted}, not {type(graph).__name__}.")
    if missing := [name for name in ("features", "edges") if name not in graph]:
        raise ValueError(f"{wanted}, but has {', '.join(map(str, graph)) or 'nothing'}, and no {missing[0]}.")
    x, edges = np.asarray(graph["features"]), np.asarray(graph["edges"])
    if x.ndim != 2 or x.shape[1] != dim or not len(x) or edges.ndim != 2 or len(edges) != 2:
        raise ValueError(f"{wanted}, not of {x.shape} and {edges.shape}.")
    return x, edges
