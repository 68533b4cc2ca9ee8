"""What fine-tuning and distillation have in common: a network that says what is on an image."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssljax.collectives import example_keys
from ssljax.methods.images.image_method import ImageMethod
from ssljax.models import infer, initialise, run
from ssljax.models.heads import MLP
from ssljax.typing import Array, Batch, PyTree, TrainState, Variables
from ssljax.views.images import draw_views


@dataclass(frozen=True, eq=False)
class Classifier(ImageMethod, ABC):
    """logits = linear(g(f(view))) of one view, with the encoder f and some layers g, the `head`, which may be none."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """How many."""

    @property
    def head(self) -> MLP:
        return MLP(())

    @property
    def linear(self) -> nn.Dense:
        return nn.Dense(self.classes, kernel_init=nn.initializers.normal(0.01))

    def network(self, key: Array, batch: Batch) -> tuple[PyTree, PyTree]:
        """(params, state), of which "projector" is the head's."""
        encoder_key, head_key, linear_key, view_key = jax.random.split(key, 4)
        view = draw_views(self.augmentations, example_keys(view_key, len(batch["image"])), batch)[0]
        encoder, encoder_state = initialise(self.encoder, encoder_key, view)
        features = jnp.zeros((1, self.encoder.num_features))
        projector, projector_state = initialise(self.head, head_key, features, train=False)
        h = infer(self.head, projector, projector_state, features, train=False)
        linear, _ = initialise(self.linear, linear_key, h)
        return (
            {"encoder": encoder, "projector": projector, "classifier": linear},
            {"encoder": encoder_state, "projector": projector_state},
        )

    def init(self, key: Array, batch: Batch) -> Variables:
        params, model_state = self.network(key, batch)
        return Variables(params=params, model_state=model_state, target={}, extra={})

    def learn(self, params, state, view: Array, key: Array, axis: str | None) -> tuple[Array, Array, PyTree]:
        """(what the linear layer sees, logits, state after the batch) in train mode."""
        keys = example_keys(key, len(view), axis)
        h, encoder = run(self.encoder, params["encoder"], state["encoder"], view, axis=axis, keys=keys)
        h, projector = run(self.head, params["projector"], state["projector"], h, axis=axis)
        return h, infer(self.linear, params["classifier"], {}, h), {"encoder": encoder, "projector": projector}

    def represent(self, params, state, view: Array) -> Array:
        """What the linear layer sees, in evaluation mode."""
        h = infer(self.encoder, params["encoder"], state["encoder"], view)
        return infer(self.head, params["projector"], state["projector"], h, train=False)

    def decide(self, params, state, view: Array) -> Array:
        """Logits (batch, classes) in evaluation mode."""
        return infer(self.linear, params["classifier"], {}, self.represent(params, state, view))

    def features(self, state: Variables, batch: Batch) -> Array:
        return self.represent(state.params, state.model_state, self.eval_view(batch))

    def classify(self, state: Variables, batch: Batch) -> Array:
        return self.decide(state.params, state.model_state, self.eval_view(batch))

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        return state.replace(model_state=aux["model_state"])
