"""GraphCL: a graph must find its own augmentation among those of others.

You et al., "Graph Contrastive Learning with Augmentations", 2020.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssljax.losses import graphcl
from ssljax.models import infer, initialise, run
from ssljax.models.heads import MLP
from ssljax.typing import Array, Batch, TrainState, Variables
from ssljax.views.graphs import Graphs, any_augmentation, drop_edges, drop_nodes, mask_attributes, subgraph


@dataclass(frozen=True, eq=False)
class GraphCL:
    """z1 = g(f(graph)), z2 = g(f(augmentation)) with the encoder f and a head g of the same width; loss `graphcl`. One
    of the views is the graph itself, as in the authors' code.

    augmentation: drop_nodes, drop_edges, mask_attributes, subgraph, or random (for each graph one of the four). share:
    of nodes or edges that an augmentation changes. kept: of the nodes that a subgraph has.

    A batch has `features` (batch, nodes, dim), `edges` (batch, 2, edges) and `real` (batch, nodes), as in
    `ssljax.views.graphs.Graphs`.
    """

    encoder: nn.Module
    augmentation: str = "random"
    share: float = 0.1
    kept: float = 0.2
    temperature: float = 0.2

    modality = "graphs"
    mean_over_examples = False
    needs_labels = False
    caption = "a graph, and its augmentation, its nodes at the same places; a colour for each kind of node"

    def __post_init__(self):
        if self.augmentation not in self.augmentations():
            raise ValueError(
                f"--config.method.augmentation={self.augmentation} is unknown; use {', '.join(self.augmentations())}."
            )

    def augmentations(self) -> dict[str, Callable[[Array, Graphs], Graphs]]:
        return {
            "drop_nodes": partial(drop_nodes, share=self.share),
            "drop_edges": partial(drop_edges, share=self.share),
            "mask_attributes": partial(mask_attributes, share=self.share),
            "subgraph": partial(subgraph, share=self.kept),
            "random": partial(any_augmentation, share=self.share, kept=self.kept),
        }

    @property
    def head(self) -> MLP:
        width = self.encoder.num_features
        return MLP((width, width), norm=False, dtype=self.encoder.dtype)

    def init(self, key: Array, batch: Batch) -> Variables:
        encoder_key, head_key = jax.random.split(key)
        encoder, statistics = initialise(self.encoder, encoder_key, *_graphs(batch))
        head, _ = initialise(self.head, head_key, jnp.zeros((1, self.encoder.num_features)), train=False)
        return Variables(
            params={"encoder": encoder, "projector": head},
            model_state={"encoder": statistics},
            target={},
            extra={},
        )

    def views(self, keys: Array, batch: Batch) -> tuple[Graphs, Graphs]:
        graphs = _graphs(batch)
        return graphs, self.augmentations()[self.augmentation](keys, graphs)

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        # 1) Each view goes through the encoder by itself: BatchNorm's statistics are of one of them.
        statistics, h = state.model_state["encoder"], []
        for view in views:
            features, statistics = run(self.encoder, params["encoder"], statistics, *view, axis=axis)
            h.append(features)
        # 2) A graph must find its augmentation among those of the global batch.
        z, _ = run(self.head, params["projector"], {}, jnp.concatenate(h), axis=axis)
        z1, z2 = jnp.split(z, 2)
        return graphcl(z1, z2, self.temperature, axis=axis), {
            "model_state": {"encoder": statistics},
            "metrics": {},
            "features": h[0],
            "embeddings": (z1, z2),
        }

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        return state.replace(model_state=aux["model_state"])

    def features(self, state: Variables, batch: Batch) -> Array:
        """The sums over nodes of every layer, side by side."""
        return infer(self.encoder, state.params["encoder"], state.model_state["encoder"], *_graphs(batch))

    def show(self, state: Variables, batch: Batch, keys: Array) -> dict[str, Array]:
        """Both views: `features`, `edges` and `real`, each (examples, 2, …)."""
        views = self.views(keys, batch)
        return {name: jnp.stack([getattr(v, name) for v in views], axis=1) for name in Graphs._fields}


def _graphs(batch: Batch) -> Graphs:
    return Graphs(*(batch[name] for name in Graphs._fields))
