"""TS2Vec: two overlapping crops of a series must agree upon each step of their overlap, at every scale of time.

Yue et al., "TS2Vec: Towards Universal Representation of Time Series", 2022.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssljax.collectives import example_keys
from ssljax.losses import ts2vec
from ssljax.models import infer, initialise, run
from ssljax.typing import Array, Batch, TrainState, Variables
from ssljax.views.series import overlapping_crops, seen_steps, shift

SHOWN = 16
"""Features in the picture of a representation."""


@dataclass(frozen=True, eq=False)
class TS2Vec:
    """z1, z2 = f(crop), each with other steps hidden, on the overlap of two random crops; loss `ts2vec`.

    encoder: f; what is evaluated is the mean of its parameters over all steps of training (the authors' SWA), under
    "params" in `target`, max-pooled over time. probability: of a step to be seen. alpha, temporal_unit: the loss's.

    A batch has `series` (batch, time, dim), NaN where a number is missing, and `valid` (batch, time), the steps that
    are there. The overlap has for all series the same share of their length, drawn anew in each step; where it lies,
    and what the crops have beyond it, is each series' own (the authors draw the latter once for a batch).
    """

    encoder: nn.Module
    alpha: float = 0.5
    temporal_unit: int = 0
    probability: float = 0.5

    modality = "series"
    mean_over_examples = False
    needs_labels = False
    caption = "a series, its two crops, and its representation: a row for each of the features that vary most"

    def init(self, key: Array, batch: Batch) -> Variables:
        params, _ = initialise(self.encoder, key, batch["series"], valid=batch["valid"])
        average = {"params": jax.tree.map(jnp.copy, params)}
        return Variables(params={"encoder": params}, model_state={}, target=average, extra={})

    def views(self, keys: Array, batch: Batch) -> dict[str, Array]:
        """The series, which steps are there, which are seen in each crop, and what places the crops."""
        of_draws, *of_seen = jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 3))(keys), 1, 0)
        return {
            "series": batch["series"],
            "valid": batch["valid"],
            "seen": jnp.stack([seen_steps(k, batch["valid"], self.probability) for k in of_seen], axis=1),
            "draws": jax.vmap(lambda key: jax.random.uniform(key, (3,)))(of_draws),
        }

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        series, seen = views["series"], views["seen"]
        share_key, *dropout_keys = jax.random.split(key, 3)
        # 1) Two crops, of which the overlap has one share of each series.
        share = jax.random.uniform(share_key)
        crops = overlapping_crops(views["draws"], views["valid"], share, 2 ** (self.temporal_unit + 1))
        # 2) Both go through the network as one batch.
        keys = jnp.concatenate([example_keys(k, len(series), axis) for k in dropout_keys])
        z, _ = run(
            self.encoder,
            params["encoder"],
            {},
            jnp.concatenate([series, series]),
            jnp.concatenate([seen[:, 0], seen[:, 1]]),
            valid=jnp.concatenate([crops.first, crops.second]),
            axis=axis,
            keys=keys,
        )
        first, second = jnp.split(z, 2)
        # 3) On the overlap, each step is told from the others of its series, and from those of other series.
        mask = jnp.arange(series.shape[1]) < crops.length[:, None]
        z1, z2 = shift(first, crops.start), shift(second, crops.start)
        loss = ts2vec(z1, z2, self.alpha, self.temporal_unit, mask=mask, axis=axis)
        return loss, {"metrics": {}, "features": pool(first, crops.first), "embeddings": ()}

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        """The mean of the parameters over all steps so far."""
        steps = (state.step + 1).astype(jnp.float32)
        average = jax.tree.map(lambda a, p: a + (p - a) / steps, state.target["params"], state.params["encoder"])
        return state.replace(target={"params": average})

    def each_step(self, state: Variables, batch: Batch) -> Array:
        """The representation of each step, (batch, time, dim)."""
        return infer(self.encoder, state.target["params"], {}, batch["series"], valid=batch["valid"])

    def last_step(self, state: Variables, batch: Batch) -> Array:
        """The representation of the last step of each series, (batch, dim)."""
        params, valid = state.target["params"], batch["valid"]
        return infer(self.encoder, params, {}, batch["series"], valid=valid, last=True)[:, 0]

    def surprise(self, state: Variables, batch: Batch) -> Array:
        """The anomaly score of the last step of each series, (batch,): how far, summed over features, its
        representation is from the one that it would have unseen."""
        series, params, valid = batch["series"], state.target["params"], batch["valid"]
        hidden = jnp.broadcast_to(jnp.arange(series.shape[1]) < series.shape[1] - 1, series.shape[:2])
        unseen = infer(self.encoder, params, {}, series, hidden, valid=valid, last=True)[:, 0]
        return jnp.abs(self.last_step(state, batch) - unseen).sum(axis=-1)

    def features(self, state: Variables, batch: Batch) -> Array:
        return pool(self.each_step(state, batch), batch["valid"])

    def show(self, state: Variables, batch: Batch, keys: Array) -> dict[str, Array]:
        """`series` (examples, time, dim), `valid` (examples, 3, time) of it and its crops, and `representation`
        (examples, time, features)."""
        views = self.views(keys, batch)
        crops = overlapping_crops(views["draws"], views["valid"], jnp.float32(0.5))
        z = self.each_step(state, batch)
        real = batch["valid"][..., None]
        mean = (z * real).sum((0, 1)) / jnp.maximum(real.sum(), 1)
        _, chosen = jax.lax.top_k((jnp.square(z - mean) * real).sum((0, 1)), min(SHOWN, z.shape[-1]))
        return {
            "series": batch["series"],
            "valid": jnp.stack([batch["valid"], crops.first, crops.second], axis=1),
            "representation": z[..., chosen],
        }


def pool(z: Array, valid: Array) -> Array:
    """The largest over the steps that are there, (batch, time, dim) -> (batch, dim); 0 where there is none."""
    largest = jnp.where(valid[..., None], z, -jnp.inf).max(axis=1)
    return jnp.where(valid.any(axis=1, keepdims=True), largest, 0.0)
