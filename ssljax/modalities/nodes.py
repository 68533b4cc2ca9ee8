"""The nodes of one graph."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.data.graph_arrays import edge_pairs, given_graph
from ssljax.data.nodes import FORMS, NodeSource, open_nodes, scaled_rows
from ssljax.data.sources import DataError, Shapes, split_spec
from ssljax.modalities.modality import Modality
from ssljax.models.gnn import propagate
from ssljax.typing import Array, Batch

SHOWN = 64
"""Nodes and features in a picture of features."""


class Nodes(Modality):
    """A graph is one example, whole on every device: a batch of n is n corruptions of it."""

    protocols, scaling = ("knn", "linear"), "unit"
    data_fields = {"shape": ()}  # nodes, features and edges; a run writes down what it finds
    view_fields = {}

    def open(self, split: str) -> NodeSource:
        return open_nodes(self.data.source, self.data[f"{split}_split"])

    def settle(self) -> None:
        super().settle()
        shapes = self.open("train").shapes or {}
        self.data.shape = (*shapes["features"][0], shapes["edges"][0][1])

    def shapes(self) -> Shapes:
        if not self.data.shape:
            raise ValueError("how large the graph is is not known yet: settle the config (ssljax.build.settle).")
        nodes, dim, edges = self.data.shape
        return {"features": ((nodes, dim), np.float32), "edges": ((2, edges), np.int32)}

    def stand_in(self, wrong: DataError) -> tuple[Shapes, str]:
        split_spec(self.data.source, FORMS)
        if not self.data.shape:
            raise DataError(
                f"{wrong} Or say how large it is by --config.data.shape=(nodes,features,edges), each edge counted in "
                "both directions."
            )
        nodes, dim, edges = self.data.shape
        return self.shapes(), f"a graph is taken to have {nodes} nodes with {dim} features each, and {edges} edges"

    def as_batch(self, inputs: Mapping[str, np.ndarray]) -> Batch:
        """Of a graph, a dictionary: `features` (nodes, dim), of any scale, and `edges` (2, edges), in one or both
        directions."""
        (_, dim), _ = self.shapes()["features"]
        x, edges = given_graph(inputs, dim)
        made = {"features": scaled_rows(x, "this graph"), "edges": edge_pairs(edges, len(x), "this graph")}
        return {name: jnp.asarray(array)[None] for name, array in made.items()}

    def floors(self) -> dict[str, Callable[[Batch], Array]]:
        def two_hops(batch: Batch) -> Array:
            return propagate(propagate(batch["features"], batch["edges"]), batch["edges"])

        return {"two-hop averages": two_hops, "raw features": lambda batch: batch["features"]}

    def pictures(self, shown: Array) -> np.ndarray:
        """Of features (examples, pictures, nodes, dim): the first of both, a row for each node, dark where they are
        large."""
        rows = np.asarray(shown[:, :, :SHOWN])
        shade = 1 - rows / np.maximum(rows.max(axis=-1, keepdims=True), 1e-12)
        return np.repeat(np.clip(shade, 0, 1)[..., :SHOWN, None], 3, axis=-1)

    def thumbnails(self, batch: Batch, side: int) -> Array:
        """Of each node: its features, line by line, dark where they are large."""
        features = batch["features"]
        edge = int(np.ceil(np.sqrt(features.shape[-1])))
        shade = 1 - jnp.clip(features / jnp.maximum(features.max(axis=-1, keepdims=True), 1e-12), 0, 1)
        squares = jnp.pad(shade, ((0, 0), (0, 0), (0, edge**2 - shade.shape[-1])), constant_values=1.0)
        squares = squares.reshape(*shade.shape[:2], edge, edge, 1)
        sized = jax.image.resize(squares, (*shade.shape[:2], side, side, 1), "linear")
        return jnp.broadcast_to(sized, (*sized.shape[:-1], 3))
