"""iBOT: DINO, and besides the student predicts, of hidden patches, what its teacher makes of them, which sees them.

Zhou et al., "iBOT: Image BERT Pre-Training with Online Tokenizer", 2022.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from ssljax.collectives import example_keys
from ssljax.losses import center_and_sharpen, dino, ema_center, ibot_patches, patch_weights
from ssljax.methods.images.dino import SelfDistillation
from ssljax.methods.images.image_method import target_statistics
from ssljax.models import infer, run
from ssljax.models.heads import DINOHead
from ssljax.models.vit import ViT
from ssljax.typing import Array, Batch, TrainState
from ssljax.views.blocks import ibot_mask
from ssljax.views.images import draw_views, fold


@dataclass(frozen=True, eq=False)
class MaskedDistillation(SelfDistillation):
    """What iBOT and DINOv2 share: tokens of a Vision Transformer that has a mask token, and a head for patches.

    mask_ratio, mask_probability: with that probability a share of a view's patches, uniform in mask_ratio, is hidden.
    patch_weight: of the loss between patches. patch_count: prototypes of patches, if they have their own; 0: they share
    the class token's.
    """

    mask_ratio: tuple[float, float] = (0.1, 0.5)
    mask_probability: float = 0.5
    patch_weight: float = 1.0
    patch_count: int = 0

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.encoder, ViT) or not self.encoder.mask_token or not self.encoder.cls_token:
            raise ValueError(
                f"{type(self).__name__} hides patches, so it needs a Vision Transformer with a class token and a mask "
                "token: choose an encoder vit_* with --config.encoder.mask_token=True."
            )

    @property
    def grid(self) -> tuple[int, int]:
        side = self.augmentations[0].size // self.encoder.patch
        return side, side

    def centers(self) -> dict[str, Array]:
        return {"center": jnp.zeros(self.count), "patch_center": jnp.zeros(self.patch_count or self.count)}

    def tokens(self, params, crops, key: Array, axis: str | None, masked: Array | None = None) -> tuple[Array, Array]:
        """(class tokens (n, width), patches (n, patches, width)) of n crops of one size, given for each view."""
        keys = [example_keys(k, len(crops[0]), axis) for k in jax.random.split(key, len(crops))]
        options = {"keys": jnp.concatenate(keys), **({} if masked is None else {"masked": masked})}
        tokens, _ = run(self.encoder, params["encoder"], {}, jnp.concatenate(crops), method="tokens", **options)
        return tokens[:, 0], tokens[:, self.encoder.num_prefix :]

    def student(self, params, crops, masked: Array | None, key: Array, axis: str | None) -> tuple[Array, Array, Array]:
        """(representation of the first view, class tokens of all crops, patches of the global views)"""
        global_key, local_key = jax.random.split(key)
        classes, patches = self.tokens(params, crops[:2], global_key, axis, masked)
        if len(crops) > 2:
            of_locals, _ = self.tokens(params, crops[2:], local_key, axis)
            classes = jnp.concatenate([classes, of_locals])
        return classes[: len(crops[0])], classes, patches


@dataclass(frozen=True, eq=False)
class IBOT(MaskedDistillation):
    """DINO's loss between the class tokens of different crops, and for each global view, of which the student sees a
    part, the same between its hidden patches and the teacher's (`ibot_patches`); the sum of both.

    patch_count: if not 0, outputs of `last_layer2`, a last layer of the head for patches, to be frozen with the other
    one (`optimizer.freeze = ("last_layer*",)`). patch_temperature: as teacher_temperature, for patches. mask_shape: of
    what is hidden, "block" or "random" patches. The centre for patches is that of all of the teacher's, hidden or not.
    """

    patch_temperature: float = 0.07
    mask_shape: str = "block"

    @property
    def head(self) -> DINOHead:
        return super().head.clone(patch_count=self.patch_count or None)

    def views(self, keys: Array, batch: Batch) -> tuple[tuple[Array, ...], tuple[Array, Array]]:
        """The crops, and which patches of the two global ones are hidden."""
        mask = partial(
            ibot_mask,
            grid=self.grid,
            ratio=self.mask_ratio,
            probability=self.mask_probability,
            shape=self.mask_shape,
        )
        return draw_views(self.augmentations, fold(keys, 0), batch), (mask(fold(keys, 1)), mask(fold(keys, 2)))

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        crops, hidden = views
        student_key, teacher_key = jax.random.split(key)
        masks = jnp.concatenate(hidden)
        # 1) The teacher sees all of the global views.
        teacher = state.target["params"]
        t_class, t_patches = self.without_drop_path.tokens(teacher, crops[:2], teacher_key, axis)
        t_class, t_patches = self._logits(teacher, t_class), self._logits(teacher, t_patches, patches=True)
        temperatures = [self.temperature(state.step, t) for t in (self.teacher_temperature, self.patch_temperature)]
        targets = center_and_sharpen(t_class, state.extra["center"], temperatures[0])
        patch_targets = center_and_sharpen(t_patches, state.extra["patch_center"], temperatures[1])
        # 2) The student sees what is not hidden of them, and the local crops.
        seen, s_class, s_patches = self.student(params, crops, masks, student_key, axis)
        # 3) Every crop must predict the global views that it is not, and every hidden patch itself.
        student = self._logits(params, s_class)
        between = dino(jnp.split(student, len(crops)), jnp.split(targets, 2), temperature=self.student_temperature)
        within = ibot_patches(
            self._logits(params, s_patches, patches=True),
            patch_targets,
            patch_weights(masks),
            temperature=self.student_temperature,
        )
        # 4) The centres move after they were used.
        extra = {
            "center": ema_center(state.extra["center"], t_class, self.center_momentum, axis=axis),
            "patch_center": ema_center(state.extra["patch_center"], t_patches, self.center_momentum, axis=axis),
        }
        return between + self.patch_weight * within, {
            "model_state": state.model_state,
            "target_state": state.target["model_state"],
            "extra": extra,
            "metrics": {
                "class_loss": between,
                "patch_loss": within,
                **target_statistics(targets, between, axis),
            },
            "features": seen,
            "embeddings": (),
        }

    def _logits(self, params, tokens: Array, *, patches: bool = False) -> Array:
        return infer(self.head, params["projector"], {}, tokens, train=True, patches=patches and self.patch_count > 0)
