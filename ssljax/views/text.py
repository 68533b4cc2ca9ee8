"""Text as methods see it: token ids of which some are hidden, made on the device from one key for each example."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ssljax.typing import Array


class MaskedTokens(struct.PyTreeNode):
    """A text (batch, tokens) of which some tokens are to be found again; these have a fixed number of slots.

    inputs: (batch, tokens), what the encoder sees. positions: (batch, slots), which tokens are to be found; no two of
    an example's are the same. targets: (batch, slots), the tokens that stood there. weights: (batch, slots) float32, 1
    for slots that count and 0 for those left over, whose positions are of tokens that are as they were.
    """

    inputs: Array
    positions: Array
    targets: Array
    weights: Array


def masked_counts(tokens: int, ratio: float = 0.15, most: int = 20) -> tuple[int, ...]:
    """BERT's number of predictions in texts of 0 to `tokens` tokens: min(most, max(1, round(ratio * length))).

    The last is the number of slots that all of them fit in. Halves are rounded to the even number, as Python has it.
    """
    return tuple(min(most, max(1, round(ratio * length))) for length in range(tokens + 1))


def bert_mask(
    keys: Array,
    tokens: Array,
    valid: Array | None = None,
    *,
    vocabulary: int,
    mask_id: int,
    special: Sequence[int] = (),
    ratio: float = 0.15,
    most: int = 20,
    masked: float = 0.8,
    random: float = 0.1,
) -> MaskedTokens:
    """BERT's masking: an exact number of a text's tokens, chosen uniformly, are to be predicted.

    Of these, 80 % are seen as the mask's token, 10 % as a random one and 10 % as they are, each drawn by itself. What
    is drawn for a token depends on its example's key and its place alone: neither on neighbours nor on the padding.

    Args:
      keys: (batch,), one for each example.
      tokens: (batch, tokens), ids.
      valid: (batch, tokens), bool, the tokens that are not padding (None: all). They are a text's length.
      vocabulary: number of ids. mask_id: the mask's.
      special: ids, such as [CLS]'s and [SEP]'s, that count for the length but are never to be predicted. Neither they
        nor the mask's are drawn as random tokens, which the authors' code draws from all of the vocabulary.
      ratio, most: see `masked_counts`. A text with fewer tokens that are not special has all of these to predict.
      masked, random: the two shares above.

    Returns: `MaskedTokens` with `masked_counts(…)[-1]` slots.

    Raises: ValueError if the shapes do not fit, ids are out of the vocabulary, or the shares or numbers make no sense.

    Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", 2019, section 3.1
    and appendix A.1; the count is that of their `create_pretraining_data.py`.
    """
    tokens = jnp.asarray(tokens)
    valid = jnp.ones(tokens.shape, bool) if valid is None else jnp.asarray(valid).astype(bool)
    if tokens.ndim != 2 or not tokens.size or valid.shape != tokens.shape or keys.shape != tokens.shape[:1]:
        raise ValueError(
            f"tokens {tokens.shape} must be (batch, tokens), not empty, with one of valid {valid.shape} for each token "
            f"and one of keys {keys.shape} for each example."
        )
    if not 0 < ratio <= 1 or most < 1 or min(masked, random) < 0 or masked + random > 1:
        raise ValueError(
            f"ratio={ratio} must be above 0 and at most 1, most={most} at least 1, and masked={masked} and "
            f"random={random} shares with a sum of at most 1."
        )
    kept = {mask_id, *special}
    if not all(0 <= i < vocabulary for i in kept) or len(kept) == vocabulary:
        raise ValueError(f"mask_id {mask_id} and special {tuple(special)} must be some of the {vocabulary} ids.")
    count = tokens.shape[1]
    counts = masked_counts(count, ratio, most)
    ordinary = jnp.asarray(np.setdiff1d(np.arange(vocabulary), list(kept)))
    candidates = valid & ~jnp.isin(tokens, jnp.asarray(sorted(set(special)), tokens.dtype))

    def draw(key: Array, place: Array) -> tuple[Array, Array, Array]:
        noise, fate, token = jax.random.split(jax.random.fold_in(key, place), 3)
        return jax.random.uniform(noise), jax.random.uniform(fate), jax.random.randint(token, (), 0, len(ordinary))

    # A key for each place: one draw of the whole text's shape might change with the padding.
    noise, fate, drawn = jax.vmap(jax.vmap(draw, (None, 0)), (0, None))(keys, jnp.arange(count))
    order = jnp.argsort(jnp.where(candidates, noise, 2.0), axis=1)
    lengths = valid.sum(axis=1)
    number = jnp.minimum(jnp.asarray(counts)[lengths], candidates.sum(axis=1))[:, None]
    hidden = jnp.argsort(order, axis=1) < number
    seen = jnp.where(fate < masked, mask_id, jnp.where(fate < masked + random, ordinary[drawn], tokens))
    positions = order[:, : counts[-1]]
    return MaskedTokens(
        inputs=jnp.where(hidden, seen, tokens).astype(tokens.dtype),
        positions=positions,
        targets=jnp.take_along_axis(tokens, positions, axis=1),
        weights=(jnp.arange(counts[-1]) < number).astype(jnp.float32),
    )
