"""SwAV: the prototypes that one view of an image is assigned to are predicted from its other views.

Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", 2020.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from ssljax import collectives
from ssljax.losses import sinkhorn, swav
from ssljax.methods.images.image_method import JointEmbedding, target_statistics
from ssljax.models import infer, initialise
from ssljax.models.heads import MLP, Prototypes, normalize_prototypes
from ssljax.numerics import normalize
from ssljax.typing import Array, Batch, TrainState, Variables


@dataclass(frozen=True, eq=False)
class SwAV(JointEmbedding):
    """z = g(f(crop)) / |g(f(crop))|, scores s = z · prototypes; the assignments of the first two crops, by Sinkhorn
    over the global batch, are predicted from the scores of all other crops (`swav`).

    projector: widths of g; a hidden layer has BatchNorm. prototypes: how many; they have length 1, and no gradient in
    the first epoch (`optimizer.freeze = ("prototypes",)`). epsilon, iterations: see `sinkhorn`.
    queue: for batches that are small beside the prototypes, so many earlier embeddings of each assigned crop take part
    in Sinkhorn, no fewer than a batch has. It is filled from the epoch `queue_start` on, and used once it is full.
    """

    projector: tuple[int, ...] = (2048, 128)
    prototypes: int = 3000
    temperature: float = 0.1
    epsilon: float = 0.05
    iterations: int = 3
    queue: int = 0
    queue_start: float = 15.0
    steps_per_epoch: float = 1.0

    caption = "the image, the two views that are assigned to prototypes, and the crops that predict them"

    def __post_init__(self):
        self._expect_two_of_one_size("assigns", "'swav'")

    @property
    def head(self) -> MLP:
        return MLP(self.projector, hidden_bias=True, dtype=self.encoder.dtype)

    def init(self, key: Array, batch: Batch) -> Variables:
        network_key, prototypes_key = jax.random.split(key)
        params, model_state = self.network(network_key, batch)
        embedding = jnp.zeros((1, self.projector[-1]))
        params["prototypes"], _ = initialise(Prototypes(self.prototypes), prototypes_key, embedding)
        extra = {}
        if self.queue:
            extra = {"queue": jnp.zeros((2, self.queue, self.projector[-1])), "filled": jnp.int32(0)}
        return Variables(params=params, model_state=model_state, target={}, extra=extra)

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        # 1) All crops of one size go through the encoder together.
        seen, z, model_state = self.embed_by_size(params, state.model_state, views, key, axis)
        z = normalize(z)
        scores = self._scores(params, z)
        # 2) The first two are assigned so that the global batch, and the queue, use all prototypes alike.
        assignments = [self._assign(params, state, scores[i], i, axis) for i in range(2)]
        # 3) Each assignment follows from every other crop.
        loss = swav(tuple(scores), assignments, self.temperature)
        return loss, {
            "model_state": model_state,
            "queued": jax.vmap(lambda z: collectives.gather_replicated(z, axis))(z[:2]) if self.queue else None,
            "metrics": target_statistics(jnp.stack(assignments), loss, axis),
            "features": seen[0],
            "embeddings": (z[0], z[1]),
        }

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        params = state.params | {"prototypes": normalize_prototypes(state.params["prototypes"])}
        state = state.replace(params=params, model_state=aux["model_state"])
        if not self.queue:
            return state
        queue, filled, new = state.extra["queue"], state.extra["filled"], aux["queued"]
        collecting = state.step >= self.queue_start * self.steps_per_epoch
        # The newest come first and push out the oldest.
        after = jnp.concatenate([new, queue[:, : -new.shape[1]]], axis=1)
        extra = {
            "queue": jnp.where(collecting, after, queue),
            "filled": jnp.where(collecting, jnp.minimum(filled + new.shape[1], self.queue), filled),
        }
        return state.replace(extra=extra)

    def _scores(self, params, z: Array) -> Array:
        return infer(Prototypes(self.prototypes), params["prototypes"], {}, z)

    def _assign(self, params, state: TrainState, scores: Array, crop: int, axis: str | None) -> Array:
        """Assignments (batch, prototypes) of this shard's crops."""
        assign = partial(sinkhorn, epsilon=self.epsilon, iterations=self.iterations, axis=axis)
        n = len(scores)
        shards = 1 if axis is None else jax.lax.axis_size(axis)
        if not self.queue:
            if n * shards == 1:
                raise ValueError("SwAV cannot share prototypes out among one image: raise --config.batch_size.")
            return assign(scores)
        if self.queue % shards or self.queue < n * shards:
            raise ValueError(
                f"--config.method.queue={self.queue} must be a multiple of the {shards} shards of a batch, and no "
                f"smaller than a batch, which has {n * shards}."
            )
        # Each shard holds the scores of its part of the queue, which count once the queue is full.
        part = self.queue // shards
        queue = jax.lax.dynamic_slice_in_dim(state.extra["queue"][crop], collectives.shard_offset(part, axis), part)
        earlier = self._scores(params, queue)
        full = jnp.full(part, state.extra["filled"] == self.queue, jnp.float32)
        weights = jnp.concatenate([jnp.ones(n), full])
        return assign(jnp.concatenate([scores, earlier]), weights=weights)[:n]
