"""data2vec for images: from a view with hidden patches, predict what a teacher's last blocks make of them.

Baevski et al., "data2vec: A General Framework for Self-supervised Learning in Speech, Vision and Language", 2022;
target_norm="instance": Baevski et al., "Efficient Self-supervised Learning with Contextualized Target Representations
for Vision, Speech and Language", 2023.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssljax import collectives
from ssljax.collectives import example_keys
from ssljax.losses import data2vec_target, smooth_l1
from ssljax.methods.images.image_method import momentum_network
from ssljax.methods.images.token_regression import TokenRegression
from ssljax.models import infer, initialise, run
from ssljax.models.vit import NORMAL, ViT
from ssljax.typing import Array, Batch, TrainState, Variables
from ssljax.views.blocks import block_mask
from ssljax.views.images import draw_views, fold, show_views


@dataclass(frozen=True, eq=False)
class Data2Vec(TokenRegression):
    """target y = `data2vec_target` of the last `layers` blocks of the teacher, which sees the whole view; prediction a
    linear map of the student's tokens; loss `smooth_l1` on the hidden patches.

    mask_ratio: share of the patches that blocks shall hide (120 of 196 in the paper). The published models have a
    constant momentum. The teacher drops nothing.
    """

    layers: int = 6
    beta: float = 2.0
    mask_ratio: float = 120 / 196
    smallest_block: int = 16

    caption = "the image and the view of which blocks of patches are hidden"

    def __post_init__(self):
        if not isinstance(self.encoder, ViT) or not self.encoder.mask_token:
            raise ValueError(
                "data2vec hides patches, so it needs a Vision Transformer with a mask token: choose an encoder vit_* "
                "with --config.encoder.mask_token=True."
            )
        super().__post_init__()
        self._expect_views(1, "'data2vec'")
        patches = self.grid[0] * self.grid[1]
        hidden = int(self.mask_ratio * patches)
        if not 1 <= hidden < patches:
            raise ValueError(
                f"--config.method.mask_ratio={self.mask_ratio} must hide some of the {patches} patches, and not all."
            )
        if self.smallest_block > hidden:
            raise ValueError(
                f"--config.method.mask_ratio={self.mask_ratio} hides {hidden} of {patches} patches, where no block of "
                f"smallest_block={self.smallest_block} fits in: hide more, or lower smallest_block."
            )
        if not 0 < self.layers <= self.encoder.depth:
            raise ValueError(f"targets of {self.layers} blocks need an encoder with as many, not {self.encoder.depth}.")

    @property
    def head(self) -> nn.Dense:
        return nn.Dense(self.encoder.width, kernel_init=NORMAL)

    def init(self, key: Array, batch: Batch) -> Variables:
        encoder_key, head_key = jax.random.split(key)
        images, _, _ = self.views(example_keys(key, len(batch["image"])), batch)
        encoder, _ = initialise(self.encoder, encoder_key, images)
        head, _ = initialise(self.head, head_key, jnp.zeros((1, self.encoder.width)))
        target = momentum_network({"encoder": encoder}, {})
        params = {"encoder": encoder, "head": head}
        return Variables(params=params, model_state={"encoder": {}}, target=target, extra={})

    def views(self, keys: Array, batch: Batch) -> tuple[Array, Array, Array]:
        """The view, which of its patches are hidden, and a key for drop-path."""
        (images,) = draw_views(self.augmentations, fold(keys, 0), batch)
        hidden = int(self.mask_ratio * self.grid[0] * self.grid[1])
        return images, block_mask(fold(keys, 1), self.grid, hidden, smallest=self.smallest_block), fold(keys, 2)

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        images, hidden, keys = views
        prefix = self.encoder.num_prefix
        # 1) The teacher's last blocks, of the whole view.
        teacher, options = self.encoder.clone(drop_path=0.0), {"method": "tokens", "last": self.layers, "norm": False}
        blocks, _ = run(teacher, state.target["params"]["encoder"], {}, images, **options)
        blocks = [block[:, prefix:] for block in blocks]
        target = data2vec_target(blocks, norm=self.target_norm)
        # 2) The student sees what is not hidden.
        options = {"method": "tokens", "masked": hidden, "keys": keys}
        tokens, _ = run(self.encoder, params["encoder"], {}, images, **options)
        patches = tokens[:, prefix:].astype(jnp.float32)
        prediction = infer(self.head, params["head"], {}, patches)
        # 3) The hidden patches of the global batch count alike.
        loss = smooth_l1(prediction, target, beta=self.beta, weights=hidden, axis=axis)
        return loss, {
            "metrics": {
                "target_std": collectives.std(data2vec_target(blocks, norm="layer"), axis, hidden),
                "prediction_std": collectives.std(jax.lax.stop_gradient(prediction), axis, hidden),
            },
            "features": patches.mean(axis=1),
            "embeddings": (),
        }

    def show(self, state: Variables, batch: Batch, keys: Array) -> Array:
        """The image, and its view without what is hidden."""
        shown = show_views(self.augmentations, fold(keys, 0), batch)
        _, hidden, _ = self.views(keys, batch)
        patch = self.encoder.patch
        visible = 1.0 - hidden.reshape(-1, *self.grid).repeat(patch, axis=1).repeat(patch, axis=2)
        return shown.at[:, 1].multiply(visible[:, :, :, None])
