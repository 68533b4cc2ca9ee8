"""iBOT: DINO, and besides the student predicts, of hidden patches, what its teacher makes of them, which sees them.

Zhou et al., "iBOT: Image BERT Pre-Training with Online Tokenizer", 2022.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from ssljax.losses import center_and_sharpen, dino, ema_center, ibot_patches, patch_weights
from ssljax.methods.images.image_method import target_statistics
from ssljax.methods.images.self_distillation import MaskedDistillation
from ssljax.models import infer
from ssljax.models.heads import DINOHead
from ssljax.typing import Array, Batch, TrainState
from ssljax.views.blocks import ibot_mask
from ssljax.views.images import draw_views, fold


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
