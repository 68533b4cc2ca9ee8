"""Images and videos in patches, as rows of numbers, and back."""

import math
from collections.abc import Sequence

from ssljax.typing import Array


def cut(x: Array, sizes: Sequence[int]) -> Array:
    """(batch, n₁, n₂, …, channels) in patches of `sizes`, which divide the n: (batch, patches, numbers). Patches, and
    the places in one, go in the order of the dimensions, the channel last."""
    n = len(sizes)
    grid = [places // size for places, size in zip(x.shape[1:-1], sizes, strict=True)]
    apart = x.reshape(x.shape[0], *(k for pair in zip(grid, sizes, strict=True) for k in pair), x.shape[-1])
    ordered = apart.transpose(0, *range(1, 2 * n, 2), *range(2, 2 * n + 1, 2), 2 * n + 1)
    return ordered.reshape(x.shape[0], math.prod(grid), math.prod(sizes) * x.shape[-1])


def join(patches: Array, sizes: Sequence[int], grid: Sequence[int]) -> Array:
    """The inverse of `cut`, of patches that lie on a grid."""
    n = len(sizes)
    apart = patches.reshape(patches.shape[0], *grid, *sizes, patches.shape[-1] // math.prod(sizes))
    ordered = apart.transpose(0, *(k for i in range(1, n + 1) for k in (i, n + i)), 2 * n + 1)
    sides = [places * size for places, size in zip(grid, sizes, strict=True)]
    return ordered.reshape(patches.shape[0], *sides, apart.shape[-1])
