"""SimCLR v2: SimCLR with a deeper projector and, where it is wanted, a memory of negatives. It is then fine-tuned from
the projector's first layer (`fine_tune`), and distilled into a network of any size (`distill`).

Chen et al., "Big Self-Supervised Models are Strong Semi-Supervised Learners", 2020.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ssljax.collectives import example_keys, gather_replicated
from ssljax.losses import info_nce
from ssljax.methods.images.image_method import follow, momentum_network
from ssljax.methods.images.memory import enqueue, new_queue
from ssljax.methods.images.simclr import SimCLR
from ssljax.numerics import normalize
from ssljax.typing import Array, Batch, TrainState, Variables


@dataclass(frozen=True, eq=False)
class SimCLRv2(SimCLR):
    """SimCLR with three layers in the projector.

    memory: number of keys that are remembered, no fewer than both views of a batch; 0: none, as in SimCLR. With one,
    each view must find the key that a momentum network f' makes of the other view, among the keys of the other views of
    the global batch and those remembered, of earlier batches: f' <- momentum f' + (1 - momentum) f before the keys are
    made, as in MoCo. The authors' code has no memory; the paper says no more of it than that.
    """

    projector: tuple[int, ...] = (2048, 2048, 128)
    memory: int = 0
    momentum: float = 0.999

    def init(self, key: Array, batch: Batch) -> Variables:
        if not self.memory:
            return super().init(key, batch)
        network_key, queue_key = jax.random.split(key)
        params, model_state = self.network(network_key, batch)
        return Variables(
            params=params,
            model_state=model_state,
            target=momentum_network(params, model_state),
            extra=new_queue(queue_key, self.memory, self.projector[-1]),
        )

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        if not self.memory:
            return super().loss(params, state, views, key, axis)
        both = jnp.concatenate(views)
        keys = jnp.concatenate([example_keys(k, len(views[0]), axis) for k in jax.random.split(key)])
        # 1) Queries of both views, from the network that learns.
        h, z, model_state = self.embed(params, state.model_state, both, keys, axis)
        # 2) The momentum network takes its step towards the weights before this step's update, and makes the keys.
        momentum_params = follow(state.target["params"], state.params, self.momentum)
        _, k, target_state = self.embed(momentum_params, state.target["model_state"], both, keys, axis)
        k1, k2 = jnp.split(normalize(k), 2)
        # 3) Each view must find the other view's key among those of the global batch and the remembered ones.
        z1, z2 = jnp.split(z, 2)
        queue = state.extra["queue"]
        loss = info_nce(z1, k2, queue, self.temperature, in_batch=True, axis=axis) + info_nce(
            z2, k1, queue, self.temperature, in_batch=True, axis=axis
        )
        return loss if self.convention == "sum" else loss / 2, {
            "model_state": model_state,
            "target": {"params": momentum_params, "model_state": target_state},
            "keys": jnp.concatenate([gather_replicated(k1, axis), gather_replicated(k2, axis)]),
            "metrics": {},
            "features": h[: len(z1)],
            "embeddings": (z1, z2),
        }

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        if not self.memory:
            return super().update(state, aux, axis)
        extra = enqueue(state.extra, aux["keys"])
        return state.replace(model_state=aux["model_state"], target=aux["target"], extra=extra)
