"""SimCLR: two views of an image attract, all other views of the global batch repel.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ssljax.collectives import example_keys
from ssljax.losses import nt_xent
from ssljax.methods.images.image_method import JointEmbedding
from ssljax.models.heads import MLP
from ssljax.typing import Array, TrainState


@dataclass(frozen=True, eq=False)
class SimCLR(JointEmbedding):
    """encoder f, projector g; z = g(f(view)); loss NT-Xent on the z of both views.

    projector: widths of g's layers; each is followed by BatchNorm (over the global batch), the last one without offset.
    Version 1 has (features, 128), version 2 one layer more. convention: see `nt_xent`.
    """

    projector: tuple[int, ...] = (2048, 128)
    temperature: float = 0.1
    convention: str = "mean"

    caption = "the image and the two views that must find each other"

    def __post_init__(self):
        self._expect_views(2, "'simclr', 'moco_v2' or 'byol'")

    @property
    def head(self) -> MLP:
        return MLP(self.projector, last_norm="scale", dtype=self.encoder.dtype)

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        # 1) Both views go through the network as one batch of 2N, so that they share BatchNorm's statistics.
        keys = jnp.concatenate([example_keys(k, len(views[0]), axis) for k in jax.random.split(key)])
        h, z, model_state = self.embed(params, state.model_state, jnp.concatenate(views), keys, axis)
        # 2) Each view must find the other among all views of the global batch.
        z1, z2 = jnp.split(z, 2)
        loss = nt_xent(z1, z2, self.temperature, convention=self.convention, axis=axis)
        return loss, {
            "model_state": model_state,
            "metrics": {},
            "features": h[: len(z1)],
            "embeddings": (z1, z2),
        }
