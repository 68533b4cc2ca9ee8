"""BatchNorm over the global batch or over groups of it, and GroupNorm, which asks nothing of the batch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.typing import DTypeLike

from ssljax import collectives


class BatchNorm(nn.Module):
    """y = (x - mean) / sqrt(var + epsilon) * scale + bias, statistics in float32.

    `groups=1`: the mean and (biased) variance of the whole global batch, gathered over `axis`. `groups=g`: the batch is
    cut into g groups of consecutive examples, each normalised by its own statistics, as g devices without synchronised
    BatchNorm would do; the running statistics follow the mean over groups. Evaluation uses the running statistics.

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
            groups = self._local_groups(len(x), axis)
            x = rearrange(x, "(g n) ... c -> g n ... c", g=groups)
            over = tuple(range(1, x.ndim - 1))
            shape = (groups,) + (1,) * len(over) + (channels,)
            shared = axis if self.groups == 1 else None
            if x[0].size // channels * (1 if shared is None else jax.lax.axis_size(shared)) == 1:
                raise ValueError(
                    "BatchNorm makes zeros of one example: raise --config.batch_size, or take fewer encoder.bn_groups, "
                    "larger microbatches, or --config.encoder.norm=group."
                )
            # Two passes: E[x²] - E[x]² would cancel where a channel hardly varies, and rounding would differ by mesh.
            mean = collectives.mean(x.mean(over), shared)
            var = collectives.mean(jnp.square(x - mean.reshape(shape)).mean(over), shared)
            if not self.is_initializing():
                for running, batch in ((running_mean, mean), (running_var, var)):
                    batch = batch.mean(0) if self.groups == 1 else collectives.mean(batch.mean(0), axis)
                    running.value = self.momentum * running.value + (1 - self.momentum) * batch
            x = (x - mean.reshape(shape)) * jax.lax.rsqrt(var.reshape(shape) + self.epsilon)
            x = rearrange(x, "g n ... c -> (g n) ... c")
        else:
            x = (x - running_mean.value) * jax.lax.rsqrt(running_var.value + self.epsilon)
        if self.use_scale:
            x = x * self.param("scale", self.scale_init, (channels,))
        if self.use_bias:
            x = x + self.param("bias", nn.initializers.zeros, (channels,))
        return x.astype(self.dtype)

    def _local_groups(self, n: int, axis: str | None) -> int:
        shards = 1 if axis is None or self.groups == 1 else jax.lax.axis_size(axis)
        if self.groups % shards or n % (self.groups // shards):
            raise ValueError(
                f"{self.groups} BatchNorm groups do not fit a batch of {n} examples on each of {shards} shards: let "
                "--config.encoder.bn_groups be a multiple of the shards that divides the batch."
            )
        return self.groups // shards


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
        y = rearrange(x.astype(jnp.float32), "n ... (g c) -> n (...) g c", g=groups)
        mean = y.mean((1, 3), keepdims=True)
        var = jnp.square(y - mean).mean((1, 3), keepdims=True)
        y = ((y - mean) * jax.lax.rsqrt(var + self.epsilon)).reshape(x.shape)
        y = y * self.param("scale", self.scale_init, (channels,))
        y = y + self.param("bias", nn.initializers.zeros, (channels,))
        return y.astype(self.dtype)
