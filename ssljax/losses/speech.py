"""Losses of speech: tell what was said at a time from what was said at others."""

import jax
import jax.numpy as jnp

from ssljax import collectives
from ssljax.losses.checks import check_positive
from ssljax.numerics import normalize, product
from ssljax.typing import Array


def wav2vec2(
    context: Array, targets: Array, distractors: Array, temperature: float = 0.1, *, codes: Array | None = None
) -> Array:
    """wav2vec 2.0's contrastive loss: tell a masked frame's quantised features from those of other masked frames.

        l_t = -log( exp(cos(c_t, q_t) / T) / Σ_{q ∈ {q_t} ∪ Q_t} exp(cos(c_t, q) / T) ),   mean over masked frames

    where Q_t are the distractors of frame t, without those that are equal to q_t.

    Args:
      context: c (batch, K, dim), the Transformer's output at the K masked frames of each example, projected.
      targets: q (batch, K, dim), the quantised features of these frames, projected. Gradients flow into them.
      distractors: (batch, K, count), indexes in [0, K) of each frame's distractors, which are frames of the same
        example (`ssljax.views.speech.distractors`).
      temperature: T > 0.
      codes: (batch, K, groups), integers: frames of equal codes count as equal. None: those of equal targets do.

    Returns: a float32 scalar, the mean over this shard's masked frames; with K the same in all examples, the mean over
    shards is the loss of the whole batch. Hugging Face and the authors return the sum over masked frames, and with it
    scale the diversity loss by their number: here both are means.

    Raises: ValueError for shapes that do not fit, or a temperature that is not positive.

    Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations", 2020, equation 3.
    """
    context, targets, distractors = jnp.asarray(context), jnp.asarray(targets), jnp.asarray(distractors)
    if context.ndim != 3 or context.shape != targets.shape or not context.size:
        raise ValueError(
            f"context {context.shape} and targets {targets.shape} must both be (batch, K, dim), equal and not empty."
        )
    _check_indexes("distractors", distractors, "(batch, K, count)", "context", context)
    check_positive("temperature", temperature)
    same = targets if codes is None else jnp.asarray(codes)
    if same.ndim != 3 or same.shape[:2] != context.shape[:2]:
        raise ValueError(f"codes {same.shape} must be (batch, K, groups), with the batch and K of {context.shape}.")
    similarity = product(normalize(context), jnp.swapaxes(normalize(targets), 1, 2)) / temperature
    equal = jnp.all(same[:, :, None] == same[:, None], axis=-1)
    positive = jnp.diagonal(similarity, axis1=1, axis2=2)[..., None]
    others = jnp.take_along_axis(jnp.where(equal, -jnp.inf, similarity), distractors, axis=2)
    return _first_of(jnp.concatenate([positive, others], axis=-1))


def diversity(probabilities: Array, *, epsilon: float = 0.0, axis: str | None = None) -> Array:
    """wav2vec 2.0's diversity loss: all entries of a codebook should be used equally often.

        L = (G V - Σ_g exp(H(p̄_g))) / (G V),   H(p) = -Σ_v p_v log(p_v + ε)

    where p̄_g are group g's probabilities, averaged over all frames of the global batch; the exponential of their
    entropy, the perplexity, is between 1 and V.

    Args:
      probabilities: p (…, G, V), of G groups of V entries, at each masked frame: the softmax without noise.
      epsilon: ε; 0 in Hugging Face's code, 1e-7 in fairseq.
      axis: mesh axis that the batch is split over.

    Returns: a float32 scalar in [0, 1), the same on all shards. Hugging Face and fairseq multiply it by the number of
    masked frames and by a weight of 0.1; to means over frames, as `wav2vec2` gives, only the weight belongs. (The paper
    writes it as an entropy; both codes have the perplexity. In evaluation Hugging Face averages the chosen codes,
    one-hot, and fairseq the probabilities.)

    Raises: ValueError if there are no groups.

    Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations", 2020, equation 4.
    """
    p = jnp.asarray(probabilities)
    if p.ndim < 2 or not p.size:
        raise ValueError(f"probabilities {p.shape} must be (…, groups, entries), not empty.")
    p = collectives.mean(p.astype(jnp.float32).mean(tuple(range(p.ndim - 2))), axis)
    # An entry that nobody uses has the entropy 0, but its derivative is infinite.
    entropy = jnp.where(p > 0, -p * jnp.log(jnp.where(p > 0, p, 1.0) + epsilon), 0.0).sum(axis=-1)
    return (p.size - jnp.exp(entropy).sum()) / p.size


