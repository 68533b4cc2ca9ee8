"""DINO: a student predicts from every crop what its teacher, which follows it slowly, makes of the large ones.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021.
"""

from dataclasses import dataclass, replace
from typing import Self

import jax
import jax.numpy as jnp

from ssljax.losses import center_and_sharpen, dino, ema_center
from ssljax.methods.images.image_method import JointEmbedding, follow, momentum_network, target_statistics
from ssljax.models import infer
from ssljax.models.heads import DINOHead
from ssljax.schedules import ema_decay
from ssljax.typing import Array, Batch, TrainState, Variables


@dataclass(frozen=True, eq=False)
class SelfDistillation(JointEmbedding):
    """What DINO, iBOT and DINOv2 share: a student that sees all crops, and a teacher that sees the first two.

    count: prototypes, the outputs of the head; hidden, bottleneck, head_layers, norm_last_layer: see `DINOHead`; its
    last layer does not move in the first epoch (`optimizer.freeze = ("last_layer",)`).
    student_temperature; teacher_temperature: the latter is reached in a straight line from warmup_temperature in
    warmup_temperature_epochs, and changes once an epoch (DINOv2's at each step). center_momentum: of the centre that is
    subtracted from the teacher's outputs. momentum: teacher <- momentum · teacher + (1 - momentum) · student after each
    step, with a momentum that goes to 1 by momentum_schedule over total_steps. The teacher is in train mode, with batch
    statistics of its own, but has no drop-path; it is what is evaluated.
    """

    count: int = 65536
    hidden: int = 2048
    bottleneck: int = 256
    head_layers: int = 3
    norm_last_layer: bool = True
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    warmup_temperature: float = 0.04
    warmup_temperature_epochs: int = 0
    center_momentum: float = 0.9
    momentum: float = 0.996
    momentum_schedule: str = "cosine"
    total_steps: int = 0
    steps_per_epoch: float = 1.0

    head_norm = False
    caption = "the image, the two views that the teacher sees, and the local crops"

    def __post_init__(self):
        self._expect_two_of_one_size("has a teacher that sees", "'dino', 'ibot' or 'dinov2'")

    @property
    def head(self) -> DINOHead:
        return DINOHead(
            self.count,
            layers=self.head_layers,
            hidden=self.hidden,
            bottleneck=self.bottleneck,
            norm=self.head_norm,
            norm_last_layer=self.norm_last_layer,
            dtype=self.encoder.dtype,
        )

    @property
    def without_drop_path(self) -> Self:
        """The same method with an encoder that drops nothing."""
        drops = getattr(self.encoder, "drop_path", 0.0)
        return replace(self, encoder=self.encoder.clone(drop_path=0.0)) if drops else self

    def init(self, key: Array, batch: Batch) -> Variables:
        params, model_state = self.network(key, batch)
        target = momentum_network(params, model_state)
        return Variables(params=params, model_state=model_state, target=target, extra=self.centers())

    def centers(self) -> dict[str, Array]:
        """What is subtracted from the teacher's outputs, at the start."""
        return {"center": jnp.zeros(self.count)}

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        momentum = ema_decay(state.step, self.total_steps, start=self.momentum, kind=self.momentum_schedule)
        teacher = follow(state.target["params"], state.params, momentum)
        target = {"params": teacher, "model_state": aux["target_state"]}
        return state.replace(model_state=aux["model_state"], target=target, extra=aux["extra"])

    def features(self, state: Variables, batch: Batch) -> Array:
        teacher = state.target
        return infer(
            self.encoder, teacher["params"]["encoder"], teacher["model_state"]["encoder"], self.eval_view(batch)
        )

    def temperature(self, step: Array, final: float) -> Array:
        """The teacher's at a step: T_w + (final - T_w) · min(⌊step / steps_per_epoch⌋ / (E - 1), 1), with T_w =
        warmup_temperature and E = warmup_temperature_epochs."""
        epochs = self.warmup_temperature_epochs
        if not epochs:
            return jnp.float32(final)
        progress = jnp.minimum(jnp.floor(step / self.steps_per_epoch) / max(epochs - 1, 1), 1.0)
        return self.warmup_temperature + (final - self.warmup_temperature) * progress


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
