"""DINOv2's distillation: a small encoder learns from a large one that was trained before, by the same losses.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2024, section 5.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ssljax.methods.images.dinov2 import DINOv2
from ssljax.methods.images.image_method import taken
from ssljax.methods.images.self_distillation import SelfDistillation
from ssljax.models.vit import ViT
from ssljax.typing import Array, Batch, TrainState, Variables


@dataclass(frozen=True, eq=False)
class DINOv2Distill(DINOv2):
    """DINOv2 whose teacher is another, larger one: encoder and heads that do not move. Nothing is hidden from the
    student, so every patch of both global views counts. The student's moving average is kept, and is what is evaluated.

    teacher: in a config the folder of a DINOv2 run; here that run's method. Its averaged network is taken, and the
    centres that it ended with, where both have them. count and patch_count must be its, and so must be the encoder's
    patch; the heads' other widths are free. There is no drop-path in the paper's student: leave it at 0. mask_ratio and
    mask_probability have no effect. All patches' logits are a large array: (2 batch · patches, count).
    """

    teacher: Any = ""

    teachers = "a run of 'dinov2' or 'dinov2_distill'"

    def __post_init__(self):
        self._expect_teacher(self.teacher, DINOv2, self.teachers)
        SelfDistillation.__post_init__(self)
        if not isinstance(self.encoder, ViT) or not self.encoder.cls_token or self.encoder.mask_token:
            raise ValueError(
                "DINOv2Distill hides no patches, so it needs a Vision Transformer with a class token and without a "
                "mask token: choose an encoder vit_* with --config.encoder.mask_token=False."
            )
        theirs = self.teacher
        for name, a, b in (
            ("encoder.patch", self.encoder.patch, theirs.encoder.patch),
            ("method.count", self.count, theirs.count),
            ("method.patch_count", self.patch_count, theirs.patch_count),
        ):
            if a != b:
                raise ValueError(f"--config.{name}={a} must be the teacher's, which is {b}.")

    def init(self, key: Array, batch: Batch) -> Variables:
        student_key, teacher_key = jax.random.split(key)
        student, drawn = super().init(student_key, batch), self.teacher.init(teacher_key, batch)
        return student.replace(target=student.target | {"teacher": {"params": drawn.params}})

    def begin(self, state: TrainState, teacher: TrainState) -> TrainState:
        """`state` with the teacher's averaged network and its centres."""
        theirs = taken(state.target["teacher"], {"params": teacher.target["params"]})
        centers = {name: teacher.extra.get(name, x) for name, x in state.extra.items()}
        return state.replace(target=state.target | {"teacher": theirs}, extra=centers)

    def loss(self, params, state: TrainState, crops, key: Array, axis: str | None) -> tuple[Array, dict]:
        student_key, teacher_key = jax.random.split(key)
        # 1) The teacher's logits of the global views, with nothing dropped.
        teacher, theirs = self.teacher.without_drop_path, state.target["teacher"]["params"]
        t_class, t_patches = teacher.tokens(theirs, crops[:2], teacher_key, axis)
        t_class, t_patches = teacher.logits(theirs, t_class, t_patches, slice(None))
        targets, patch_targets, extra = self.targets(state, t_class, t_patches, jnp.ones(len(t_patches)), axis)
        # 2) The student's, of all crops.
        seen, s_class, s_patches = self.student(params, crops, None, student_key, axis)
        student, student_patches = self.logits(params, s_class, s_patches, slice(None))
        # 3) Every crop must predict the global views that it is not, every patch itself, and all keep apart.
        weights = jnp.full(len(t_patches), 1 / len(t_patches))
        loss, metrics = self.compare(s_class, student, student_patches, targets, patch_targets, weights, axis)
        return loss, {
            "model_state": state.model_state,
            "target_state": state.target["model_state"],
            "extra": extra,
            "metrics": metrics,
            "features": seen,
            "embeddings": (),
        }

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        moved = super().update(state, aux, axis)
        return moved.replace(target=moved.target | {"teacher": state.target["teacher"]})