def cpc(
    predictions: Array, encodings: Array, negatives: Array, *, convention: str = "sum", axis: str | None = None
) -> Array:
    """CPC's loss: tell the frame k steps ahead, of which a prediction is made, from frames drawn at random.

        l(t, k) = -log( exp(s_k(t, z_{t+k})) / Σ_{z ∈ {z_{t+k}} ∪ N_t} exp(s_k(t, z)) ),   s_k(t, z) = p_{t,k}·z / dim

    averaged over examples and times, and summed over the steps k = 1 … K. The score is a mean over channels, not a sum:
    a temperature of dim. The negatives N_t of a time serve all its steps; one that happens to be the positive stays.

    Args:
      predictions: p (batch, windows, K, dim), made at the times from which all K steps lie within the example.
      encodings: z (batch, windows + K, dim).
      negatives: (batch, windows, count), indexes of frames of the whole batch, laid out as (batch * (windows + K),)
        (`ssljax.views.speech.cpc_negatives`).
      convention: over the steps, "sum" (the authors' code) or "mean".
      axis: mesh axis that the batch is split over; negatives are then indexes of frames of the global batch.

    Returns: a float32 scalar; the mean over shards is the loss of the whole batch.

    Raises: ValueError for shapes that do not fit or an unknown convention.

    van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018, equation 4; scores and
    negatives as in Rivière et al., "Unsupervised Pretraining Transfers Well Across Languages", 2020.
    """
    predictions, encodings, negatives = jnp.asarray(predictions), jnp.asarray(encodings), jnp.asarray(negatives)
    if predictions.ndim != 4 or not predictions.size:
        raise ValueError(f"predictions {predictions.shape} must be (batch, windows, K, dim), not empty.")
    batch, windows, steps, dim = predictions.shape
    if encodings.shape != (batch, windows + steps, dim):
        raise ValueError(
            f"predictions {predictions.shape} need encodings (batch, windows + K, dim), which is "
            f"{(batch, windows + steps, dim)}, but these are {encodings.shape}."
        )
    _check_indexes("negatives", negatives, "(batch, windows, count)", "predictions", predictions)
    if convention not in ("sum", "mean"):
        raise ValueError(f"convention '{convention}' is unknown; use 'sum' or 'mean'.")
    predictions, encodings = predictions.astype(jnp.float32) / dim, encodings.astype(jnp.float32)
    everyone = collectives.gather(encodings, axis).reshape(-1, dim)
    ahead = jnp.arange(windows)[:, None] + jnp.arange(1, steps + 1)
    positive = jnp.sum(predictions * encodings[:, ahead], axis=-1, keepdims=True)
    others = product(predictions, jnp.swapaxes(everyone[negatives], 2, 3))
    loss = _first_of(jnp.concatenate([positive, others], axis=-1))
    return steps * loss if convention == "sum" else loss


def ctc(logits: Array, after: Array, labels: Array, padding: Array) -> Array:
    """How unlikely a text is, whenever its letters are said: -log of the sum, over all paths that are the text
    of a symbol are one and blanks are left out, of Π_t softmax(logits_t)[path_t].

    Args:
      logits: (batch, frames, symbols), of which symbol 0 is the blank.
      after: (batch, frames), bool: frames after the end, which count for nothing.
      labels: (batch, letters), integers in [1, symbols).
      padding: (batch, letters), bool: places after the text's last letter.

    Returns: float32 (batch,), as `optax.ctc_loss`, which shard_map does not take; of a text that is too long for its
    frames 1e30, without a gradient.

    Raises: ValueError for shapes that do not fit.

    Graves et al., "Connectionist Temporal Classification", 2006.
    """
    logits, after, labels, padding = (jnp.asarray(x) for x in (logits, after, labels, padding))
    if logits.ndim != 3 or after.shape != logits.shape[:2] or not logits.size:
        raise ValueError(
            f"logits {logits.shape} must be (batch, frames, symbols), and after {after.shape} the first two."
        )
    if labels.ndim != 2 or len(labels) != len(logits) or padding.shape != labels.shape or not labels.size:
        raise ValueError(
            f"labels {labels.shape} and padding {padding.shape} must be (batch, letters), as many as of {logits.shape}."
        )
    never = -1e30
    # Between the letters, before and after them there may be blanks: symbol 2 i + 1 is letter i.
    symbols = jnp.zeros((len(labels), 2 * labels.shape[1] + 1), labels.dtype).at[:, 1::2].set(labels)
    letter = jnp.arange(symbols.shape[1]) % 2 == 1
    other = symbols != jnp.pad(symbols, ((0, 0), (2, 0)))[:, :-2]
    said = jax.nn.log_softmax(logits.astype(jnp.float32))
    said = jnp.take_along_axis(said, jnp.broadcast_to(symbols[:, None], (*logits.shape[:2], symbols.shape[1])), axis=2)

    def step(alpha: Array, frame: tuple[Array, Array]) -> tuple[Array, None]:
        chance, ended = frame
        moved = [jnp.pad(alpha, ((0, 0), (n, 0)), constant_values=never)[:, : alpha.shape[1]] for n in (0, 1, 2)]
        moved[2] = jnp.where(letter & other, moved[2], never)  # a blank between other letters need not be said
        following = jax.nn.logsumexp(jnp.stack(moved), axis=0) + chance
        return jnp.where(ended[:, None], alpha, following), None

    start = jnp.where(jnp.arange(symbols.shape[1]) < 2, said[:, 0], never)
    alpha, _ = jax.lax.scan(step, start, (jnp.swapaxes(said, 0, 1)[1:], after.T[1:]))
    last = 2 * jnp.sum(~padding, axis=1, keepdims=True)
    ends = jnp.concatenate([last, last - 1], axis=1)
    nats = -jax.nn.logsumexp(jnp.take_along_axis(alpha, ends, axis=1), axis=1)
    return jnp.where(nats > -never / 10, -never, nats)


def _first_of(logits: Array) -> Array:
    """Mean cross-entropy of logits (…, candidates) of which the first is the right one."""
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - logits[..., 0])


def _check_indexes(name: str, indexes: Array, shape: str, other: str, x: Array) -> None:
    fits = indexes.ndim == 3 and indexes.shape[:2] == x.shape[:2] and indexes.size
    if not fits or not jnp.issubdtype(indexes.dtype, jnp.integer):
        raise ValueError(
            f"{name} {indexes.shape} of {indexes.dtype} must be {shape} integers, with the first two dimensions of "
            f"{other} {x.shape}."
        )
