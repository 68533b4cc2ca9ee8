"""CPC's encoder of speech, the recurrent network over its frames, and the predictors of frames to come."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax.collectives import varying_like
from ssljax.models.vit import TORCH_LINEAR
from ssljax.typing import Array

LAYERS = ((10, 5, 3), (8, 4, 2), (4, 2, 1), (4, 2, 1), (4, 2, 1))
"""(kernel, stride, padding) of each convolution: 160 samples a frame, which is 10 ms at 16 kHz."""


class ChannelNorm(nn.Module):
    """Each time's channels less their mean, over their standard deviation, in float32, whatever the other times hold:
    (batch, time, channels) -> the same shape. It is a LayerNorm of unbiased variance."""

    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x.astype(jnp.float32)
        variance = x.var(axis=-1, keepdims=True, ddof=1)
        x = (x - x.mean(axis=-1, keepdims=True)) * jax.lax.rsqrt(variance + self.epsilon)
        x = x * self.param("scale", nn.initializers.ones, (x.shape[-1],))
        return (x + self.param("bias", nn.initializers.zeros, (x.shape[-1],))).astype(self.dtype)


class Encoded(NamedTuple):
    context: Array
    """(batch, frames, context_width), float32: what was heard until each frame. The features that are evaluated."""
    encodings: Array
    """(batch, frames, width), float32: each frame by itself. What is predicted."""


class CPCEncoder(nn.Module):
    """Audio (batch, samples) -> `Encoded`: convolutions, ChannelNorm and ReLU, then a GRU, which starts from zeros.

    No statistic crosses frames, or the future would be told. The widths are those of the authors' later code; the paper
    has 512 and 256. segments: in how many parts of a clip its features are averaged.

    van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018; layers and norm as in
    Rivière et al., "Unsupervised Pretraining Transfers Well Across Languages", 2020.
    """

    width: int = 256
    context_width: int = 256
    segments: int = 4
    chunks: int = 1
    dtype: DTypeLike = jnp.float32

    modality = "speech"

    @property
    def num_features(self) -> int:
        """Of a clip; see `ssljax.models.pooling`."""
        return self.segments * self.context_width

    def frames(self, samples: Any) -> Any:
        """How many frames come of so many samples (a number, or an array of them)."""
        for layer in LAYERS:
            samples = _frames(samples, layer)
        return samples

    @nn.compact
    def __call__(self, audio: Array, lengths: Array | None = None, *, train: bool = False) -> Encoded:
        """lengths (batch,): samples of each example; what comes after them is padding, which changes nothing in the
        `frames(lengths)` first frames (None: there is none). `train` changes nothing: nothing is random here.

        Raises ValueError if there are too few samples for one frame.
        """
        if audio.ndim != 2 or self.frames(audio.shape[1]) < 1:
            raise ValueError(f"audio {audio.shape} must be (batch, samples), with enough samples for one frame.")
        x = audio[:, :, None]
        for i, (kernel, stride, padding) in enumerate(LAYERS):
            if lengths is not None:  # frames after the end are the zeros that an example without padding ends with
                x = jnp.where((jnp.arange(x.shape[1]) < lengths[:, None])[:, :, None], x, 0.0)
                lengths = _frames(lengths, LAYERS[i])
            conv = nn.Conv(
                self.width,
                (kernel,),
                (stride,),
                [(padding, padding)],
                kernel_init=TORCH_LINEAR,
                dtype=self.dtype,
                name=f"conv{i}",
            )
            x = nn.relu(ChannelNorm(dtype=self.dtype, name=f"norm{i}")(conv(x)))
        start = varying_like(jnp.zeros((x.shape[0], self.context_width), self.dtype), x)
        cell = nn.GRUCell(self.context_width, dtype=self.dtype, name="gru")
        context: Any = nn.RNN(cell)(x, initial_carry=start)
        return Encoded(context.astype(jnp.float32), x.astype(jnp.float32))


class CPCPredictor(nn.Module):
    """Context (batch, windows, context_width) -> predictions of the frames 1 … steps after each (batch, windows, steps,
    width), float32, by a matrix for each step. Give it the times from which all steps lie within the audio: all frames
    but the last `steps` ones.

    The authors' code has a small Transformer for each step by default; the paper, matrices.
    """

    steps: int = 12
    width: int = 256
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, context: Array) -> Array:
        dense = nn.DenseGeneral(
            (self.steps, self.width), use_bias=False, kernel_init=TORCH_LINEAR, dtype=self.dtype, name="steps"
        )
        return dense(context).astype(jnp.float32)


def _frames(samples: Any, layer: tuple[int, int, int]) -> Any:
    kernel, stride, padding = layer
    return (samples + 2 * padding - kernel) // stride + 1
