"""DINOv2: iBOT's two losses at scale, with a regulariser that spreads representations.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2024.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ssljax.losses import center_and_sharpen, dino, ema_center, ibot_patches, koleo, sinkhorn
from ssljax.methods.images.image_method import target_statistics
from ssljax.methods.images.self_distillation import MaskedDistillation
from ssljax.models import infer, initialise
from ssljax.models.heads import DINOHead
from ssljax.typing import Array, Batch, PyTree, TrainState
from ssljax.views.blocks import dinov2_mask, dinov2_slots
from ssljax.views.masks import pad_masked


@dataclass(frozen=True, eq=False)
class DINOv2(MaskedDistillation):
    """The sum of DINO's loss between class tokens, iBOT's for hidden patches, and `koleo` of the student's class tokens
    of each global view.

    There are two published recipes, and their parts do not mix: a shared head with centring ("ema"), and a head of
    patch_count outputs for patches with centring by Sinkhorn's algorithm ("sinkhorn").

    patch_count, patch_bottleneck: of a head for patches; without a count they share the class token's. centering: how
    the teacher is kept from collapse, "ema" (`ema_center`, of the hidden patches for patches) or "sinkhorn".
    koleo_weight: of the regulariser, which sees the global batch. Of all global views of the batch the share
    mask_probability has hidden patches, and each batch has every share in mask_ratio (`dinov2_mask`).
    """

    norm_last_layer: bool = False
    patch_bottleneck: int = 256
    centering: str = "ema"
    koleo_weight: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if self.centering not in ("ema", "sinkhorn"):
            raise ValueError(f"centering '{self.centering}' is unknown; use 'ema' or 'sinkhorn'.")
        if (self.centering == "sinkhorn") != (self.patch_count > 0):
            raise ValueError(
                f"centering '{self.centering}' with patch_count={self.patch_count} mixes DINOv2's two recipes: 'ema' "
                "has one head (--config.method.patch_count=0), 'sinkhorn' one for patches too (patch_count above 0)."
            )

    @property
    def patch_head(self) -> DINOHead:
        return self.head.clone(count=self.patch_count, bottleneck=self.patch_bottleneck)

    def network(self, key: Array, batch: Batch) -> tuple[PyTree, PyTree]:
        network_key, patch_key = jax.random.split(key)
        params, model_state = super().network(network_key, batch)
        if self.patch_count:
            token = jnp.zeros((1, self.encoder.num_features))
            params["patch_projector"], _ = initialise(self.patch_head, patch_key, token, train=False)
        return params, model_state

    def centers(self) -> dict[str, Array]:
        return {} if self.centering == "sinkhorn" else super().centers()

    def temperature(self, step: Array, final: float) -> Array:
        """The teacher's at a step: T_w + (final - T_w) · min(step / (S - 1), 1), with T_w = warmup_temperature and S
        the steps of warmup_temperature_epochs: it changes at each, where DINO's does once an epoch."""
        steps = self.warmup_temperature_epochs * self.steps_per_epoch
        progress = jnp.minimum(step / max(steps - 1, 1), 1.0) if steps else 1.0
        return jnp.float32(self.warmup_temperature + (final - self.warmup_temperature) * progress)

    def loss(self, params, state: TrainState, crops, key: Array, axis: str | None) -> tuple[Array, dict]:
        student_key, teacher_key, mask_key = jax.random.split(key, 3)
        n = len(crops[0])
        shards = 1 if axis is None else jax.lax.axis_size(axis)
        # 1) Hidden patches, in a fixed number of slots, of which some stay empty.
        ratio, probability = self.mask_ratio, self.mask_probability
        masks = dinov2_mask(mask_key, n, self.grid, ratio=ratio, probability=probability, axis=axis)
        masks = masks.reshape(2 * n, -1)
        slots = dinov2_slots(n, self.grid, shards=shards, ratio=ratio, probability=probability)
        places, weights = pad_masked(masks, slots, together=True)
        # 2) The teacher sees all of the global views.
        teacher = state.target["params"]
        t_class, t_patches = self.without_drop_path.tokens(teacher, crops[:2], teacher_key, axis)
        logits = self.logits(teacher, t_class, t_patches, places)
        targets, patch_targets, extra = self.targets(state, *logits, (weights > 0).astype(jnp.float32), axis)
        # 3) The student sees what is not hidden of them, and the local crops.
        seen, s_class, s_patches = self.student(params, crops, masks, student_key, axis)
        student, student_patches = self.logits(params, s_class, s_patches, places)
        # 4) Every crop must predict the global views that it is not, every hidden patch itself, and all keep apart.
        loss, metrics = self.compare(s_class, student, student_patches, targets, patch_targets, weights / (2 * n), axis)
        return loss, {
            "model_state": state.model_state,
            "target_state": state.target["model_state"],
            "extra": extra,
            "metrics": metrics,
            "features": seen,
            "embeddings": (),
        }

    def logits(self, params, classes: Array, patches: Array, places: Array | slice) -> tuple[Array, Array]:
        """(of class tokens, of the patches at some places of all (n, patches, width))"""
        slots = patches.reshape(-1, patches.shape[-1])[places]
        head, name = (self.patch_head, "patch_projector") if self.patch_count else (self.head, "projector")
        return (
            infer(self.head, params["projector"], {}, classes, train=True),
            infer(head, params[name], {}, slots, train=True),
        )

    def targets(
        self, state: TrainState, classes: Array, patches: Array, filled: Array, axis: str | None
    ) -> tuple[Array, Array, dict[str, Array]]:
        """(probabilities of the teacher's class tokens, of its patches, the centres afterwards), from its logits."""
        temperature = self.temperature(state.step, self.teacher_temperature)
        if self.centering == "sinkhorn":
            of_patches = sinkhorn(patches, epsilon=temperature, weights=filled, axis=axis)
            return sinkhorn(classes, epsilon=temperature, axis=axis), of_patches, {}
        center, patch_center = state.extra["center"], state.extra["patch_center"]
        extra = {
            "center": ema_center(center, classes, self.center_momentum, axis=axis),
            "patch_center": ema_center(patch_center, patches, self.center_momentum, weights=filled, axis=axis),
        }
        of_patches = center_and_sharpen(patches, patch_center, temperature)
        return center_and_sharpen(classes, center, temperature), of_patches, extra

    def compare(self, tokens, logits, patch_logits, targets, patch_targets, weights, axis: str | None):
        """(loss, metrics), from the student's class tokens and logits of all crops, the teacher's targets, and the
        weight of each patch."""
        student = jnp.split(logits, 2 * len(logits) // len(targets))
        between = dino(student, jnp.split(targets, 2), temperature=self.student_temperature)
        within = ibot_patches(patch_logits, patch_targets, weights, temperature=self.student_temperature)
        global_tokens = jnp.split(tokens[: len(targets)], 2) if self.koleo_weight else []
        apart = sum((koleo(view, axis=axis) for view in global_tokens), start=jnp.float32(0))
        loss = between + self.patch_weight * within + self.koleo_weight * apart
        metrics = {
            "class_loss": between,
            "patch_loss": within,
            "koleo": apart,
            **target_statistics(targets, between, axis),
        }
        return loss, metrics
