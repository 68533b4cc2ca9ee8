"""DGI: tell the nodes of a graph from those of a corruption, by a summary of the whole graph.

Veličković et al., "Deep Graph Infomax", 2019.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssljax.losses import dgi
from ssljax.models import infer, initialise, run
from ssljax.numerics import product
from ssljax.typing import Array, Batch, TrainState, Variables
from ssljax.views.graphs import permute_nodes


class Discriminator(nn.Module):
    """Logits hᵀ W s + b of nodes (batch, nodes, dim) and summaries (batch, dim): (batch, nodes), float32."""

    @nn.compact
    def __call__(self, nodes: Array, summary: Array) -> Array:
        dim = nodes.shape[-1]
        kernel = self.param("kernel", nn.initializers.xavier_uniform(), (dim, dim))
        bias = self.param("bias", nn.initializers.zeros, ())
        return product(product(nodes, kernel), summary[:, :, None])[..., 0] + bias


@dataclass(frozen=True, eq=False)
class DGI:
    """h = f(X, A), h̃ = f(X̃, A) with the features' rows in another order, s = σ(mean h); loss `dgi` of the logits
    hᵀ W s + b and h̃ᵀ W s + b.

    encoder: f. A batch has `features` (batch, nodes, dim) and `edges` (batch, 2, edges): it is the same graph again and
    again, with another corruption each time, so that a batch of n takes the mean over n corruptions.
    """

    encoder: nn.Module

    modality = "nodes"
    mean_over_examples = True
    needs_labels = False
    caption = "features of the first nodes, and of those that take their places; a row for each node"

    def init(self, key: Array, batch: Batch) -> Variables:
        encoder_key, discriminator_key = jax.random.split(key)
        encoder, _ = initialise(self.encoder, encoder_key, batch["features"], batch["edges"])
        nodes, summary = jnp.zeros((1, 1, self.encoder.num_features)), jnp.zeros((1, self.encoder.num_features))
        discriminator, _ = initialise(Discriminator(), discriminator_key, nodes, summary)
        params = {"encoder": encoder, "discriminator": discriminator}
        return Variables(params=params, model_state={}, target={}, extra={})

    def views(self, keys: Array, batch: Batch) -> tuple[Array, Array, Array]:
        """The features, the corrupted ones, and the edges, which are of both."""
        return batch["features"], permute_nodes(keys, batch["features"]), batch["edges"]

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        features, corrupted, edges = views
        # 1) The graph and its corruption go through the encoder as one batch.
        both, edges = jnp.concatenate([features, corrupted]), jnp.concatenate([edges, edges])
        nodes, _ = run(self.encoder, params["encoder"], {}, both, edges, axis=axis)
        real, fake = jnp.split(nodes, 2)
        # 2) A summary of the real one must tell whose a node is.
        summary = nn.sigmoid(real.mean(axis=1))
        positive, negative = (infer(Discriminator(), params["discriminator"], {}, h, summary) for h in (real, fake))
        accuracy = ((positive > 0).mean() + (negative <= 0).mean()) / 2
        rows = real.reshape(-1, real.shape[-1])
        return dgi(positive, negative), {"metrics": {"accuracy": accuracy}, "features": rows, "embeddings": ()}

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        return state

    def features(self, state: Variables, batch: Batch) -> Array:
        """Of the nodes: (batch, nodes, dim)."""
        return infer(self.encoder, state.params["encoder"], {}, batch["features"], batch["edges"])

    def show(self, state: Variables, batch: Batch, keys: Array) -> Array:
        features, corrupted, _ = self.views(keys, batch)
        return jnp.stack([features, corrupted], axis=1)
