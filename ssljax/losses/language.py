"""Cross-entropy of tokens: those that were hidden, or those that come next. Computed in float32."""

import jax
import jax.numpy as jnp

from ssljax import collectives
from ssljax.typing import Array


def masked_token_loss(logits: Array, targets: Array, weights: Array | None = None, *, axis: str | None = None) -> Array:
    """Cross-entropy of the tokens to be found, mean over those of the whole batch that count (BERT).

        L = Σ_s w_s · -log softmax(x_s)[y_s] / Σ_s w_s,   over all slots s of all examples

    A text with more hidden tokens thus counts for more.

    Args:
      logits: x, (batch, slots, vocabulary).
      targets: y, (batch, slots), ids; what they are in slots of weight 0 does not matter.
      weights: w, (batch, slots), 1 for slots that count and 0 for those left over. None: all count.
      axis: mesh axis that the batch is split over; matters only with weights, whose sum is then over all shards.

    Returns: a float32 scalar, in nats; the mean over shards is the loss of the whole batch. Zero if all weights are,
    and NaN if a target that counts is not in the vocabulary.

    Raises: ValueError if the shapes do not fit or targets are not integers.

    Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", 2019.
    """
    logits, targets = jnp.asarray(logits), jnp.asarray(targets)
    weights = jnp.ones(targets.shape) if weights is None else jnp.asarray(weights)
    if logits.ndim != 3 or not logits.size or not logits.shape[:2] == targets.shape == weights.shape:
        raise ValueError(
            f"logits {logits.shape} must be (batch, slots, vocabulary), not empty, and targets {targets.shape} and "
            f"weights {weights.shape} both (batch, slots)."
        )
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise ValueError(f"targets must be ids, but are of {targets.dtype}: give integers.")
    logits, weights = logits.astype(jnp.float32), weights.astype(jnp.float32)
    known = (targets >= 0) & (targets < logits.shape[-1])
    own = jnp.take_along_axis(logits, jnp.where(known, targets, 0)[..., None], axis=-1)[..., 0]
    error = jnp.where(known, jax.nn.logsumexp(logits, axis=-1) - own, jnp.nan)
    total = collectives.mean(weights.sum(), axis)
    return jnp.sum(jnp.where(weights > 0, weights * error, 0.0)) / jnp.where(total > 0, total, 1.0)


def next_token_loss(logits: Array, tokens: Array, valid: Array | None = None, *, axis: str | None = None) -> Array:
    """Cross-entropy of each token given those before it, mean over the tokens of the whole batch (GPT).

        L = Σ_t -log softmax(x_t)[y_{t+1}] / T,   over the T places t of all examples with a valid token there and next

    Args:
      logits: x, (batch, tokens, vocabulary); those of the last token are not used.
      tokens: y, (batch, tokens), the ids that the model was given: they are shifted here.
      valid: (batch, tokens), bool, the tokens that are not padding. None: all.
      axis: mesh axis that the batch is split over; matters only with `valid`, whose pairs are then counted over all
        shards.

    Returns and raises: as `masked_token_loss`; also ValueError if there is no second token.

    Radford et al., "Improving Language Understanding by Generative Pre-Training", 2018, equation 1.
    """
    logits, tokens = jnp.asarray(logits), jnp.asarray(tokens)
    valid = jnp.ones(tokens.shape, bool) if valid is None else jnp.asarray(valid).astype(bool)
    if logits.ndim != 3 or not logits.shape[:2] == tokens.shape == valid.shape or tokens.shape[1] < 2:
        raise ValueError(
            f"logits {logits.shape} must be (batch, tokens, vocabulary), with at least 2 tokens, and tokens "
            f"{tokens.shape} and valid {valid.shape} both (batch, tokens)."
        )
    return masked_token_loss(logits[:, :-1], tokens[:, 1:], valid[:, :-1] & valid[:, 1:], axis=axis)
