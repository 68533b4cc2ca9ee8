"""ResNet v1.5 (the stride sits on the 3x3 convolution of a bottleneck), with padding as in PyTorch."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax.models.convolution import conv_general_dilated
from ssljax.models.norm import BatchNorm, GroupNorm

STEMS = ("imagenet", "cifar", "small")
NORMS = ("batch", "group")


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the channels (bottleneck)."""

    channels: int
    stride: int
    bottleneck: bool
    zero_init_residual: bool
    norm: partial
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x, *, train: bool, axis: str | None):
        conv = partial(Conv, dtype=self.dtype)
        out = self.channels * (4 if self.bottleneck else 1)
        sizes = ((1, 1), (3, self.stride), (1, 1)) if self.bottleneck else ((3, self.stride), (3, 1))
        y = x
        for i, (size, stride) in enumerate(sizes, start=1):
            last = i == len(sizes)
            y = conv(out if last else self.channels, size, stride, name=f"conv{i}")(y)
            scale = nn.initializers.zeros if last and self.zero_init_residual else nn.initializers.ones
            y = self.norm(scale_init=scale, name=f"norm{i}")(y, train=train, axis=axis)
            y = y if last else nn.relu(y)
        if x.shape != y.shape:
            x = conv(out, 1, self.stride, name="downsample")(x)
            x = self.norm(name="downsample_norm")(x, train=train, axis=axis)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Images (batch, height, width, channels) -> globally pooled features (batch, features), float32.

    Stems: "imagenet" (7x7 stride 2, 3x3 max-pool stride 2), "cifar" (3x3 stride 1), "small" (3x3 stride 2, for CPUs).
    `width_multiplier` widens every layer. norm: "batch" (`bn_groups` is explained in `BatchNorm`) or "group", which no
    statistic of the batch enters, so that examples do not depend on each other. chunks: see `ssljax.models.run`.

    He et al., "Deep Residual Learning for Image Recognition", 2016.
    """

    stages: Sequence[int]
    bottleneck: bool
    stem: str = "imagenet"
    channels: int = 64
    width_multiplier: float = 1.0
    zero_init_residual: bool = False
    norm: str = "batch"
    bn_groups: int = 1
    chunks: int = 1
    dtype: DTypeLike = jnp.float32

    modality = "images"

    def __post_init__(self):
        super().__post_init__()
        if self.norm not in NORMS:
            raise ValueError(f"norm '{self.norm}' is unknown; use one of {', '.join(NORMS)}.")
        if self.norm == "group" and self.bn_groups != 1:
            raise ValueError(f"bn_groups={self.bn_groups} are groups of BatchNorm, which norm 'group' has none of.")
        if self.stem not in STEMS:
            raise ValueError(f"stem '{self.stem}' is unknown; use one of {', '.join(STEMS)}.")

    @property
    def num_features(self) -> int:
        return int(self.channels * self.width_multiplier) * 2 ** (len(self.stages) - 1) * (4 if self.bottleneck else 1)

    @nn.compact
    def __call__(self, images, *, train: bool = False, axis: str | None = None, keys=None):
        """`keys` is accepted, as for every encoder, and not used: nothing here is random."""
        if self.norm == "group":
            norm: partial = partial(GroupNorm, dtype=self.dtype)
        else:
            norm = partial(BatchNorm, groups=self.bn_groups, dtype=self.dtype)
        channels = int(self.channels * self.width_multiplier)
        size, stride = {"imagenet": (7, 2), "cifar": (3, 1), "small": (3, 2)}[self.stem]
        x = Conv(channels, size, stride, dtype=self.dtype, name="stem")(images)
        x = nn.relu(norm(name="stem_norm")(x, train=train, axis=axis))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for i, blocks in enumerate(self.stages):
            for j in range(blocks):
                x = Block(
                    channels * 2**i,
                    2 if i > 0 and j == 0 else 1,
                    self.bottleneck,
                    self.zero_init_residual,
                    norm,
                    self.dtype,
                    name=f"stage{i + 1}_block{j + 1}",
                )(x, train=train, axis=axis)
        return x.astype(jnp.float32).mean(axis=(1, 2))


def Conv(features: int, size: int, stride: int, *, dtype, name: str) -> nn.Conv:
    """A convolution padded by (size - 1) / 2 on both sides, which "SAME" is not when the stride is 2."""
    pad = (size - 1) // 2
    return nn.Conv(
        features,
        (size, size),
        (stride, stride),
        [(pad, pad), (pad, pad)],
        use_bias=False,
        dtype=dtype,
        name=name,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        conv_general_dilated=conv_general_dilated,
    )


resnet8 = partial(ResNet, stages=(1, 1, 1), bottleneck=False, channels=32, stem="small")
resnet18 = partial(ResNet, stages=(2, 2, 2, 2), bottleneck=False)
resnet34 = partial(ResNet, stages=(3, 4, 6, 3), bottleneck=False)
resnet50 = partial(ResNet, stages=(3, 4, 6, 3), bottleneck=True)
