"""NPID, instance discrimination: every image of the data is a class, and a memory bank holds what stands for each.

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", 2018.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ssljax import collectives
from ssljax.collectives import example_keys
from ssljax.losses import nce, nce_log_z
from ssljax.methods.images.image_method import JointEmbedding
from ssljax.models.heads import MLP
from ssljax.numerics import normalize, product
from ssljax.typing import Array, Batch, TrainState, Variables
from ssljax.views.images import draw_views

ROWS = 3 * 5 * 1024
"""The bank's rows are a multiple of it, so that they can be dealt to any number of devices that divides it: powers of
two, and three, five and fifteen times these."""


@dataclass(frozen=True, eq=False)
class NPID(JointEmbedding):
    """f = g(encoder(view)) / |·| must be nearer to its own image's row of the bank than to those of `noise` images
    drawn at random: the loss is `nce`, whose constant Z is estimated from the first batch and kept.

    projector: widths of g, linear in the paper. noise: how many, with replacement, its own image not excluded; 0: all
    images, by a softmax instead (the authors' recipe for CIFAR). bank_momentum: v <- bank_momentum v + (1 -
    bank_momentum) f, normalised, after each step; where an image is twice in a global batch, the mean of its f.
    examples: how many images the data has. The bank, with a row (dim,) for each, is split over the devices, `data` by
    rows: a shard compares the whole batch with its rows.
    """

    projector: tuple[int, ...] = (128,)
    temperature: float = 0.07
    noise: int = 4096
    bank_momentum: float = 0.5
    examples: int = 0

    split_over_data = ("bank",)
    caption = "the image and the view that must find it in the memory bank"

    def __post_init__(self):
        self._expect_views(1, "'npid'")

    @property
    def head(self) -> MLP:
        return MLP(self.projector, norm=False, dtype=self.encoder.dtype)

    def init(self, key: Array, batch: Batch) -> Variables:
        network_key, bank_key = jax.random.split(key)
        params, model_state = self.network(network_key, batch)
        if self.examples < 1:
            raise ValueError("NPID's bank has a row for each image of the data: give it examples, how many they are.")
        shape = -(-self.examples // ROWS) * ROWS, self.projector[-1]
        bound = (3 / shape[1]) ** 0.5
        bank = jax.random.uniform(bank_key, shape, minval=-bound, maxval=bound)
        extra = {"bank": bank, "log_z": jnp.float32(0)}
        return Variables(params=params, model_state=model_state, target={}, extra=extra)

    def views(self, keys: Array, batch: Batch) -> tuple[Array, Array]:
        """The view, and which image it is of."""
        (view,) = draw_views(self.augmentations, keys, batch)
        if "index" not in batch:
            raise ValueError("NPID needs the place of each image in the data: give the batch an 'index' (batch,).")
        return view, batch["index"]

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        images, index = views
        network_key, noise_key = jax.random.split(key)
        keys = example_keys(network_key, len(images), axis)
        h, f, model_state = self.embed(params, state.model_state, images, keys, axis)
        f = normalize(f)
        bank = state.extra["bank"]
        log_z = state.extra["log_z"]
        if self.noise:
            keys = example_keys(noise_key, len(images), axis)
            drawn = jax.vmap(lambda key: jax.random.randint(key, (self.noise,), 0, self.examples))(keys)
            similarity = self._similarity(f, bank, jnp.concatenate([index[:, None], drawn], axis=1), axis)
            own, others = similarity[:, 0], similarity[:, 1:]
            log_z = jnp.where(state.step == 0, nce_log_z(own, others, self.examples, axis=axis), log_z)
            loss = nce(own, others, log_z, self.examples)
        else:
            own = self._similarity(f, bank, index[:, None], axis)[:, 0]
            loss = jnp.mean(self._log_sum_exp(f, bank, axis) - own)
        return loss, {
            "model_state": model_state,
            "log_z": log_z,
            "index": collectives.gather_replicated(index, axis),
            "embedded": collectives.gather_replicated(jax.lax.stop_gradient(f), axis),
            "metrics": {},
            "features": h,
            "embeddings": (),
        }

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        bank, index, f = state.extra["bank"], aux["index"], aux["embedded"]
        same = (index[:, None] == index).astype(jnp.float32)
        f = product(same, f) / same.sum(axis=1, keepdims=True)
        here, held = self._held(index, bank, axis)
        rows = normalize(self.bank_momentum * bank[here] + (1 - self.bank_momentum) * f)
        # What another shard holds is written past the end, which is nowhere.
        bank = bank.at[jnp.where(held, here, len(bank))].set(rows, mode="drop")
        return state.replace(model_state=aux["model_state"], extra={"bank": bank, "log_z": aux["log_z"]})

    def _similarity(self, f: Array, bank: Array, index: Array, axis: str | None) -> Array:
        """f · bank row / T (batch, columns) of the images `index` (batch, columns), wherever their rows are."""
        here, held = self._held(collectives.gather(index, axis), bank, axis)

        @jax.checkpoint  # the rows of one example are alive at a time, in the backward pass too
        def of_one(example):
            f, here, held = example
            return jnp.where(held, product(bank[here], f), 0.0)

        found = jax.lax.map(of_one, (collectives.gather(f, axis), here, held)) / self.temperature
        return found if axis is None else jax.lax.psum_scatter(found, axis, tiled=True)

    def _log_sum_exp(self, f: Array, bank: Array, axis: str | None) -> Array:
        """log Σ exp(f · v / T) (batch,) over the rows v of all images."""
        everyone = collectives.gather(f, axis)
        first = collectives.shard_offset(len(bank), axis)
        similarity = product(everyone, bank.T) / self.temperature
        real = first + jnp.arange(len(bank)) < self.examples
        here = jax.nn.logsumexp(jnp.where(real, similarity, -1e30), axis=1)
        if axis is None:
            return here
        largest = jax.lax.stop_gradient(jax.lax.pmax(jax.lax.stop_gradient(here), axis))
        total = jax.lax.psum_scatter(jnp.exp(here - largest), axis, tiled=True)
        own = jax.lax.dynamic_slice_in_dim(largest, collectives.shard_offset(len(f), axis), len(f))
        return own + jnp.log(total)

    def _held(self, index: Array, bank: Array, axis: str | None) -> tuple[Array, Array]:
        """(place in this shard's rows, whether they are here)"""
        place = index - collectives.shard_offset(len(bank), axis)
        held = (place >= 0) & (place < len(bank))
        return jnp.where(held, place, 0), held
