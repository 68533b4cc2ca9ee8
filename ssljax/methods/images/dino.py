"""DINO: a student predicts from every crop what its teacher, which follows it slowly, makes of the large ones.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021.
"""

from dataclasses import dataclass

import jax

from ssljax.losses import center_and_sharpen, dino, ema_center
from ssljax.methods.images.image_method import target_statistics
from ssljax.methods.images.self_distillation import SelfDistillation
from ssljax.typing import Array, TrainState


@dataclass(frozen=True, eq=False)
class DINO(SelfDistillation):
    """p_t = softmax((t - c) / T_t) of the teacher's logits t of the two global views, with the centre c;
    p_s = softmax(s / T_s) of the student's of all crops; loss the cross-entropy of every pair of different crops.

    head_norm: BatchNorm in the head, for a ResNet.
    """

    head_norm: bool = False

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        student_key, teacher_key = jax.random.split(key)
        # 1) The teacher's logits of the global views, centred and sharpened.
        target_params, target_state = state.target["params"], state.target["model_state"]
        _, teacher, target_state = self.without_drop_path.embed_by_size(
            target_params, target_state, views[:2], teacher_key, axis
        )
        temperature = self.temperature(state.step, self.teacher_temperature)
        targets = center_and_sharpen(teacher, state.extra["center"], temperature)
        # 2) The student's of all crops, each size in a batch of its own.
        seen, student, model_state = self.embed_by_size(params, state.model_state, views, student_key, axis)
        # 3) Every crop must predict the global views that it is not.
        loss = dino(tuple(student), tuple(targets), temperature=self.student_temperature)
        # 4) The centre moves after it was used.
        center = ema_center(state.extra["center"], teacher, self.center_momentum, axis=axis)
        return loss, {
            "model_state": model_state,
            "target_state": target_state,
            "extra": {"center": center},
            "metrics": target_statistics(targets, loss, axis),
            "features": seen[0],
            "embeddings": (),
        }
