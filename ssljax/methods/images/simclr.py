"""SimCLR: two views of an image attract, all other views of the global batch repel.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssljax.collectives import example_keys
from ssljax.losses import nt_xent
from ssljax.models import infer, initialise, run
from ssljax.models.heads import MLP
from ssljax.typing import Array, Batch, TrainState, Variables
from ssljax.views.images import Augment, center_view, draw_views, show_views


@dataclass(frozen=True, eq=False)
class SimCLR:
    """encoder f, projector g; z = g(f(view)); loss NT-Xent on the z of both views.

    projector: widths of g's layers; each is followed by BatchNorm (over the global batch), the last one without offset.
    Version 1 has (features, 128), version 2 one layer more. convention: see `nt_xent`. eval_crop: share of the short
    side that evaluation sees.
    """

    encoder: nn.Module
    augmentations: tuple[Augment, ...]
    projector: tuple[int, ...] = (2048, 128)
    temperature: float = 0.1
    convention: str = "mean"
    eval_crop: float = 1.0

    mean_over_examples = False
    caption = "the image and the two views that must find each other"

    def __post_init__(self):
        if len(self.augmentations) != 2:
            raise ValueError(
                f"SimCLR compares two views, but the recipe draws {len(self.augmentations)}: choose views 'simclr', "
                "'moco_v2' or 'byol'."
            )

    @property
    def head(self) -> MLP:
        return MLP(self.projector, last_norm="scale", dtype=self.encoder.dtype)

    def init(self, key: Array, batch: Batch) -> Variables:
        keys = jax.random.split(key)
        view = self.views(example_keys(key, len(batch["image"])), batch)[0]
        encoder, encoder_state = initialise(self.encoder, keys[0], view)
        projector, projector_state = initialise(
            self.head, keys[1], jnp.zeros((1, self.encoder.num_features)), train=False
        )
        return Variables(
            params={"encoder": encoder, "projector": projector},
            model_state={"encoder": encoder_state, "projector": projector_state},
            target={},
            extra={},
        )

    def views(self, keys: Array, batch: Batch) -> tuple[Array, ...]:
        return draw_views(self.augmentations, keys, batch)

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        # 1) Both views go through the encoder as one batch of 2N, so that they share BatchNorm's statistics.
        images = jnp.concatenate(views)
        keys = jnp.concatenate([example_keys(k, len(views[0]), axis) for k in jax.random.split(key)])
        h, encoder_state = run(
            self.encoder, params["encoder"], state.model_state["encoder"], images, axis=axis, keys=keys
        )
        # 2) The projector, which is thrown away afterwards.
        z, projector_state = run(self.head, params["projector"], state.model_state["projector"], h, axis=axis)
        # 3) Each view must find the other among all views of the global batch.
        z1, z2 = jnp.split(z, 2)
        loss = nt_xent(z1, z2, self.temperature, convention=self.convention, axis=axis)
        return loss, {
            "model_state": {"encoder": encoder_state, "projector": projector_state},
            "metrics": {},
            "features": h[: len(z1)],
            "embeddings": (z1, z2),
        }

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        return state.replace(model_state=aux["model_state"])

    def features(self, state: Variables, batch: Batch) -> Array:
        view = self.augmentations[0]
        images = center_view(batch, view.size, self.eval_crop, view.mean, view.std)
        return infer(self.encoder, state.params["encoder"], state.model_state["encoder"], images)

    def show(self, state: Variables, batch: Batch, keys: Array) -> Array:
        return show_views(self.augmentations, keys, batch)
