"""SCARF: a row, and the same row with most of its values replaced, must find each other.

Bahri et al., "SCARF: Self-Supervised Contrastive Learning using Random Feature Corruption", 2022.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ssljax.losses import info_nce
from ssljax.methods.tables.table_method import TableMethod
from ssljax.models import initialise, run
from ssljax.models.heads import MLP
from ssljax.typing import Array, Batch, TrainState, Variables
from ssljax.views.tables import scarf_corrupt


@dataclass(frozen=True, eq=False)
class SCARF(TableMethod):
    """z = g(f(row)), z̃ = g(f(corrupted row)) with the encoder f and a head g; loss InfoNCE of the z̃ of the global batch
    for each z (the paper's, but for a constant ln N).

    share: of the columns that are replaced. projector: widths of g, with ReLU between its layers.
    """

    share: float = 0.6
    projector: tuple[int, ...] = (256, 256)
    temperature: float = 1.0

    caption = "a row, and the row of which most values are replaced; a square for each column"

    @property
    def head(self) -> MLP:
        return MLP(self.projector, norm=False, dtype=self.encoder.dtype)

    def init(self, key: Array, batch: Batch) -> Variables:
        encoder_key, head_key = jax.random.split(key)
        encoder, _ = initialise(self.encoder, encoder_key, batch["values"])
        head, _ = initialise(self.head, head_key, jnp.zeros((1, self.encoder.num_features)), train=False)
        return Variables(params={"encoder": encoder, "projector": head}, model_state={}, target={}, extra={})

    def views(self, keys: Array, batch: Batch) -> tuple[Array, Array]:
        return batch["values"], scarf_corrupt(keys, batch["values"], batch["donors"], self.share)

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        # 1) Both views go through the network, as one batch.
        h, _ = run(self.encoder, params["encoder"], {}, jnp.concatenate(views), axis=axis)
        z, _ = run(self.head, params["projector"], {}, h, axis=axis)
        z, corrupted = jnp.split(z, 2)
        # 2) Each row must find its corrupted self among those of the global batch.
        loss = info_nce(z, corrupted, temperature=self.temperature, key_gradient=True, axis=axis)
        return loss, {"metrics": {}, "features": h[: len(z)], "embeddings": (z, corrupted)}

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        return state

    def show(self, state: Variables, batch: Batch, keys: Array) -> Array:
        return jnp.stack(self.views(keys, self.neighbours_as_donors(batch)), axis=1)
