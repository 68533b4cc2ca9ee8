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
from ssljax.losses.regression import TARGET_NORMS
from ssljax.methods.images.image_method import ImageMethod, follow, momentum_network
from ssljax.models import infer, initialise, run
from ssljax.models.vit import NORMAL, ViT
from ssljax.schedules import ema_decay
from ssljax.typing import Array, Batch, TrainState, Variables
from ssljax.views.blocks import block_mask
from ssljax.views.images import draw_views, fold, show_views


@dataclass(frozen=True, eq=False)
class TokenRegression(ImageMethod):
    """What data2vec and I-JEPA share: the tokens of a teacher that follows the encoder are regressed, and a run stops
    where they have become the same.

    momentum: teacher <- momentum · teacher + (1 - momentum) · encoder after each step, going to 1 by momentum_schedule
    over total_steps unless that is "constant".
    target_norm: "layer" (each of the teacher's tokens is normalised by itself, as published) or "instance" (before
    that, each feature over the tokens of its image, as data2vec 2.0 has it). The latter takes out what all tokens of an
    image share, which in small images is above all their colour.
    `target_std` and `prediction_std` in the logs are over the predicted tokens of the batch, the former before
    "instance", which would blow up what is left of tokens that have become the same (fairseq's target_var and pred_var,
    roots of variances too, but with n - 1 below the sum). From step `collapse_after` on, which is to be after the
    warm-up, a run is stopped whose target_std is below least_target_std, or its prediction_std below
    least_prediction_std.
    """

    momentum: float = 0.9998
    momentum_schedule: str = "constant"
    target_norm: str = "layer"
    least_target_std: float = 0.1
    least_prediction_std: float = 0.01
    collapse_after: int = 5000
    total_steps: int = 0

    def __post_init__(self):
        if self.target_norm not in TARGET_NORMS:
            raise ValueError(
                f"--config.method.target_norm='{self.target_norm}' is unknown; use {' or '.join(TARGET_NORMS)}."
            )

    @property
    def grid(self) -> tuple[int, int]:
        side = self.augmentations[0].size // self.encoder.patch
        return side, side

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        momentum = ema_decay(state.step, self.total_steps, start=self.momentum, kind=self.momentum_schedule)
        return state.replace(target=state.target | {"params": follow(state.target["params"], state.params, momentum)})

    def stop(self, step: int, metrics: dict[str, float]) -> str | None:
        for name, least in (("target_std", self.least_target_std), ("prediction_std", self.least_prediction_std)):
            if step >= self.collapse_after and metrics[name] < least:
                return (
                    f"{name} is {metrics[name]:.3g}, below {least}: all patches have become nearly the same. Lower the "
                    f"learning rate, or change --config.method.momentum; --config.method.least_{name}=0 goes on."
                )
        return None


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
