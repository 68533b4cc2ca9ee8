"""What the decoders of masked autoencoders share."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from ssljax.models.vit import XAVIER, Blocks
from ssljax.typing import Array


class PixelDecoder(nn.Module):
    """Blocks that paint what the encoder has not seen; how visible and mask tokens are put together, a decoder says.

    scan, remat: see `Blocks`.
    """

    width: int
    depth: int
    heads: int
    pixels: int
    epsilon: float = 1e-6
    scan: bool = False
    remat: str = ""
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def paint(
        self,
        tokens: Array,
        together: Callable[[Array, Array], Array],
        first: int,
        bias: bool,
        mask_init: Initializer,
    ) -> Array:
        """Encoded tokens (batch, visible, dim) -> pixels of those from `first` on (batch, others, pixels), float32.

        together: of the visible tokens (batch, visible, width) and the mask token (width,), the decoder's tokens. bias:
        whether the first projection has one.
        """
        x = nn.Dense(self.width, use_bias=bias, kernel_init=XAVIER, dtype=self.dtype, name="embed")(tokens)
        x = together(x, self.param("mask_token", mask_init, (self.width,)))
        x = Blocks(
            self.depth,
            self.heads,
            epsilon=self.epsilon,
            scan=self.scan,
            remat=self.remat,
            dtype=self.dtype,
            name="decoder",
        )(x)
        x = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm")(x)
        return nn.Dense(self.pixels, kernel_init=XAVIER, name="pixels")(x[:, first:].astype(jnp.float32))
