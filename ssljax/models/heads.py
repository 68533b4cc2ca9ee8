"""What stands on an encoder while it is pretrained, and is thrown away afterwards."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax.models.norm import BatchNorm

TORCH_LINEAR = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # U(±1/√fan_in), PyTorch's default


class MLP(nn.Module):
    """Dense layers with ReLU between them: (batch, dim) -> (batch, widths[-1]), float32.

    `norm`: BatchNorm after every dense layer, which then has no bias. `last_norm`: what follows the last one:
    "none", "scale" (BatchNorm without offset: SimCLR) or "plain" (with neither: MoCo v3, SimSiam).
    """

    widths: Sequence[int]
    norm: bool = True
    last_norm: str = "none"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, *, train: bool, axis: str | None = None):
        for i, width in enumerate(self.widths, start=1):
            last = i == len(self.widths)
            normed = self.last_norm != "none" if last else self.norm
            x = nn.Dense(width, use_bias=not normed, dtype=self.dtype, kernel_init=TORCH_LINEAR, name=f"dense{i}")(x)
            if normed:
                norm = BatchNorm(
                    use_bias=not last,
                    use_scale=not last or self.last_norm == "scale",
                    dtype=self.dtype,
                    name=f"norm{i}",
                )
                x = norm(x, train=train, axis=axis)
            x = x if last else nn.relu(x)
        return x.astype(jnp.float32)
