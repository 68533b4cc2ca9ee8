"""TS2Vec's encoder of time series: dilated convolutions over a projection of every time step.

Yue et al., "TS2Vec: Towards Universal Representation of Time Series", 2022.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from ssljax.models.attention import dropout
from ssljax.models.vit import TORCH_LINEAR, gelu
from ssljax.typing import Array


class DilatedConv(nn.Module):
    """A convolution over three steps that are `dilation` apart, the middle one being their own, and zeros outside:
    (batch, time, dim) -> (batch, time, width)."""

    width: int
    dilation: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", TORCH_LINEAR, (3, x.shape[-1], self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        x, kernel, bias = (jnp.asarray(array, self.dtype) for array in (x, kernel, bias))
        if self.dilation >= x.shape[1]:  # all neighbours are outside
            return x @ kernel[1] + bias
        around, dilation = [(self.dilation, self.dilation)], (self.dilation,)
        of_time = ("NWC", "WIO", "NWC")
        return lax.conv_general_dilated(x, kernel, (1,), around, (1,), dilation, of_time) + bias


class DilatedBlock(nn.Module):
    """x + conv(gelu(conv(gelu(x)))): (batch, time, dim) -> (batch, time, width).

    project: a dense layer on the way around them, which a change of width needs too.
    """

    width: int
    dilation: int
    project: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, valid: Array | None = None):
        """valid (batch, time): steps that are there; the convolutions find zeros at the others, as outside."""
        y = x
        for i in (1, 2):
            y = gelu(y)
            y = y if valid is None else jnp.where(valid[..., None], y, 0)
            y = DilatedConv(self.width, self.dilation, dtype=self.dtype, name=f"conv{i}")(y)
        if self.project or x.shape[-1] != self.width:
            x = nn.Dense(self.width, kernel_init=TORCH_LINEAR, dtype=self.dtype, name="project")(x)
        return x + y


class TSEncoder(nn.Module):
    """Series (batch, time, dim) -> features of every step (batch, time, width), float32.

    A dense layer to `hidden`, then `depth` blocks of that width and a last one of `width`, block i with dilation 2^i.
    A step of which any number is NaN is missing: zero before the dense layer and after it.

    dropout: of the output, in train mode; it needs one key for each example.
    """

    width: int = 320
    hidden: int = 64
    depth: int = 10
    dropout: float = 0.1
    chunks: int = 1
    dtype: DTypeLike = jnp.float32

    modality = "series"

    @property
    def num_features(self) -> int:
        return self.width

    @nn.compact
    def __call__(
        self,
        series,
        seen: Array | None = None,
        *,
        valid: Array | None = None,
        last: bool = False,
        train: bool = False,
        axis: str | None = None,
        keys: Array | None = None,
    ):
        """seen (batch, time), bool: steps that are not masked; the others are zero after the dense layer. The paper
        draws each with probability 0.5 in training. None: all are seen.

        valid (batch, time), bool: steps that are there, where series of different lengths were padded: real steps come
          out as they would without the padding, and padding as zero. (The authors pad with NaN, as they mark what is
          missing: from the second convolution on such a step holds numbers, and its neighbours see them.) None: all.

        last: only the last step comes out, (batch, 1, width), for less work: none is done for others in blocks whose
          dilation reaches beyond the series.

        `axis` is accepted, as for every encoder, and not used: no statistic crosses examples. Raises ValueError if
        shapes do not fit, or keys for dropout are missing."""
        if series.ndim != 3 or any(m is not None and m.shape != series.shape[:2] for m in (seen, valid)):
            raise ValueError(
                f"series {series.shape} must be (batch, time, dim), and seen {getattr(seen, 'shape', None)} and valid "
                f"{getattr(valid, 'shape', None)} (batch, time) or None."
            )
        if train and self.dropout and keys is None:
            raise ValueError(f"dropout={self.dropout} in train mode needs `keys`, one random key for each example.")
        shown = ~jnp.isnan(series).any(axis=-1)
        shown = shown if valid is None else shown & valid
        x = jnp.where(shown[..., None], series, 0)
        x = nn.Dense(self.hidden, kernel_init=TORCH_LINEAR, dtype=self.dtype, name="project")(x)
        x = jnp.where((shown if seen is None else shown & seen)[..., None], x, 0)
        for i in range(self.depth + 1):
            if last and 2**i >= series.shape[1]:
                x, valid = x[:, -1:], _end(valid)
            end = i == self.depth
            width = self.width if end else self.hidden
            x = DilatedBlock(width, 2**i, project=end, dtype=self.dtype, name=f"block{i}")(x, valid)
        x, valid = (x[:, -1:], _end(valid)) if last else (x, valid)
        x = x if valid is None else jnp.where(valid[..., None], x, 0)
        return dropout(x.astype(jnp.float32), self.dropout, keys if train else None, 0)


def _end(valid: Array | None) -> Array | None:
    """Of the last step alone, (batch, 1)."""
    return None if valid is None else valid[:, -1:]
