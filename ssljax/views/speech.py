"""Which frames of speech are hidden, and which ones they are told from: static shapes, one key for each example."""

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.typing import Array
from ssljax.views.images import uniform


def masked_frames(frames: int, share: float = 0.65, length: int = 10, least: int = 2) -> int:
    """How many frames `span_mask` hides: the mean number that wav2vec 2.0's spans cover, rounded.

    Its code draws share * frames / length spans, rounded up or down at random but `least` or more of them, whose starts
    are distinct and uniform; as spans overlap, a share of 0.65 covers about half of the frames.

    Raises ValueError unless that leaves at least two frames hidden and one visible.
    """
    starts = frames - length + 1
    if length < 1 or starts < 1 or not share > 0:
        raise ValueError(f"spans of {length} with share {share} do not fit {frames} frames: feed more samples.")
    reach = np.convolve(np.ones(starts, int), np.ones(length, int))  # how many starts would hide each frame

    def covered(spans: int) -> float:
        """Frames that so many spans cover, on average: a frame is missed if all starts that reach it are."""
        i = np.arange(length)
        missed = np.clip(starts - spans - i, 0, None) / np.clip(starts - i, 1, None)
        return float(np.sum(1.0 - np.cumprod(missed)[reach - 1]))

    spans = share * frames / length
    low, high = (min(starts, max(least, int(spans) + more)) for more in (0, 1))
    hidden = round(covered(low) + (spans - int(spans)) * (covered(high) - covered(low)))
    if not 2 <= hidden < frames:
        raise ValueError(
            f"spans of {length} with share {share} would hide {hidden} of {frames} frames; at least two must be hidden "
            "and one visible: feed more samples or change the share."
        )
    return hidden


def span_mask(keys: Array, frames: int, share: float = 0.65, length: int = 10) -> tuple[Array, Array]:
    """wav2vec 2.0's mask: spans of `length` frames that start anywhere and may overlap, hiding the same number of
    frames in every example: mask (batch, frames), bool, and the hidden frames' indexes (batch, K), ascending.

    The authors' code draws the same number of spans for all examples of a batch, and then uncovers frames, drawn
    uniformly from those that are hidden, until all have as few as the one with the fewest. That number changes with the
    batch, and XLA would compile anew. Here it is K = `masked_frames(frames, share, length)`, the mean of what spans
    cover, and the number of spans gives way: starts are drawn without replacement until K frames are hidden, and the
    last span ends where it hides the K-th. So each frame is hidden as often, and runs of hidden frames are about as
    long, as by whole spans (the paper's mean is 14.7), the more so the more spans there are; what the authors' code
    uncovers breaks runs up.

    The last frame may be hidden, as in Hugging Face's code; the authors' never hides it. Raises ValueError as
    `masked_frames`.
    """
    hidden = masked_frames(frames, share, length)
    # When each start is drawn, and when each frame is first hidden; the sort leaves a span's frames in their order.
    drawn = uniform(keys, shape=(frames - length + 1,))
    first = jax.lax.reduce_window(drawn, jnp.inf, jax.lax.min, (1, length), (1, 1), [(0, 0), (length - 1, length - 1)])
    order = jnp.argsort(first, axis=1)
    return jnp.argsort(order, axis=1) < hidden, jnp.sort(order[:, :hidden], axis=1)


def distractors(keys: Array, hidden: int, count: int = 100) -> Array:
    """wav2vec 2.0's negatives: (batch, hidden, count) indexes into an example's `hidden` masked frames, drawn uniformly
    and with replacement from those that are not the frame itself. Raises ValueError if there is no other."""
    if hidden < 2:
        raise ValueError(f"distractors are other masked frames, but there is only {hidden}: mask at least two frames.")
    own = jnp.arange(hidden)[:, None]

    def draw(key: Array) -> Array:
        other = jax.random.randint(key, (hidden, count), 0, hidden - 1)
        return other + (other >= own)

    return jax.vmap(draw)(keys)


def cpc_negatives(keys: Array, batch: int, frames: int, windows: int, count: int = 128) -> Array:
    """CPC's negatives: (examples, windows, count) indexes of frames of the whole batch, laid out as (batch * frames,).

    For the prediction made at time t, examples and times are drawn uniformly and with replacement, but never the time t
    itself, of whatever example: that keeps it from its own encoding, though not from the ones it predicts.

    batch: the global one, where that is spread over shards. Raises ValueError if there is only one frame.
    """
    if frames < 2:
        raise ValueError(f"negatives are frames of other times, but there is only {frames}: feed more samples.")
    time = jnp.arange(windows)[:, None]

    def draw(key: Array) -> Array:
        example, step = jax.random.split(key)
        examples = jax.random.randint(example, (windows, count), 0, batch)
        ahead = jax.random.randint(step, (windows, count), 1, frames)
        return examples * frames + (time + ahead) % frames

    return jax.vmap(draw)(keys)


def mel_filters(rate: int, bins: int, mels: int) -> np.ndarray:
    """(bins, mels): triangles of equal width on the mel scale, 2595 log10(1 + f / 700), from 0 to half the rate."""
    top = 2595.0 * np.log10(1.0 + rate / 2 / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(0.0, top, mels + 2) / 2595.0) - 1.0)
    frequency = np.linspace(0.0, rate / 2, bins)[:, None]
    rising = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    return np.clip(np.minimum(rising, falling), 0.0, None).astype(np.float32)


def log_mel(audio: Array, lengths: Array, rate: int, mels: int = 40) -> tuple[Array, Array]:
    """Log-mel spectrograms of audio (batch, samples): (batch, frames, mels), and how many frames (batch,) are of the
    `lengths` (batch,) first samples, one at least: windows of 25 ms every 10 ms, none of which sees what comes after.

    Shorter audio than a window is padded with zeros.
    """
    window, hop = rate // 40, rate // 100
    if audio.shape[1] < window:
        audio = jnp.pad(audio, ((0, 0), (0, window - audio.shape[1])))
    starts = jnp.arange(0, audio.shape[1] - window + 1, hop)
    size = 1 << (window - 1).bit_length()
    cut = audio[:, starts[:, None] + jnp.arange(window)] * jnp.hanning(window)
    power = jnp.square(jnp.abs(jnp.fft.rfft(cut, size)))
    energies = jnp.matmul(power, mel_filters(rate, size // 2 + 1, mels), precision=jax.lax.Precision.HIGHEST)
    return jnp.log(energies + 1e-6), jnp.clip((lengths - window) // hop + 1, 1, len(starts))
