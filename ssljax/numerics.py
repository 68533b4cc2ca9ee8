"""Arithmetic that losses, heads and monitors need to the last digit, whatever the type of what they are given."""

import jax
import jax.numpy as jnp

from ssljax.typing import Array


def normalize(x: Array, *, axis: int = -1, epsilon: float = 1e-12) -> Array:
    """x / max(|x|, epsilon) along an axis, in float32; its gradient is finite at zero. NaN where |x|² is more than
    float32 holds (|x| > 1.8e19), so that a run that diverges is stopped and not taken for one of zeros."""
    x = x.astype(jnp.float32)
    return x * inverse_root(jnp.maximum(jnp.sum(x * x, axis=axis, keepdims=True), epsilon**2))


def inverse_root(x: Array) -> Array:
    """1 / √x; NaN where x overflowed."""
    return jax.lax.rsqrt(jnp.where(x < jnp.inf, x, jnp.nan))


def product(a: Array, b: Array) -> Array:
    """a b in full float32: on a TPU the default would multiply in bfloat16, and exp(x / 0.1) would show it."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
