"""Fine-tuning with labels, few or many, of a network that was pretrained without: SimCLR v2's second step.

Chen et al., "Big Self-Supervised Models are Strong Semi-Supervised Learners", 2020.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ssljax.methods.images.classifier import Classifier
from ssljax.methods.images.image_method import JointEmbedding, taken
from ssljax.models.heads import MLP
from ssljax.typing import Array, Batch, PyTree, TrainState
from ssljax.views.images import draw_views


@dataclass(frozen=True, eq=False)
class FineTune(Classifier):
    """The encoder and the first layers of its projector go on from where the teacher's run left them, and a linear
    layer on top begins with zeros; loss the cross-entropy of the labels of crops. BatchNorm is in train mode, with the
    statistics of these batches (of the global batch), and its running ones go on from the teacher's.

    teacher: in a config the folder of a run of any method whose projector is an MLP; here that run's method.
    classes: how many; 0 in a config: as many as the data has. head_layer: how many layers of the projector stay (each a
    dense layer, and what follows it); 0: none. SimCLR v2 keeps one for few labels, and none for all of ImageNet's.
    """

    teacher: Any = ""
    classes: int = 0  # type: ignore[assignment]
    head_layer: int = 1

    needs_labels = True
    teachers = "a run of a method with a projector, such as 'simclr_v2'"
    caption = "the image and the crop that is classified"

    def __post_init__(self):
        self._expect_views(1, "'mae', a crop and a flip")
        self._expect_teacher(self.teacher, JointEmbedding, self.teachers)
        if not isinstance(self.teacher.head, MLP):
            raise ValueError(f"FineTune needs {self.teachers}: that of {type(self.teacher).__name__} is no MLP.")
        layers = len(self.teacher.head.widths)
        if not 0 <= self.head_layer <= layers:
            raise ValueError(f"head_layer={self.head_layer} must be one of the projector's {layers} layers, or 0.")
        if self.classes < 2:
            raise ValueError(f"there must be at least 2 classes: set --config.method.classes, which is {self.classes}.")

    @property
    def head(self) -> MLP:
        return self.teacher.head.clone(first=self.head_layer, dtype=self.encoder.dtype)

    def begin(self, state: TrainState, teacher: TrainState) -> TrainState:
        """`state` with the encoder and layers of the projector that the teacher has, and a linear layer of zeros."""

        def both(ours: PyTree, theirs: PyTree) -> PyTree:
            return ours | {name: taken(ours[name], theirs[name], name) for name in ("encoder", "projector")}

        params = both(state.params, teacher.params)
        params |= {"classifier": jax.tree.map(jnp.zeros_like, params["classifier"])}
        return state.replace(params=params, model_state=both(state.model_state, teacher.model_state))

    def views(self, keys: Array, batch: Batch) -> tuple[Array, Array]:
        """The crop and its label."""
        (view,) = draw_views(self.augmentations, keys, batch)
        return view, batch["label"]

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        view, labels = views
        h, logits, model_state = self.learn(params, state.model_state, view, key, axis)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, {
            "model_state": model_state,
            "metrics": {"accuracy": (logits.argmax(axis=-1) == labels).mean()},
            "features": h,
            "embeddings": (),
        }
