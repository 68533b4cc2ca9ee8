"""CLIP: an image must find its caption among all captions of the global batch, and a caption its image; and SigLIP,
which asks of each pair by itself whether they belong together.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.
Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023.
"""

import math
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssljax.collectives import example_keys
from ssljax.losses import clip, siglip
from ssljax.methods.images.image_method import ImageMethod
from ssljax.models import infer, initialise, run
from ssljax.models.clip import CLIPText
from ssljax.numerics import normalize
from ssljax.typing import Array, Batch, PyTree, TrainState, Variables
from ssljax.views.images import fold, show_views, uniform

LOSSES = ("softmax", "sigmoid")


@dataclass(frozen=True, eq=False)
class CLIP(ImageMethod):
    """x = W f(view of the image), y = g(caption) with the encoder f, a linear projection W and the text tower g; loss
    `clip` (or `siglip`) of x and y, with a learnt scale of their cosines.

    objective: "softmax" (CLIP) or "sigmoid" (SigLIP, with a learnt bias). temperature: 1 / scale at the beginning (CLIP
    0.07, SigLIP 0.1). bias: at the beginning (SigLIP -10; of a batch of n near -log n suits small ones). max_scale: the
    scale is held at it after each step. dim: of x and y. text_width, text_depth, text_heads: of g. vocabulary: of g's
    tokens; 0: what the data has. end: id of the token that ends a caption. word_dropout: share of a caption's tokens in
    whose place the text tower sees `unknown`, in training.

    A batch has `captions` (batch, captions, length), ids of tokens, of which training sees the first.
    """

    text_width: int = 512
    text_depth: int = 12
    text_heads: int = 8
    vocabulary: int = 0
    end: int = 3
    unknown: int = 1
    word_dropout: float = 0.0
    dim: int = 512
    objective: str = "softmax"
    temperature: float = 0.07
    bias: float = -10.0
    max_scale: float = 100.0

    modality = "image_text"
    caption = "the image, what the encoder sees of it, and a caption as the text tower reads it"

    def __post_init__(self):
        self._expect_views(1, "'clip' or 'mae'")
        if self.objective not in LOSSES:
            raise ValueError(f"objective '{self.objective}' is unknown; use {' or '.join(LOSSES)}.")
        if self.temperature * self.max_scale < 1:
            raise ValueError(f"a temperature of {self.temperature} is a scale above max_scale={self.max_scale}.")

    @property
    def text(self) -> CLIPText:
        return CLIPText(
            vocabulary=self.vocabulary,
            width=self.text_width,
            depth=self.text_depth,
            heads=self.text_heads,
            dim=self.dim,
            eot=self.end,
            scan=bool(getattr(self.encoder, "scan", False)),
            remat=getattr(self.encoder, "remat", ""),
            chunks=self.encoder.chunks,
            dtype=self.encoder.dtype,
        )

    @property
    def projection(self) -> nn.Dense:
        std = self.encoder.num_features**-0.5
        return nn.Dense(self.dim, use_bias=False, kernel_init=nn.initializers.normal(std), dtype=self.encoder.dtype)

    def init(self, key: Array, batch: Batch) -> Variables:
        encoder_key, text_key, projection_key, view_key = jax.random.split(key, 4)
        image, ids = self.views(example_keys(view_key, len(batch["image"])), batch)
        encoder, encoder_state = initialise(self.encoder, encoder_key, image)
        params = {"encoder": encoder}
        params["text"], _ = initialise(self._reads(ids), text_key, ids)
        params["projection"], _ = initialise(self.projection, projection_key, jnp.zeros((1, self.encoder.num_features)))
        params["similarity"] = {"log_scale": jnp.float32(-math.log(self.temperature))}
        if self.objective == "sigmoid":
            params["similarity"]["bias"] = jnp.float32(self.bias)
        return Variables(params=params, model_state={"encoder": encoder_state}, target={}, extra={})

    def views(self, keys: Array, batch: Batch) -> tuple[Array, Array]:
        (image,) = super().views(keys, batch)
        ids = batch["captions"][:, 0]
        if self.word_dropout:
            places, end = jnp.arange(ids.shape[1]), jnp.argmax(ids == self.end, axis=1)[:, None]
            lost = uniform(fold(keys, 1), shape=places.shape) < self.word_dropout
            ids = jnp.where(lost & (places > 0) & (places < end), self.unknown, ids)
        return image, ids

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        image, ids = views
        # 1) Each tower sees its half of the pairs.
        keys = example_keys(key, len(image), axis)
        h, encoder = run(self.encoder, params["encoder"], state.model_state["encoder"], image, axis=axis, keys=keys)
        x = infer(self.projection, params["projection"], {}, h).astype(jnp.float32)
        y, _ = run(self._reads(ids), params["text"], {}, ids, axis=axis)
        # 2) Those that belong together must find each other in the global batch.
        scale = jnp.exp(params["similarity"]["log_scale"])
        if self.objective == "softmax":
            loss = clip(x, y, scale, axis=axis)
        else:
            loss = siglip(x, y, scale, params["similarity"]["bias"], axis=axis)
        return loss, {
            "model_state": {"encoder": encoder},
            "metrics": {"logit_scale": scale},
            "features": h,
            "embeddings": (x, y),
        }

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        """The scale is held after the step: within the loss, it would have no gradient back."""
        similarity = dict(state.params["similarity"])
        similarity["log_scale"] = jnp.minimum(similarity["log_scale"], math.log(self.max_scale))
        return state.replace(params={**state.params, "similarity": similarity}, model_state=aux["model_state"])

    def embed(self, state: Variables, batch: Batch) -> Array:
        """(batch, 1 + captions, dim): of the image and of each of its captions, of length 1; zeros for a row of padding
        alone."""
        captions = batch["captions"]
        y = self.embed_texts(state, captions.reshape(-1, captions.shape[-1])).reshape(*captions.shape[:2], -1)
        return jnp.concatenate([self.embed_images(state, batch)[:, None], y], axis=1)

    def embed_images(self, state: Variables, batch: Batch) -> Array:
        """(batch, dim), of length 1."""
        return normalize(infer(self.projection, state.params["projection"], {}, self.features(state, batch)))

    def embed_texts(self, state: Variables, ids: Array) -> Array:
        """Ids (texts, length) -> (texts, dim), of length 1; zeros for padding alone."""
        y = normalize(infer(self._reads(ids), state.params["text"], {}, ids))
        return jnp.where((ids == self.end).any(axis=1)[:, None], y, 0.0)

    def show(self, state: Variables, batch: Batch, keys: Array) -> PyTree:
        return {"images": show_views(self.augmentations, keys, batch), "captions": batch["captions"][:, 0]}

    def _reads(self, ids: Array) -> CLIPText:
        """The text tower for captions of this length."""
        return self.text.clone(positions=ids.shape[-1])
