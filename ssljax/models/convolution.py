"""Convolutions whose gradient with respect to the kernel is fast on a CPU, too."""

from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp

from ssljax.typing import Array

PLACES = 4096
"""Of images and places together, of which a CPU's cache holds the lines that a product of two of them needs."""
MOST = 64
"""Groups of images, each of which is compiled."""


def conv_general_dilated(x: Array, kernel: Array, strides: tuple[int, ...], padding: Any, **options: Any) -> Array:
    """`jax.lax.conv_general_dilated` of x (batch, *places, channels).

    XLA has a CPU make the kernel's gradient as a convolution of the whole batch whose window is as large as the image,
    and loses its cache; in groups of a few images, which are added up, it is faster, and of a kernel of one place as
    the product of matrices that it is (`benchmarks/tricks.py`). Elsewhere the compiler does as it likes.
    """

    def convolve(x: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)

    def to_x(x: Array, kernel: Array, g: Array) -> Array:
        return jax.vjp(lambda x: convolve(x, kernel), x)[1](g)[0]

    def to_kernel(x: Array, kernel: Array, g: Array) -> Array:
        return jax.vjp(lambda kernel: convolve(x, kernel), kernel)[1](g)[0]

    def in_groups(x: Array, kernel: Array, g: Array) -> Array:
        most = min(len(x), MOST, max(1, g.size // g.shape[-1] // PLACES))
        count = next(n for n in range(most, 0, -1) if len(x) % n == 0)
        # Each has images from all parts of the batch, so that they stay on the devices over which these are spread.
        groups = [y.reshape(-1, count, *y.shape[1:]).swapaxes(0, 1) for y in (x, g)]
        return reduce(jnp.add, (to_kernel(x, kernel, g) for x, g in zip(*groups, strict=True)))

    def as_product(x: Array, kernel: Array, g: Array) -> Array:
        seen = x[:, *(slice(None, None, stride) for stride in strides)]
        return (rows_of(g).T @ rows_of(seen)).T.reshape(kernel.shape)

    def backward(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
        padded = not isinstance(padding, str) and any(map(any, padding))
        of_one_place = kept[1].size == kept[0].shape[-1] * g.shape[-1] and not padded
        on_cpu = as_product if of_one_place else in_groups
        if jax.default_backend() != "cpu":  # groups would only be traced
            return to_x(*kept, g), to_kernel(*kept, g)
        return to_x(*kept, g), jax.lax.platform_dependent(*kept, g, cpu=on_cpu, default=to_kernel)

    differentiable = jax.custom_vjp(convolve)
    differentiable.defvjp(lambda x, kernel: (convolve(x, kernel), (x, kernel)), backward)
    return differentiable(x, kernel)


def rows_of(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])
