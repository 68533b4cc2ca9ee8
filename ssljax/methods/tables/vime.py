"""VIME's self-supervised part: say which values of a row were replaced, and what stood there.

Yoon et al., "VIME: Extending the Success of Self- and Semi-supervised Learning to Tabular Domain", 2020.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssljax.losses import vime
from ssljax.methods.tables.table_method import TableMethod
from ssljax.models import infer, initialise, run
from ssljax.models.mlp import expand
from ssljax.typing import Array, Batch, TrainState, Variables
from ssljax.views.tables import vime_corrupt


@dataclass(frozen=True, eq=False)
class VIME(TableMethod):
    """h = f(corrupted row); from h two linear heads tell where values are others, and what all were: numbers in [0, 1]
    (`data.scale = "minmax"`) and one-hot categories, both by a sigmoid; loss `vime`.

    probability: of each value to be replaced. alpha: weight of the reconstruction. The authors draw the corruption once
    for the whole run; here it is drawn anew in every epoch.
    """

    probability: float = 0.3
    alpha: float = 2.0

    mean_over_examples = True
    caption = "a row, the row of which some values are replaced, and where; a square for each column"

    def heads(self) -> dict[str, nn.Dense]:
        columns = self.encoder.cardinalities
        return {"mask": nn.Dense(len(columns)), "values": nn.Dense(sum(max(n, 1) for n in columns))}

    def init(self, key: Array, batch: Batch) -> Variables:
        encoder_key, *head_keys = jax.random.split(key, 3)
        encoder, _ = initialise(self.encoder, encoder_key, batch["values"])
        features, params = jnp.zeros((1, self.encoder.num_features)), {"encoder": encoder}
        for head_key, (name, head) in zip(head_keys, self.heads().items(), strict=True):
            params[name], _ = initialise(head, head_key, features)
        return Variables(params=params, model_state={}, target={}, extra={})

    def views(self, keys: Array, batch: Batch) -> tuple[Array, Array, Array]:
        """The rows, the corrupted rows, and where these are others."""
        corrupted, mask = vime_corrupt(keys, batch["values"], batch["donors"], self.probability)
        return batch["values"], corrupted, mask

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        values, corrupted, mask = views
        h, _ = run(self.encoder, params["encoder"], {}, corrupted, axis=axis)
        logits = {name: infer(head, params[name], {}, h) for name, head in self.heads().items()}
        target = expand(values, self.encoder.cardinalities)
        loss = vime(logits["mask"], mask, nn.sigmoid(logits["values"]), target, self.alpha)
        right = ((logits["mask"] > 0) == (mask > 0)).mean()
        return loss, {"metrics": {"mask_accuracy": right}, "features": h, "embeddings": ()}

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        return state

    def show(self, state: Variables, batch: Batch, keys: Array) -> Array:
        return jnp.stack(self.views(keys, self.neighbours_as_donors(batch)), axis=1)
