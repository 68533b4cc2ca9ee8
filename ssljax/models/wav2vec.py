"""wav2vec 2.0's encoder of speech: convolutions over samples, then a Transformer over frames, some of them masked.

HuBERT and data2vec for speech have the same one.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax.models.attention import dropout
from ssljax.models.transformer import Block, Stack
from ssljax.models.vit import TORCH_LINEAR, gelu
from ssljax.typing import Array

LAYERS = ((512, 10, 5), *[(512, 3, 2)] * 4, *[(512, 2, 2)] * 2)
"""(channels, kernel, stride) of each convolution: 320 samples a frame, which is 20 ms at 16 kHz."""
KAIMING = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def frames(samples: Any, layers: Sequence[tuple[int, int, int]] = LAYERS) -> Any:
    """How many frames come of so many samples (a number, or an array of them); 0 or less where there are too few."""
    for _, kernel, stride in layers:
        samples = (samples - kernel) // stride + 1
    return samples


def scale_gradient(x: Array, factor: float) -> Array:
    """`x`, whose gradient is multiplied by `factor` on its way back."""
    constant = jax.lax.stop_gradient(x)
    return constant + factor * (x - constant)


def within(lengths: Array, count: int) -> Array:
    """(batch, count), bool: the places that lie within each example's length (batch,)."""
    return jnp.arange(count) < lengths[:, None]


class TimeNorm(nn.Module):
    """Each channel less its mean over time, over its standard deviation, in float32: a GroupNorm with as many groups as
    channels. x (batch, time, channels) -> the same shape."""

    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, valid: Array | None = None) -> Array:
        """valid (batch, time), bool: the places that count; what stands in the others is padding (None: all count)."""
        x = x.astype(jnp.float32)
        where = None if valid is None else valid[:, :, None]
        mean = x.mean(axis=1, keepdims=True, where=where)
        variance = jnp.square(x - mean).mean(axis=1, keepdims=True, where=where)
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return ((x - mean) * jax.lax.rsqrt(variance + self.epsilon) * scale + bias).astype(self.dtype)


class FeatureEncoder(nn.Module):
    """Convolutions without padding, each followed by GELU: (batch, samples) -> (batch, frames, channels).

    norm: "group", `TimeNorm` after the first convolution (Base: audio as it is), or "layer", LayerNorm after each of
    them (Large: audio of zero mean and unit variance). bias: whether convolutions have one (Large: yes).
    """

    layers: Sequence[tuple[int, int, int]] = LAYERS
    norm: str = "group"
    bias: bool = False
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, audio: Array, lengths: Array | None = None) -> Array:
        """lengths (batch,): samples of each example; what comes after them is padding, which no frame of theirs sees
        (None: there is none)."""
        x = audio[:, :, None]
        for i, (channels, kernel, stride) in enumerate(self.layers):
            x = nn.Conv(
                channels,
                (kernel,),
                (stride,),
                padding="VALID",
                use_bias=self.bias,
                kernel_init=KAIMING,
                dtype=self.dtype,
                name=f"conv{i}",
            )(x)
            if self.norm == "layer":
                x = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name=f"norm{i}")(x)
            elif i == 0:
                valid = None if lengths is None else within(frames(lengths, self.layers[:1]), x.shape[1])
                x = TimeNorm(self.epsilon, self.dtype, name="norm0")(x, valid)
            x = gelu(x)
        return x


