"""What the methods for tables have in common: an encoder of rows, and how it is judged."""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp

from ssljax.models import infer
from ssljax.typing import Array, Batch, Variables


@dataclass(frozen=True, eq=False)
class TableMethod:
    """encoder: what is pretrained; its parameters lie under "encoder" in `params`.

    A batch has `values` and `donors`, (batch, columns) both; evaluation sees the values alone.
    """

    encoder: nn.Module

    modality = "tables"
    mean_over_examples = False
    needs_labels = False

    def features(self, state: Variables, batch: Batch) -> Array:
        return infer(self.encoder, state.params["encoder"], {}, batch["values"])

    def neighbours_as_donors(self, batch: Batch) -> Batch:
        """For pictures: a batch that was not drawn for training, each row's donor the next row."""
        return {"donors": jnp.roll(batch["values"], 1, axis=0), **batch}
