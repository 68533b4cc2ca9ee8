"""MoCo v2: a query must find its key among the keys of earlier batches, made by a slowly moving copy of the network.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", 2020;
Chen et al., "Improved Baselines with Momentum Contrastive Learning", 2020.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ssljax import collectives
from ssljax.losses import info_nce
from ssljax.methods.images.image_method import JointEmbedding, follow, momentum_network
from ssljax.methods.images.memory import enqueue, new_queue
from ssljax.models.heads import MLP
from ssljax.models.resnet import ResNet
from ssljax.numerics import normalize
from ssljax.schedules import ema_decay
from ssljax.typing import Array, Batch, TrainState, Variables


@dataclass(frozen=True, eq=False)
class MoCoV2(JointEmbedding):
    """query q = g(f(view 1)); key k = g'(f'(view 2)) with the momentum network f', g'; loss InfoNCE with a queue.

    projector: widths of g, ReLU between, no BatchNorm. queue: number of keys that are remembered, no fewer than a batch
    has. momentum: f' <- momentum f' + (1 - momentum) f, before the keys are made, so with the weights that the step
    started from; it may go to 1 over `total_steps` (momentum_schedule "cosine" or "linear"; the paper's is "constant").
    Where BatchNorm is of groups of the batch (`bn_groups` > 1, or microbatches), the keys are shuffled over the global
    batch before their forward pass and back after it, so that no query shares its statistics with its key: the paper's
    ShuffleBN with any number of devices.
    """

    projector: tuple[int, ...] = (2048, 128)
    temperature: float = 0.2
    queue: int = 65536
    momentum: float = 0.999
    momentum_schedule: str = "constant"
    total_steps: int = 0

    caption = "the image, the query's view and the key's view"

    def __post_init__(self):
        self._expect_views(2, "'moco_v2', 'simclr' or 'byol'")
        if not self.queue:
            raise ValueError(
                "--config.method.queue=0 leaves no keys to tell a query's own from: give it a batch's at least."
            )

    @property
    def head(self) -> MLP:
        return MLP(self.projector, norm=False, dtype=self.encoder.dtype)

    def init(self, key: Array, batch: Batch) -> Variables:
        network_key, queue_key = jax.random.split(key)
        params, model_state = self.network(network_key, batch)
        return Variables(
            params=params,
            model_state=model_state,
            target=momentum_network(params, model_state),
            extra=new_queue(queue_key, self.queue, self.projector[-1]),
        )

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        query_key, key_key, shuffle_key = jax.random.split(key, 3)
        for_query, for_key = views
        # 1) Queries, from the network that learns.
        keys = collectives.example_keys(query_key, len(for_query), axis)
        h, q, model_state = self.embed(params, state.model_state, for_query, keys, axis)
        # 2) The momentum network takes its step towards the weights before this step's update.
        momentum = ema_decay(state.step, self.total_steps, start=self.momentum, kind=self.momentum_schedule)
        momentum_params = follow(state.target["params"], state.params, momentum)
        # 3) Keys, in train mode with statistics of their own, among other neighbours than the queries had.
        images, unshuffle = self._shuffle(for_key, shuffle_key, axis)
        keys = collectives.example_keys(key_key, len(images), axis)
        _, k, target_state = self.embed(momentum_params, state.target["model_state"], images, keys, axis)
        keys = unshuffle(normalize(k))
        # 4) Each query must tell its own key from the queue, in which this batch's keys are not yet.
        own = jax.lax.dynamic_slice_in_dim(keys, collectives.shard_offset(len(q), axis), len(q))
        loss = info_nce(q, own, state.extra["queue"], self.temperature)
        return loss, {
            "model_state": model_state,
            "target": {"params": momentum_params, "model_state": target_state},
            "keys": keys,
            "metrics": {},
            "features": h,
            "embeddings": (q, own),
        }

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        extra = enqueue(state.extra, aux["keys"])
        return state.replace(model_state=aux["model_state"], target=aux["target"], extra=extra)

    def _shuffle(self, images, key, axis):
        """This shard's part of the shuffled global batch, and what gathers its embeddings in the old order."""
        # Microbatches are groups too.
        groups = max(self.encoder.bn_groups, self.encoder.chunks) if isinstance(self.encoder, ResNet) else 1
        if groups == 1 or self.encoder.norm != "batch":
            return images, lambda k: collectives.gather_replicated(k, axis)
        everyone = collectives.gather_replicated(images, axis)
        order = jax.random.permutation(key, len(everyone))
        mine = jax.lax.dynamic_slice_in_dim(order, collectives.shard_offset(len(images), axis), len(images))
        return everyone[mine], lambda k: collectives.gather_replicated(k, axis)[jnp.argsort(order)]
