"""Distillation: a network of any size learns, without labels, what a fine-tuned one says: SimCLR v2's third step.

Chen et al., "Big Self-Supervised Models are Strong Semi-Supervised Learners", 2020.
"""

from dataclasses import dataclass
from typing import Any

import jax

from ssljax.chunks import map_chunks
from ssljax.losses import soft_cross_entropy
from ssljax.methods.images.classifier import Classifier
from ssljax.methods.images.image_method import taken
from ssljax.typing import Array, Batch, TrainState, Variables


@dataclass(frozen=True, eq=False)
class Distill(Classifier):
    """The student, an encoder and a linear layer, and the teacher, which does not move, see the same crop; loss
    `soft_cross_entropy` of what they say. The student's weights are drawn; the teacher is in evaluation mode.

    teacher: in a config the folder of a run of 'fine_tune' or 'distill'; here that run's method. temperature: of both;
    SimCLR v2 has 1 for a smaller student, and 0.1 for one as large as the teacher.
    """

    teacher: Any = ""
    temperature: float = 1.0

    teachers = "a run of 'fine_tune' or 'distill'"
    caption = "the image and the crop that teacher and student classify"

    def __post_init__(self):
        self._expect_views(1, "'mae', a crop and a flip")
        self._expect_teacher(self.teacher, Classifier, self.teachers)

    @property
    def classes(self) -> int:
        return self.teacher.classes

    def init(self, key: Array, batch: Batch) -> Variables:
        student_key, teacher_key = jax.random.split(key)
        drawn = self.teacher.init(teacher_key, batch)
        teacher = {"params": drawn.params, "model_state": drawn.model_state}
        return super().init(student_key, batch).replace(target={"teacher": teacher})

    def begin(self, state: TrainState, teacher: TrainState) -> TrainState:
        """`state` with the teacher's network."""
        theirs = {"params": teacher.params, "model_state": teacher.model_state}
        return state.replace(target={"teacher": taken(state.target["teacher"], theirs)})

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        (view,) = views
        teacher = state.target["teacher"]

        def decide(part):
            return self.teacher.decide(teacher["params"], teacher["model_state"], part)

        said = jax.lax.stop_gradient(map_chunks(decide, view, self.encoder.chunks))
        h, logits, model_state = self.learn(params, state.model_state, view, key, axis)
        return soft_cross_entropy(logits, said, temperature=self.temperature), {
            "model_state": model_state,
            "metrics": {"agreement": (logits.argmax(axis=-1) == said.argmax(axis=-1)).mean()},
            "features": h,
            "embeddings": (),
        }
