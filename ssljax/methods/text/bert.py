"""BERT: find the tokens that were hidden from those on both sides.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", 2019. Without the
prediction of the next sentence, which Liu et al., "RoBERTa", 2019, found to be of no use.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssljax import collectives
from ssljax.losses import masked_token_loss
from ssljax.models import infer, initialise, run
from ssljax.models import language as models
from ssljax.models.attention import last_attention
from ssljax.typing import Array, Batch, TrainState, Variables
from ssljax.views.text import MaskedTokens, bert_mask

SPECIAL, MASK = (0, 1, 2, 3), 4
"""Ids of padding, unknown, [CLS] and [SEP], and of the mask, as `ssljax.data.tokens` has them."""


@dataclass(frozen=True, eq=False)
class BERT:
    """Some of a text's tokens are hidden, h = head(f(what is left)) at their places; loss -log softmax(E h)[the token],
    with the encoder f and its embeddings E, mean over all hidden tokens of the global batch.

    mask_share: of a text's tokens that are hidden, but no more than most_masked; see `ssljax.views.text.bert_mask`.

    A batch has `tokens` (batch, tokens) and `valid`, which of them are not padding.
    """

    encoder: nn.Module
    mask_share: float = 0.15
    most_masked: int = 20

    modality = "text"
    mean_over_examples = False
    needs_labels = False
    caption = (
        "a text, blue where the encoder sees something else; what it found there, blue where that is right and orange "
        "where not; and what the first of these attends to"
    )

    def __post_init__(self):
        if not isinstance(self.encoder, models.BERT):
            raise ValueError(
                "method 'bert' needs an encoder whose tokens see all others: --config.encoder.name=bert_base."
            )

    @property
    def head(self) -> models.MLMHead:
        return models.MLMHead(self.encoder.activation, self.encoder.epsilon, self.encoder.dtype)

    def init(self, key: Array, batch: Batch) -> Variables:
        encoder_key, head_key = jax.random.split(key)
        encoder, _ = initialise(self.encoder, encoder_key, batch["tokens"])
        one = jnp.zeros((1, 1, self.encoder.width)), jnp.zeros((1, 1), jnp.int32)
        head, _ = initialise(self.head, head_key, *one, encoder["embed"]["tokens"])
        return Variables(params={"encoder": encoder, "head": head}, model_state={}, target={}, extra={})

    def views(self, keys: Array, batch: Batch) -> tuple[MaskedTokens, Array, Array]:
        """The text with what is hidden, which tokens are valid, and each text's key for dropout."""
        keys = jax.vmap(lambda key: jax.random.split(key))(keys)
        return self._masked(keys[:, 0], batch), batch["valid"], keys[:, 1]

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        text, valid, keys = views
        # 1) What is left of each text goes through the encoder.
        options = {"valid": valid, "keys": keys, "method": "tokens"}
        x, _ = run(self.encoder, params["encoder"], {}, text.inputs, **options)
        # 2) Only the hidden tokens go through the head.
        logits = self._found(params, x, text.positions)
        loss = masked_token_loss(logits, text.targets, text.weights, axis=axis)
        right = (logits.argmax(axis=-1) == text.targets) * text.weights
        accuracy = right.sum() / jnp.maximum(collectives.mean(text.weights.sum(), axis), 1e-6)
        features = models.pooled(x, valid, self.encoder.pool)
        return loss, {"metrics": {"accuracy": accuracy}, "features": features, "embeddings": ()}

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        return state

    def features(self, state: Variables, batch: Batch) -> Array:
        """Of texts of which nothing is hidden."""
        return infer(self.encoder, state.params["encoder"], {}, batch["tokens"], valid=batch["valid"])

    def measure(self, state: Variables, batch: Batch, keys: Array) -> dict[str, tuple[Array, Array]]:
        """Of tokens that are hidden indeed: those that a loss leaves as they are would be found by looking at them."""
        text = self._masked(keys, batch, masked=1.0, random=0.0)
        x = self._tokens(state, text.inputs, batch["valid"])
        logits = self._found(state.params, x, text.positions)
        count = text.weights.sum(axis=1)
        mean = jax.vmap(lambda *one: masked_token_loss(*(part[None] for part in one)))
        nats = mean(logits, text.targets, text.weights) * count
        right = ((logits.argmax(axis=-1) == text.targets) * text.weights).sum(axis=1)
        return {"hidden-token bits": (nats / jnp.log(2.0), count), "hidden-token accuracy": (right, count)}

    def show(self, state: Variables, batch: Batch, keys: Array) -> dict[str, Array]:
        text = self._masked(keys, batch)
        x, kept = self._tokens(state, text.inputs, batch["valid"], mutable=["intermediates"])
        found = self._found(state.params, x, text.positions).argmax(axis=-1)
        rows = jnp.arange(len(x))[:, None]
        hidden = jnp.zeros(text.inputs.shape).at[rows, text.positions].max(text.weights)
        counts = text.weights > 0
        right = jnp.where(found == text.targets, 1.0, -1.0) * text.weights
        # What is left over stands where nothing is hidden.
        answer = text.inputs.at[rows, text.positions].set(jnp.where(counts, found, text.targets))
        marked = jnp.zeros(hidden.shape).at[rows, text.positions].set(right)
        weights = models.token_at(last_attention(kept["intermediates"]["encoder"]).mean(axis=1), text.positions[:, 0])
        attention = weights / weights.max(axis=1, keepdims=True)
        return {
            "tokens": jnp.stack([text.inputs, answer, text.inputs], axis=1),
            "shade": jnp.stack([hidden, marked, attention], axis=1),
        }

    def _masked(self, keys: Array, batch: Batch, **options: float) -> MaskedTokens:
        return bert_mask(
            keys,
            batch["tokens"],
            batch["valid"],
            vocabulary=self.encoder.vocabulary,
            mask_id=MASK,
            special=SPECIAL,
            ratio=self.mask_share,
            most=self.most_masked,
            **options,
        )

    def _tokens(self, state: Variables, inputs: Array, valid: Array, **options):
        return infer(self.encoder, state.params["encoder"], {}, inputs, valid=valid, method="tokens", **options)

    def _found(self, params, x: Array, positions: Array) -> Array:
        """Logits (batch, slots, vocabulary) of what is hidden."""
        return infer(self.head, params["head"], {}, x, positions, params["encoder"]["embed"]["tokens"])