class PositionalConv(nn.Module):
    """Where a frame is, seen from its neighbours: GELU of a convolution by groups, (batch, frames, dim) -> the same
    shape.

    Each of the kernel's `kernel` places has weights of a learnt norm, `scale` (weight normalisation over PyTorch's
    dimension 2). Padded on both sides, by one less at the end where the kernel is even, so that the length stays.
    """

    kernel: int = 128
    groups: int = 16
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        dim = x.shape[-1]
        init = nn.initializers.normal((4.0 / (self.kernel * dim)) ** 0.5)
        kernel = self.param("kernel", init, (self.kernel, dim // self.groups, dim))
        norm = jnp.sqrt(jnp.sum(jnp.square(kernel), axis=(1, 2), keepdims=True))
        scale = self.param("scale", lambda _: norm[:, 0, 0])
        bias = self.param("bias", nn.initializers.zeros, (dim,))
        kernel = kernel * (scale[:, None, None] / norm)
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            window_strides=(1,),
            padding=[(self.kernel // 2, (self.kernel - 1) // 2)],
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=self.groups,
        )
        return gelu(y + bias.astype(self.dtype))


class Encoded(NamedTuple):
    """What `Wav2Vec2` makes of audio; C channels come out of the convolutions."""

    context: Array
    """(batch, frames, width), float32: the Transformer's output."""
    local: Array
    """(batch, frames, C), float32: normalised features of the convolutions, unmasked. What is quantised."""
    features: Array
    """(batch, frames, C), float32: before that norm. Base adds 10 times the mean of their squares to the loss."""


class Wav2Vec2(nn.Module):
    """Audio (batch, samples) -> `Encoded`. The defaults are Base's; see `wav2vec2_base` and `wav2vec2_large`.

    layers, norm, bias: see `FeatureEncoder`. stable: pre-norm blocks with a norm at the end (Large), or post-norm ones
    with a norm at the beginning (Base). hidden: units of a block's MLP. feature_gradient: what the gradient into the
    convolutions is multiplied by. input_dropout: of projected features. layer_drop: see `Stack`; the authors' code
    leaves a block out for the whole batch. segments: in how many parts of a clip its features are averaged.

    Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations", 2020.
    """

    layers: Sequence[tuple[int, int, int]] = LAYERS
    norm: str = "group"
    bias: bool = False
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072
    stable: bool = False
    positional_kernel: int = 128
    positional_groups: int = 16
    feature_gradient: float = 0.1
    input_dropout: float = 0.1
    dropout: float = 0.1
    layer_drop: float = 0.05
    epsilon: float = 1e-5
    segments: int = 4
    scan: bool = False
    remat: str = ""
    chunks: int = 1
    dtype: DTypeLike = jnp.float32

    modality = "speech"

    @property
    def num_features(self) -> int:
        """Of a clip; see `ssljax.models.pooling`."""
        return self.segments * self.width

    def __post_init__(self):
        super().__post_init__()
        if self.norm not in ("group", "layer"):
            raise ValueError(f"norm '{self.norm}' is unknown; use 'group' (Base) or 'layer' (Large).")
        if self.width % self.heads or self.width % self.positional_groups:
            raise ValueError(
                f"width {self.width} must be divisible by heads {self.heads} and positional_groups "
                f"{self.positional_groups}."
            )

    def frames(self, samples: Any) -> Any:
        """See `ssljax.models.wav2vec.frames`."""
        return frames(samples, self.layers)

    @nn.compact
    def __call__(
        self,
        audio: Array,
        *,
        mask: Array | None = None,
        lengths: Array | None = None,
        train: bool = False,
        keys: Array | None = None,
    ) -> Encoded:
        """mask (batch, frames), bool: frames that the Transformer sees a learnt vector of (None: none).
        lengths (batch,): samples of each example, of which there must be enough for a frame; the rest is padding, which
          changes nothing in the `frames(lengths)` first frames (None: there is none).
        keys (batch,): for dropout in train mode.

        Raises ValueError if there are too few samples for one frame, the mask has another shape, or keys are missing.
        """
        if audio.ndim != 2 or self.frames(audio.shape[1]) < 1:
            raise ValueError(f"audio {audio.shape} must be (batch, samples), with enough samples for one frame.")
        expected = audio.shape[0], self.frames(audio.shape[1])
        if mask is not None and mask.shape != expected:
            raise ValueError(f"mask {mask.shape} must be (batch, frames), which is {expected} for audio {audio.shape}.")
        if train and keys is None and (self.dropout or self.input_dropout or self.layer_drop):
            raise ValueError("dropout in train mode needs `keys`, one random key for each example.")
        keys = keys if train else None
        convolutions = FeatureEncoder(self.layers, self.norm, self.bias, self.epsilon, self.dtype, name="features")
        features = scale_gradient(convolutions(audio, lengths), self.feature_gradient)
        local = self._norm("feature_norm", features)
        x = nn.Dense(self.width, kernel_init=TORCH_LINEAR, dtype=self.dtype, name="project")(local)
        x = dropout(x, self.input_dropout, keys, self.depth)  # salts below are the blocks'
        masked = self.param("masked", nn.initializers.uniform(1.0), (self.width,))
        if mask is not None:
            x = jnp.where(mask[:, :, None], masked.astype(x.dtype), x)
        valid = None
        if lengths is not None:
            valid = within(self.frames(lengths), x.shape[1])
            x = jnp.where(valid[:, :, None], x, 0.0)
        x = x + PositionalConv(self.positional_kernel, self.positional_groups, self.dtype, name="position")(x)
        if not self.stable:
            x = self._norm("embed_norm", x)
        x = dropout(x, self.dropout, keys, self.depth + 1)
        block = Block(
            self.heads,
            self.hidden,
            "pre" if self.stable else "post",
            epsilon=self.epsilon,
            dropout=self.dropout,
            dtype=self.dtype,
        )
        stack = Stack(self.depth, block, self.scan, self.remat, self.layer_drop, name="encoder")
        x = stack(x, None if valid is None else valid[:, None, None, :], keys)
        if self.stable:
            x = self._norm("norm", x)
        return Encoded(*(y.astype(jnp.float32) for y in (x, local, features)))

    def _norm(self, name: str, x: Array) -> Array:
        return nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name=name)(x)


MICRO = ((32, 10, 8), (64, 8, 5), (64, 4, 2), (64, 2, 2))
"""160 samples a frame, which is 20 ms at 8 kHz."""

wav2vec2_micro = partial(
    Wav2Vec2, MICRO, width=96, depth=3, heads=4, hidden=192, positional_kernel=16, positional_groups=1
)
wav2vec2_base = partial(Wav2Vec2)
wav2vec2_large = partial(
    Wav2Vec2,
    norm="layer",
    bias=True,
    width=1024,
    depth=24,
    heads=16,
    hidden=4096,
    stable=True,
    feature_gradient=1.0,
    input_dropout=0.0,
    dropout=0.0,
    layer_drop=0.0,
)
