"""Many graphs."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.data.graph_arrays import edge_pairs, finite_rows, given_graph
from ssljax.data.graphs import FORMS, GraphSource, open_graphs, pad
from ssljax.data.sources import DataError, Shapes, split_spec
from ssljax.modalities.modality import INKS, Modality
from ssljax.typing import Array, Batch

DEGREES = 16
"""In the histogram of degrees the last place is for so many neighbours and more."""
WIDE, PULLS, POINTS = 64, 60, 48
"""Pixels of a picture's side, rounds of its layout, points that make an edge."""


class Graphs(Modality):
    protocols, folds = ("linear", "svm"), 10
    data_fields = {
        "most_nodes": 0,  # larger graphs are left out; 0: none is
        "shape": (),  # nodes, features and edges of the largest; a run writes down what it finds
    }
    view_fields = {}

    def open(self, split: str) -> GraphSource:
        return open_graphs(self.data.source, self.data[f"{split}_split"], self.data.most_nodes)

    def settle(self) -> None:
        super().settle()
        shapes = self.open("train").shapes or {}
        self.data.shape = (*shapes["features"][0], shapes["edges"][0][1])

    def shapes(self) -> Shapes:
        if not self.data.shape:
            raise ValueError("how large the graphs are is not known yet: settle the config (ssljax.build.settle).")
        nodes, dim, edges = self.data.shape
        return {
            "features": ((nodes, dim), np.float32),
            "edges": ((2, edges), np.int32),
            "real": ((nodes,), np.bool_),
        }

    def stand_in(self, wrong: DataError) -> tuple[Shapes, str]:
        split_spec(self.data.source, FORMS)
        if not self.data.shape:
            raise DataError(
                f"{wrong} Or say how large the largest graph is by --config.data.shape=(nodes,features,edges), each "
                "edge counted in both directions."
            )
        nodes, dim, edges = self.data.shape
        return self.shapes(), f"graphs are taken to have at most {nodes} nodes of {dim} features, and {edges} edges"

    def as_batch(self, inputs: Sequence[Mapping[str, np.ndarray]]) -> Batch:
        """Of a list of graphs, each a dictionary: `features` (nodes, dim) and `edges` (2, edges), in one or both
        directions."""
        dim = self.shapes()["features"][0][1]
        if not isinstance(inputs, Sequence) or not inputs:
            raise ValueError("graphs must be a list of one graph at least.")
        features, edges = [], []
        for place, graph in enumerate(inputs, 1):
            x, e = given_graph(graph, dim)
            features.append(finite_rows(x, "features", f"graph {place}"))
            edges.append(edge_pairs(e, len(x), f"graph {place}"))
        sizes = max(map(len, features)), max(1, max(e.shape[1] for e in edges))
        padded = [pad(x, e, *sizes) for x, e in zip(features, edges, strict=True)]
        return {name: jnp.asarray(np.stack([graph[name] for graph in padded])) for name in padded[0]}

    def floors(self) -> dict[str, Callable[[Batch], Array]]:
        """How many nodes there are of each label (or the sums of their features), and of each degree."""

        def histogram(batch: Batch) -> Array:
            source, nodes = batch["edges"][:, 0], batch["real"].shape[1]
            counts = jax.vmap(lambda s: jax.ops.segment_sum((s >= 0).astype(jnp.int32), s, num_segments=nodes))(source)
            of_degree = jnp.minimum(counts, DEGREES)[..., None] == jnp.arange(DEGREES + 1)
            each = jnp.concatenate([batch["features"], of_degree], axis=-1)
            return jnp.where(batch["real"][..., None], each, 0.0).sum(axis=1)

        return {"label histogram": histogram}

    def pictures(self, shown: dict[str, Array]) -> np.ndarray:
        """Of `features`, `edges` and `real`, each (examples, pictures, …): all with the places of the first one."""
        places = jax.vmap(_layout)(shown["edges"][:, 0], shown["real"][:, 0])
        count = shown["real"].shape[1]
        views = [(shown["features"][:, i], shown["edges"][:, i], shown["real"][:, i]) for i in range(count)]
        draw = jax.vmap(partial(_drawn, side=WIDE))
        return np.asarray(jnp.stack([draw(places, *view) for view in views], axis=1))

    def thumbnails(self, batch: Batch, side: int) -> Array:
        def one(features: Array, edges: Array, real: Array) -> Array:
            return _drawn(_layout(edges, real), features, edges, real, side)

        return jax.vmap(one)(batch["features"], batch["edges"], batch["real"])


def _layout(edges: Array, real: Array) -> Array:
    """Places (nodes, 2) in [0, 1] of one graph's nodes: springs along edges, while all push each other away.

    Fruchterman and Reingold, "Graph Drawing by Force-directed Placement", 1991.
    """
    nodes, count = len(real), jnp.maximum(real.sum(), 1)
    joined = jnp.zeros((nodes, nodes)).at[edges[0], edges[1]].max((edges[0] >= 0).astype(jnp.float32))
    pairs = (real[:, None] & real)[..., None]
    angle, length = 2 * jnp.pi * jnp.arange(nodes) / count, jnp.sqrt(4.0 / count)

    def pull(i, places):
        apart = places[:, None] - places
        far = jnp.sqrt(jnp.square(apart).sum(axis=-1, keepdims=True) + 1e-6)
        force = apart / far * (length**2 / far - far**2 / length * joined[..., None])
        force = jnp.where(pairs, force, 0.0).sum(axis=1)
        size = jnp.sqrt(jnp.square(force).sum(axis=-1, keepdims=True) + 1e-9)
        return places + force / size * jnp.minimum(size, 0.2 * (1 - i / PULLS))

    places = jax.lax.fori_loop(0, PULLS, pull, jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1))
    low = jnp.where(real[:, None], places, jnp.inf).min(axis=0)
    high = jnp.where(real[:, None], places, -jnp.inf).max(axis=0)
    return jnp.where(real[:, None], 0.5 + (places - (low + high) / 2) / jnp.maximum((high - low).max(), 1e-6), 0.0)


def _drawn(places: Array, features: Array, edges: Array, real: Array, side: int) -> Array:
    """One graph, (side, side, 3) in [0, 1]."""
    at = 2 + jnp.nan_to_num(places) * (side - 5)
    source, target = jnp.maximum(edges, 0)
    part = jnp.linspace(0, 1, POINTS)[:, None, None]
    points = jnp.round(at[source] * (1 - part) + at[target] * part).astype(int)
    hidden = jnp.where(edges[0] >= 0, 0, side)  # behind the edge of the picture, where nothing is drawn
    picture = jnp.ones((side, side, 3))
    picture = picture.at[points[..., 1] + hidden, points[..., 0]].set(0.72, mode="drop")
    # A node's is by the place of its largest feature.
    ink = jnp.asarray(INKS, jnp.float32)[features.argmax(axis=-1) % len(INKS)]
    middle = jnp.round(at).astype(int)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            row = jnp.where(real, middle[:, 1] + dy, side)
            picture = picture.at[row, middle[:, 0] + dx].set(ink, mode="drop")
    return picture
