"""Transformer blocks for sequences of tokens: what encoders and decoders of text and speech are made of.

(The Vision Transformer has blocks of its own, with what only it needs: drop-path, layer scale, SwiGLU.)
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax.models.vit import ACTIVATIONS, NORMAL
from ssljax.typing import Array, PyTree


def dropout(x: Array, rate: float, keys: Array | None, salt: int) -> Array:
    """`x` (batch, …), each number 0 with probability `rate` and else divided by 1 - rate; one key for each example,
    so that a draw does not depend on its neighbours. Without keys (evaluation) `x` itself.

    salt: another number for every place in a network.
    """
    if keys is None or not rate:
        return x

    def one(key: Array, row: Array) -> Array:
        kept = jax.random.bernoulli(jax.random.fold_in(key, salt), 1.0 - rate, row.shape)
        return jnp.where(kept, row / (1.0 - rate), 0.0).astype(row.dtype)

    return jax.vmap(one)(keys, x)


class Attention(nn.Module):
    """softmax(q kᵀ / √(dim / heads)) v by heads, in float32: (batch, tokens, dim) -> the same shape."""

    heads: int
    dropout: float = 0.0
    kernel_init: nn.initializers.Initializer = NORMAL
    out_init: nn.initializers.Initializer = NORMAL
    bias: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None, keys: Array | None = None) -> Array:
        """mask: bool, broadcast to (batch, heads, queries, keys): which keys a query may attend to."""
        dim = x.shape[-1]

        def project(name: str) -> Array:
            features = self.heads, dim // self.heads
            return nn.DenseGeneral(
                features, use_bias=self.bias, kernel_init=self.kernel_init, dtype=self.dtype, name=name
            )(x)

        q, k, v = (project(name) for name in ("query", "key", "value"))
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32) * (q.shape[-1] ** -0.5)
        if mask is not None:
            logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
        weights = nn.softmax(logits)
        self.sow("intermediates", "weights", weights)  # for whoever asks to see them
        weights = dropout(weights, self.dropout, keys, 0).astype(v.dtype)
        y = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
        return nn.DenseGeneral(
            dim, axis=(-2, -1), use_bias=self.bias, kernel_init=self.out_init, dtype=self.dtype, name="out"
        )(y)


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
                self.heads, self.dropout, self.kernel_init, self.out_init, self.bias, self.dtype, name="attention"
            )(x, mask, keys)
            return dropout(y, self.dropout, keys, 1)

        def mlp(x: Array) -> Array:
            dense = partial(nn.Dense, use_bias=self.bias, dtype=self.dtype)
            y = dense(self.hidden, kernel_init=self.mlp_init or self.kernel_init, name="mlp1")(x)
            y = dropout(ACTIVATIONS[self.activation](y), self.hidden_dropout, keys, 2)
            y = dense(x.shape[-1], kernel_init=self.out_init, name="mlp2")(y)
            return dropout(y, self.dropout, keys, 3)

        if self.norm == "pre":
            x = x + attention(norm("norm1", x))
            return x + mlp(norm("norm2", x))
        x = norm("norm1", x + attention(x))
        return norm("norm2", x + mlp(x))


def last_attention(intermediates: PyTree) -> Array:
    """Of the last block of a `Stack`, mean over its heads: (batch, queries, keys); from what `apply` gives with
    `mutable=["intermediates"]` under the name of the stack."""
    if "blocks" in intermediates:  # scanned
        (weights,) = intermediates["blocks"]["attention"]["weights"]
        return weights[-1].mean(axis=1)
    (weights,) = intermediates[f"block{len(intermediates) - 1}"]["attention"]["weights"]
    return weights.mean(axis=1)


class Stack(nn.Module):
    """`depth` equal blocks, one after the other; see `Block`.

    scan: compiles one block instead of `depth` (parameters get a leading layer axis). remat: keeps only the blocks'
    inputs for the backward pass. layer_drop: with keys, each block is left out for an example with that probability
    (Fan et al., "Reducing Transformer Depth on Demand with Structured Dropout", 2020).
    """

    depth: int
    block: Block
    scan: bool = False
    remat: bool = False
    layer_drop: float = 0.0

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None, keys: Array | None = None) -> Array:
        def fold(layer) -> Array | None:
            return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, layer))(keys)

        def make(name: str) -> nn.Module:
            kind = nn.remat(Block) if self.remat else Block
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
