"""Attention by heads, and products with the rows of a sequence: what all Transformers share."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax.collectives import whole
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


class Dense(nn.Dense):
    """`nn.Dense` of all rows as one matrix: (…, channels) -> (…, features).

    A CPU multiplies rows of several axes more slowly, for the kernel's gradient above all (`benchmarks/tricks.py`).
    """

    def __call__(self, x: Array) -> Array:
        return super().__call__(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.features)


class Projection(nn.Module):
    """The kernel (dim, heads, dim / heads), drawn as a matrix (dim, dim) is, and the bias (heads, dim / heads), 0 where
    there is none, of queries, keys or values."""

    heads: int
    kernel_init: nn.initializers.Initializer
    bias: bool = True

    @nn.compact
    def __call__(self, dim: int) -> tuple[Array, Array]:
        shape = self.heads, dim // self.heads
        kernel = self.param("kernel", lambda key: self.kernel_init(key, (dim, dim), jnp.float32).reshape(dim, *shape))
        return kernel, self.param("bias", nn.initializers.zeros, shape) if self.bias else jnp.zeros(shape)


class Attention(nn.Module):
    """softmax(q kᵀ / √(dim / heads)) v by heads, in float32: (batch, tokens, dim) -> the same shape.

    Parameters are those of Flax's `MultiHeadDotProductAttention`; queries, keys and values are one product.
    """

    heads: int
    kernel_init: nn.initializers.Initializer
    out_init: nn.initializers.Initializer
    dropout: float = 0.0
    bias: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None, keys: Array | None = None) -> Array:
        """mask: bool, broadcast to (batch, heads, queries, keys): which keys a query may attend to."""
        batch, tokens, dim = x.shape
        parts = [Projection(self.heads, self.kernel_init, self.bias, name=n)(dim) for n in ("query", "key", "value")]
        # (dim, 3, heads, dim / heads), gathered by each device, for less is sent than where its parts go round.
        kernel = whole(jnp.stack([kernel for kernel, _ in parts], axis=1).astype(self.dtype))
        bias = jnp.stack([bias for _, bias in parts]).astype(self.dtype)
        y = x.astype(self.dtype).reshape(-1, dim) @ kernel.reshape(dim, -1) + bias.reshape(-1)
        q, k, v = y.reshape(batch, tokens, *kernel.shape[1:]).transpose(2, 0, 3, 1, 4)
        logits = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=jnp.float32) * (q.shape[-1] ** -0.5)
        if mask is not None:
            logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
        weights = nn.softmax(logits)
        self.sow("intermediates", "weights", weights)  # for whoever asks to see them
        weights = dropout(weights, self.dropout, keys, 0).astype(v.dtype)
        y = jnp.einsum("bhqk,bhkd->bqhd", weights, v)
        out = nn.DenseGeneral(
            dim, axis=(-2, -1), use_bias=self.bias, kernel_init=self.out_init, dtype=self.dtype, name="out"
        )
        return out(y.reshape(-1, *y.shape[2:])).reshape(x.shape)


def last_attention(intermediates: PyTree) -> Array:
    """Of the last of several blocks: (batch, heads, queries, keys); from what `apply` gives with
    `mutable=["intermediates"]` under the name of these blocks, of `Blocks` or `Stack`."""
    if "blocks" in intermediates:  # scanned
        (weights,) = intermediates["blocks"]["attention"]["weights"]
        return weights[-1]
    (weights,) = intermediates[f"block{len(intermediates) - 1}"]["attention"]["weights"]
    return weights
