"""GPT: tell each token from those before it.

Radford et al., "Improving Language Understanding by Generative Pre-Training", 2018, and "Language Models are
Unsupervised Multitask Learners", 2019.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssljax.losses import next_token_loss
from ssljax.models import infer, initialise, run
from ssljax.models import language as models
from ssljax.models.attention import last_attention
from ssljax.typing import Array, Batch, TrainState, Variables


@dataclass(frozen=True, eq=False)
class GPT:
    """x_t = f(tokens up to t); loss -log softmax(E x_t)[token t + 1], with the encoder f and its embeddings E.

    The loss is the mean over texts of the mean over a text's tokens: over all tokens, where texts are pieces of one
    length.

    A batch has `tokens` (batch, tokens) and `valid`, which of them are not padding.
    """

    encoder: nn.Module

    modality = "text"
    mean_over_examples = True
    needs_labels = False
    caption = "a text, the more orange a letter or token the less it was expected; and what its last token attends to"

    def __post_init__(self):
        if not isinstance(self.encoder, models.GPT):
            raise ValueError(
                "method 'gpt' needs an encoder whose tokens see only those before: --config.encoder.name=gpt2."
            )

    def init(self, key: Array, batch: Batch) -> Variables:
        encoder, _ = initialise(self.encoder, key, batch["tokens"])
        return Variables(params={"encoder": encoder}, model_state={}, target={}, extra={})

    def views(self, keys: Array, batch: Batch) -> tuple[Array, Array, Array]:
        """The tokens, which of them are valid, and each text's key for dropout."""
        return batch["tokens"], batch["valid"], keys

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        tokens, valid, keys = views
        # 1) Each token after it has seen those before it.
        options = {"valid": valid, "keys": keys, "method": "tokens"}
        x, _ = run(self.encoder, params["encoder"], {}, tokens, **options)
        # 2) The next one must have the embedding that is most like it.
        nats, right, pairs = self._told(params, x, tokens, valid)
        each = jnp.maximum(pairs, 1.0)
        metrics = {"accuracy": (right / each).mean()}
        features = models.pooled(x, valid, self.encoder.pool)
        return (nats / each).mean(), {"metrics": metrics, "features": features, "embeddings": ()}

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        return state

    def features(self, state: Variables, batch: Batch) -> Array:
        return infer(self.encoder, state.params["encoder"], {}, batch["tokens"], valid=batch["valid"])

    def measure(self, state: Variables, batch: Batch, keys: Array) -> dict[str, tuple[Array, Array]]:
        x = self._tokens(state, batch)
        nats, right, pairs = self._told(state.params, x, batch["tokens"], batch["valid"])
        measures = {"next-token nats": (nats, pairs), "next-token accuracy": (right, pairs)}
        if "bytes" in batch:
            measures["next-token bits per byte"] = (nats / jnp.log(2.0), batch["bytes"])
        return measures

    def show(self, state: Variables, batch: Batch, keys: Array) -> dict[str, Array]:
        tokens, valid = batch["tokens"], batch["valid"]
        x, kept = self._tokens(state, batch, mutable=["intermediates"])
        logits = models.tied_logits(x, state.params["encoder"]["embed"]["tokens"])
        own = jnp.take_along_axis(nn.log_softmax(logits[:, :-1]), tokens[:, 1:, None], axis=-1)[..., 0]
        surprise = jnp.pad(own * valid[:, 1:], [(0, 0), (1, 0)]) / jnp.log(logits.shape[-1])
        last = jnp.max(jnp.where(valid, jnp.arange(tokens.shape[1]), 0), axis=1)
        weights = models.token_at(last_attention(kept["intermediates"]["decoder"]).mean(axis=1), last)
        attention = weights / weights.max(axis=1, keepdims=True)
        return {"tokens": jnp.stack([tokens, tokens], axis=1), "shade": jnp.stack([surprise, attention], axis=1)}

    def _tokens(self, state: Variables, batch: Batch, **options):
        params = state.params["encoder"]
        return infer(self.encoder, params, {}, batch["tokens"], valid=batch["valid"], method="tokens", **options)

    def _told(self, params, x: Array, tokens: Array, valid: Array) -> tuple[Array, Array, Array]:
        """Of each text: nats in all, how many tokens were the likeliest, and how many were to be told; (batch,)."""
        logits = models.tied_logits(x, params["encoder"]["embed"]["tokens"])
        to_tell = (valid[:, :-1] & valid[:, 1:]).astype(jnp.float32)
        pairs = to_tell.sum(axis=1)
        mean = jax.vmap(lambda *text: next_token_loss(*(part[None] for part in text)))(logits, tokens, valid)
        right = (logits[:, :-1].argmax(axis=-1) == tokens[:, 1:]) * to_tell
        return mean * pairs, right.sum(axis=1), pairs
