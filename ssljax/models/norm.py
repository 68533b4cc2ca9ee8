"""BatchNorm over the global batch or over groups of it, and GroupNorm, which asks nothing of the batch."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax import collectives
from ssljax.numerics import product
from ssljax.typing import Array


class BatchNorm(nn.Module):
    """y = (x - mean) / sqrt(var + epsilon) * scale + bias, statistics in float32.

    `groups=1`: the mean and (biased) variance of the whole global batch, gathered over `axis`. `groups=g`: the batch is
    cut into g groups of consecutive examples, each normalised by its own statistics, as g devices without synchronised
    BatchNorm would do, on however many devices there are; the running statistics follow the mean over groups.
    Evaluation uses the running statistics.

    The running variance follows the biased batch variance (PyTorch's follows the unbiased one).
    """

    groups: int = 1
    momentum: float = 0.9
    epsilon: float = 1e-5
    use_bias: bool = True
    use_scale: bool = True
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, *, train: bool, axis: str | None = None):
        """x (batch, …, channels) -> the same shape. Raises ValueError where groups do not divide the batch, or have but
        one number in a channel."""
        channels = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        x = x.astype(jnp.float32)
        if train:
            average, spread, shared = self._groups(x, axis)
            # Two passes: E[x²] - E[x]² would cancel where a channel hardly varies, and rounding would differ by mesh.
            mean = average(x)
            var = average(jnp.square(x - spread(mean)))
            if not self.is_initializing():
                for running, batch in ((running_mean, mean), (running_var, var)):
                    batch = collectives.mean(batch.mean(0), None if shared else axis)
                    running.value = self.momentum * running.value + (1 - self.momentum) * batch
            x = (x - spread(mean)) * jax.lax.rsqrt(spread(var) + self.epsilon)
        else:
            x = (x - running_mean.value) * jax.lax.rsqrt(running_var.value + self.epsilon)
        if self.use_scale:
            x = x * self.param("scale", self.scale_init, (channels,))
        if self.use_bias:
            x = x + self.param("bias", nn.initializers.zeros, (channels,))
        return x.astype(self.dtype)

    def _groups(self, x: Array, axis: str | None) -> tuple[Callable, Callable, bool]:
        """(mean over each group: (batch, …, channels) -> (groups, channels); from there back to the group's examples:
        (batch, 1, …, channels); whether the groups are those of the whole batch, and not of this shard alone)"""
        n, places, channels = len(x), tuple(range(1, x.ndim - 1)), x.shape[-1]
        shards = 1 if axis is None else jax.lax.axis_size(axis)
        if n * shards % self.groups:
            raise ValueError(
                f"{self.groups} BatchNorm groups do not fit a batch of {n} examples on each of {shards} shards: let "
                "--config.encoder.bn_groups divide the batch."
            )
        if x[0].size // channels * n * shards == self.groups:
            raise ValueError(
                "BatchNorm makes zeros of one example: raise --config.batch_size, or take fewer encoder.bn_groups, "
                "larger microbatches, or --config.encoder.norm=group."
            )
        back = (n, *(1 for _ in places), channels)
        if self.groups == 1:
            return (
                lambda x: collectives.mean(x.mean((0, *places)), axis)[None],
                lambda x: x.reshape(back[1:]),
                True,
            )
        if self.groups % shards == 0:
            here = self.groups // shards
            return (
                lambda x: x.reshape(here, -1, *x.shape[1:]).mean(tuple(range(1, x.ndim))),
                lambda x: jnp.repeat(x, n // here, axis=0).reshape(back),
                False,
            )
        # Groups that begin and end within shards: sums over the members that a shard has, of all groups.
        group = (collectives.shard_offset(n, axis) + jnp.arange(n)) * self.groups // (n * shards)
        member = jax.nn.one_hot(group, self.groups)
        return (
            lambda x: collectives.mean(product(member.T, x.mean(places)), axis) * (self.groups / n),
            lambda x: product(member, x).reshape(back),
            True,
        )


class GroupNorm(nn.Module):
    """y = (x - mean) / sqrt(var + epsilon) * scale + bias, statistics in float32 over one example's places and groups
    of channels: 32 of them, and where that would leave fewer than four channels to a group, as many as have four.

    Wu and He, "Group Normalization", 2018.
    """

    epsilon: float = 1e-5
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, *, train: bool, axis: str | None = None):
        """x (batch, …, channels) -> the same shape; `train` and `axis` are accepted as by BatchNorm, and not used."""
        channels = x.shape[-1]
        groups = min(32, max(1, channels // 4))
        y = x.astype(jnp.float32).reshape(x.shape[0], -1, groups, channels // groups)
        mean = y.mean((1, 3), keepdims=True)
        var = jnp.square(y - mean).mean((1, 3), keepdims=True)
        y = ((y - mean) * jax.lax.rsqrt(var + self.epsilon)).reshape(x.shape)
        y = y * self.param("scale", self.scale_init, (channels,))
        y = y + self.param("bias", nn.initializers.zeros, (channels,))
        return y.astype(self.dtype)
