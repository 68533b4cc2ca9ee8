"""What the methods for images have in common: an encoder, crops of each image, and how the encoder is judged."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ssljax import collectives
from ssljax.collectives import example_keys
from ssljax.models import infer, initialise, run
from ssljax.models.heads import MLP
from ssljax.models.vit import ViT, attention_of_patches
from ssljax.typing import Array, Batch, PyTree, TrainState, Variables
from ssljax.views.images import Augment, center_view, draw_views, show_views, unnormalize


@dataclass(frozen=True, eq=False)
class ImageMethod:
    """encoder: what is pretrained. augmentations: how each view of an image is drawn. eval_crop: share of the short
    side that evaluation sees.

    The parameters and statistics of the encoder lie under "encoder" in `params` and `model_state`.
    """

    encoder: nn.Module
    augmentations: tuple[Augment, ...]
    eval_crop: float = 1.0

    modality = "images"
    mean_over_examples = False
    needs_labels = False

    def views(self, keys: Array, batch: Batch) -> PyTree:
        return draw_views(self.augmentations, keys, batch)

    def evaluated(self, state: Variables) -> tuple[PyTree, PyTree]:
        """Parameters and statistics of the encoder that is evaluated."""
        return state.params["encoder"], state.model_state["encoder"]

    def features(self, state: Variables, batch: Batch) -> Array:
        return infer(self.encoder, *self.evaluated(state), self.eval_view(batch))

    def look(self, state: Variables, batch: Batch) -> tuple[Array, Array, Array]:
        """What an encoder that is a ViT sees, images in [0, 1], and `attention_of_patches` of it."""
        assert isinstance(self.encoder, ViT)
        images, view = self.eval_view(batch), self.augmentations[0]
        return unnormalize(images, view.mean, view.std), *attention_of_patches(
            self.encoder, self.evaluated(state)[0], images
        )

    def last_blocks(self, state: Variables, batch: Batch, count: int, *, patches: bool = False) -> Array:
        """Class tokens of the last `count` blocks of a Vision Transformer, each after the last norm, one after the
        other: (batch, count · width); without a class token the means of the patches (I-JEPA). patches: and the mean of
        the last block's patches (DINO, DINOv2).

        Raises ValueError for other encoders, and if there are not so many blocks.
        """
        if not isinstance(self.encoder, ViT):
            raise ValueError("a probe of the last blocks is of a Vision Transformer: take the probe of the features.")
        blocks = infer(self.encoder, *self.evaluated(state), self.eval_view(batch), method="tokens", last=count)
        means = [tokens[:, self.encoder.num_prefix :].mean(axis=1) for tokens in blocks]
        parts = [tokens[:, 0] for tokens in blocks] if self.encoder.cls_token else means
        return jnp.concatenate([*parts, *means[-1:]] if patches else parts, axis=1).astype(jnp.float32)

    def view_features(self, state: Variables, batch: Batch, keys: Array, count: int) -> Array:
        """What the evaluated encoder makes of `count` draws of the first view of each image: (batch, count, dim)."""
        views = draw_views(self.augmentations[:1] * count, keys, batch)
        return jnp.stack([infer(self.encoder, *self.evaluated(state), view) for view in views], axis=1)

    def eval_view(self, batch: Batch) -> Array:
        view = self.augmentations[0]
        return center_view(batch, view.size, self.eval_crop, view.mean, view.std)

    def show(self, state: Variables, batch: Batch, keys: Array) -> Array:
        return show_views(self.augmentations, keys, batch)

    def _expect_views(self, count: int, names: str) -> None:
        """For `__post_init__`; names: recipes that would do. Raises ValueError."""
        if len(self.augmentations) != count:
            needs = "sees one view" if count == 1 else "compares two views"
            raise ValueError(
                f"{type(self).__name__} {needs}, but the recipe draws {len(self.augmentations)}: choose views {names}."
            )

    def _expect_two_of_one_size(self, does: str, names: str) -> None:
        """For `__post_init__` of methods with local crops. Raises ValueError."""
        if len(self.augmentations) < 2 or self.augmentations[0].size != self.augmentations[1].size:
            raise ValueError(
                f"{type(self).__name__} {does} two views of one size: choose views {names}, with any number of local "
                "crops."
            )

    def _expect_teacher(self, teacher: Any, kind: "type[ImageMethod]", names: str) -> None:
        """For `__post_init__`; names: what it may be. Raises ValueError if it is of another kind, or sees other
        pixels."""
        if not isinstance(teacher, kind):
            raise ValueError(
                f"{type(self).__name__} starts from {names}, but --config.method.teacher is one of "
                f"{type(teacher).__name__}."
            )
        ours, theirs = self.augmentations[0], teacher.augmentations[0]
        if (ours.mean, ours.std) != (theirs.mean, theirs.std):
            raise ValueError(
                f"the teacher was trained on pixels with mean {theirs.mean} and standard deviation {theirs.std}: set "
                "--config.views.mean and --config.views.std to them."
            )


def taken(ours: PyTree, theirs: PyTree, where: str = "") -> PyTree:
    """What a teacher has in the places of `ours`. Raises ValueError if it has none there, or of another shape."""
    if isinstance(ours, Mapping):
        return {name: taken(x, theirs[name] if name in theirs else None, f"{where}/{name}") for name, x in ours.items()}
    if jnp.shape(ours) != jnp.shape(theirs):
        raise ValueError(
            f"the teacher's {where.lstrip('/')} is of shape {jnp.shape(theirs)}, and here of {jnp.shape(ours)}: give "
            "--config.encoder the values that the teacher's run has."
        )
    return theirs


def momentum_network(params: PyTree, model_state: PyTree) -> dict[str, PyTree]:
    """Where a target starts that is the network itself: a copy, for donated buffers may not be shared."""
    return jax.tree.map(jnp.copy, {"params": params, "model_state": model_state})


def follow(target: PyTree, params: PyTree, momentum: Array | float) -> PyTree:
    """momentum · target + (1 - momentum) · params, of the modules that the target has."""
    return optax.incremental_update({name: params[name] for name in target}, target, 1 - momentum)


@dataclass(frozen=True, eq=False)
class JointEmbedding(ImageMethod, ABC):
    """Methods that compare embeddings of views: z = g(f(view)) with the encoder f and a projector g, the `head`."""

    @property
    @abstractmethod
    def head(self) -> nn.Module:
        """g."""

    def init(self, key: Array, batch: Batch) -> Variables:
        params, model_state = self.network(key, batch)
        return Variables(params=params, model_state=model_state, target={}, extra={})

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        return state.replace(model_state=aux["model_state"])

    def network(self, key: Array, batch: Batch) -> tuple[PyTree, PyTree]:
        """(params, state) of encoder and projector, each {"encoder": …, "projector": …}."""
        encoder_key, projector_key, view_key = jax.random.split(key, 3)
        view = jax.tree.leaves(self.views(example_keys(view_key, len(batch["image"])), batch))[0]
        encoder, encoder_state = initialise(self.encoder, encoder_key, view)
        features = jnp.zeros((1, self.encoder.num_features))
        projector, projector_state = initialise(self.head, projector_key, features, train=False)
        return (
            {"encoder": encoder, "projector": projector},
            {"encoder": encoder_state, "projector": projector_state},
        )

    def embed(self, params, state, images: Array, keys: Array, axis: str | None) -> tuple[Array, Array, PyTree]:
        """(representation, embedding, state after the batch) of one network in train mode; one key for each image."""
        encoder, projector = state["encoder"], state["projector"]
        h, encoder = run(self.encoder, params["encoder"], encoder, images, axis=axis, keys=keys)
        z, projector = run(self.head, params["projector"], projector, h, axis=axis)
        return h, z, {**state, "encoder": encoder, "projector": projector}

    def embed_each(self, params, state, views, key: Array, axis: str | None) -> tuple[list[Array], list[Array], PyTree]:
        """As `embed`, of one view after the other, each with batch statistics of its own: (representations, embeddings,
        state)."""
        seen: list[Array] = []
        embedded: list[Array] = []
        for view, view_key in zip(views, jax.random.split(key, len(views)), strict=True):
            h, z, state = self.embed(params, state, view, example_keys(view_key, len(view), axis), axis)
            seen, embedded = [*seen, h], [*embedded, z]
        return seen, embedded, state

    def embed_by_size(self, params, state, views, key: Array, axis: str | None) -> tuple[list[Array], Array, PyTree]:
        """(representations, embeddings (views, batch, dim), state) of crops of several sizes.

        All crops of one size go through the encoder as one batch, and all together through the projector, so that they
        share batch statistics (SwAV, DINO).
        """
        seen: list[Array] = []
        encoder, keys = state["encoder"], jax.random.split(key, len(views))
        for _, group in groupby(range(len(views)), key=lambda i: views[i].shape):
            crops = list(group)
            images = jnp.concatenate([views[i] for i in crops])
            of_each = jnp.concatenate([example_keys(keys[i], len(views[i]), axis) for i in crops])
            h, encoder = run(self.encoder, params["encoder"], encoder, images, axis=axis, keys=of_each)
            seen += jnp.split(h, len(crops))
        z, projector = run(self.head, params["projector"], state["projector"], jnp.concatenate(seen), axis=axis)
        embedded = z.reshape(len(views), -1, z.shape[-1])
        return seen, embedded, {**state, "encoder": encoder, "projector": projector}


@dataclass(frozen=True, eq=False)
class Predictive(JointEmbedding):
    """Methods that predict the embedding of one view from that of another: p = q(z) with a predictor q."""

    @property
    @abstractmethod
    def predictor_head(self) -> MLP:
        """q."""

    def _expect_widths_to_fit(self) -> None:
        """For `__post_init__`: what is predicted is as wide as the embedding. Raises ValueError."""
        embedded, predicted = self.head.widths[-1], (*self.head.widths, *self.predictor_head.widths)[-1]
        if embedded != predicted:
            raise ValueError(
                f"{type(self).__name__}'s predictor ends in {predicted} numbers and its projector in {embedded}; both "
                "must be the same."
            )

    def init(self, key: Array, batch: Batch) -> Variables:
        params, model_state = self.online(key, batch)
        return Variables(params=params, model_state=model_state, target={}, extra={})

    def online(self, key: Array, batch: Batch) -> tuple[PyTree, PyTree]:
        """(params, state) of encoder, projector and predictor."""
        network_key, predictor_key = jax.random.split(key)
        params, state = self.network(network_key, batch)
        embedding = jnp.zeros((1, self.head.widths[-1]))
        predictor, predictor_state = initialise(self.predictor_head, predictor_key, embedding, train=False)
        return params | {"predictor": predictor}, state | {"predictor": predictor_state}

    def predict_each(self, params, state, views, key: Array, axis: str | None):
        """(representations, embeddings, predictions, state) of one view after the other, as `embed_each`."""
        seen, embedded, state = self.embed_each(params, state, views, key, axis)
        predicted: list[Array] = []
        for z in embedded:
            p, predictor = run(self.predictor_head, params["predictor"], state["predictor"], z, axis=axis)
            predicted, state = [*predicted, p], state | {"predictor": predictor}
        return seen, embedded, predicted, state


def target_statistics(targets: Array, cross_entropy: Array, axis: str | None) -> dict[str, Array]:
    """For the monitors, of distributions (…, K) over prototypes and the mean cross-entropy of what predicts them.

    prototypes_used: entropy of the global batch's mean as a part of ln K; 0 where every image has the same prototype.
    target_entropy: mean entropy as a part of ln K; 1 where no image prefers a prototype.
    kl_divergence: of the targets from the predictions, the cross-entropy without the targets' own entropy.
    """
    rows = targets.reshape(-1, targets.shape[-1])

    def entropy(p: Array) -> Array:
        return -jnp.sum(p * jnp.log(p + 1e-12), axis=-1)

    own, most = collectives.mean(entropy(rows).mean(), axis), jnp.log(rows.shape[-1])
    return {
        "prototypes_used": entropy(collectives.mean(rows.mean(0), axis)) / most,
        "target_entropy": own / most,
        "kl_divergence": collectives.mean(jax.lax.stop_gradient(cross_entropy), axis) - own,
    }
