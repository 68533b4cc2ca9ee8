"""Transformer blocks for sequences of tokens: what encoders and decoders of text and speech are made of.

(The Vision Transformer has blocks of its own, with what only it needs: drop-path, layer scale, SwiGLU.)
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax.models.attention import Attention, Dense, dropout
from ssljax.models.remat import rematerialised
from ssljax.models.vit import ACTIVATIONS, NORMAL
from ssljax.typing import Array


class Block(nn.Module):
    """norm "pre": x + attention(norm1(x)), then x + mlp(norm2(x)) (GPT, CLIP, wav2vec 2.0 Large); "post": x = norm1(x +
    attention(x)), then norm2(x + mlp(x)) (BERT, wav2vec 2.0 Base).

    hidden: units of the MLP. dropout: of attention weights, of what both branches give, and, with `hidden_dropout`, of
    the MLP's hidden units. kernel_init: of all kernels but those that end a branch, which are out_init's, and, where it
    is given, the MLP's first, which is mlp_init's.
    """

    heads: int
    hidden: int
    norm: str = "pre"
    activation: str = "gelu"
    epsilon: float = 1e-5
    dropout: float = 0.0
    hidden_dropout: float = 0.0
    kernel_init: nn.initializers.Initializer = NORMAL
    out_init: nn.initializers.Initializer = NORMAL
    mlp_init: nn.initializers.Initializer | None = None
    bias: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None, keys: Array | None = None) -> Array:
        """x (batch, tokens, dim); mask as in `Attention`; keys (batch,), for dropout -> the shape of x."""

        def norm(name: str, x: Array) -> Array:
            return nn.LayerNorm(epsilon=self.epsilon, use_bias=self.bias, dtype=self.dtype, name=name)(x)

        def attention(x: Array) -> Array:
            y = Attention(
                self.heads, self.kernel_init, self.out_init, self.dropout, self.bias, self.dtype, name="attention"
            )(x, mask, keys)
            return dropout(y, self.dropout, keys, 1)

        def mlp(x: Array) -> Array:
            dense = partial(Dense, use_bias=self.bias, dtype=self.dtype)
            y = dense(self.hidden, kernel_init=self.mlp_init or self.kernel_init, name="mlp1")(x)
            y = dropout(ACTIVATIONS[self.activation](y), self.hidden_dropout, keys, 2)
            y = dense(x.shape[-1], kernel_init=self.out_init, name="mlp2")(y)
            return dropout(y, self.dropout, keys, 3)

        if self.norm == "pre":
            x = x + attention(norm("norm1", x))
            return x + mlp(norm("norm2", x))
        x = norm("norm1", x + attention(x))
        return norm("norm2", x + mlp(x))


class Stack(nn.Module):
    """`depth` equal blocks, one after the other; see `Block`.

    scan: compiles one block instead of `depth` (parameters get a leading layer axis). remat: what is kept for the
    backward pass (`rematerialised`). layer_drop: with keys, each block is left out for an example with that probability
    (Fan et al., "Reducing Transformer Depth on Demand with Structured Dropout", 2020).
    """

    depth: int
    block: Block
    scan: bool = False
    remat: str = ""
    layer_drop: float = 0.0

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None, keys: Array | None = None) -> Array:
        def fold(layer) -> Array | None:
            return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, layer))(keys)

        def make(name: str) -> nn.Module:
            kind = rematerialised(Block, self.remat)
            fields = {f: getattr(self.block, f) for f in Block.__dataclass_fields__ if f not in ("parent", "name")}
            return kind(**fields, name=name)

        def apply(block: nn.Module, x: Array, layer) -> Array:
            folded = fold(layer)
            y = block(x, mask, folded)
            if folded is None or not self.layer_drop:
                return y
            drawn = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 4)))(folded)  # 0 to 3 are Block's
            return jnp.where((drawn < self.layer_drop)[:, None, None], x, y)

        if not self.scan:
            for i in range(self.depth):
                x = apply(make(f"block{i}"), x, i)
            return x

        def layer(module, x, index):
            return apply(module, x, index), None

        scanned = nn.scan(
            layer, variable_axes={"params": 0, "intermediates": 0}, split_rngs={"params": True}, length=self.depth
        )
        return scanned(make("blocks"), x, jnp.arange(self.depth))[0]
