"""Where patches are: fixed positions, and learned ones at another size of the image."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.typing import Array


def sincos_positions(rows: int, columns: int, dim: int) -> np.ndarray:
    """Fixed two-dimensional sine-cosine positions of MAE: (rows * columns, dim), the column's half first (MoCo v3's
    code has the row's first, which only matters to weights that were trained with it).

    Each half is [sin(p w), cos(p w)] with w_i = 10000^(-i / (dim / 4)). Raises ValueError unless 4 divides dim.
    """
    if dim % 4:
        raise ValueError(f"sin-cos positions need a width that 4 divides, but it is {dim}.")
    frequency = 1.0 / 10000 ** (np.arange(dim // 4, dtype=np.float64) / (dim / 4))
    y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    angles = [np.outer(place.ravel(), frequency) for place in (x, y)]
    return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1).astype(np.float32)


def bicubic(size: int, target: int, offset: float = 0.0, antialias: bool = False) -> np.ndarray:
    """Matrix (target, size) that resizes as PyTorch's `interpolate` does in mode "bicubic", corners not aligned.

    Output i lies at (i + 1/2) · size / (target + offset) - 1/2 of the input; an offset is what `scale_factor` =
    (target + offset) / size does. The kernel is cubic convolution with a = -0.75, and the input goes on beyond its
    border as its last value. antialias: a = -0.5, the kernel is wider by as much as the output is coarser, and has no
    weight beyond the border.
    """
    step = size / (target + offset)
    place = (np.arange(target) + 0.5) * step - 0.5
    source = np.arange(size) if antialias else np.arange(-2, size + 2)
    a, width = (-0.5, max(step, 1.0)) if antialias else (-0.75, 1.0)
    d = np.abs(place[:, None] - source) / width
    near, far = ((a + 2) * d - (a + 3)) * d**2 + 1, ((d - 5) * d + 8) * d * a - 4 * a
    weights = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True) @ np.eye(size)[np.clip(source, 0, size - 1)]


def resize_positions(positions: Array, grid: tuple[int, int], offset: float = 0.0, antialias: bool = False) -> Array:
    """Positions (count, width) of one grid at another one: (rows * columns, width); see `bicubic`.

    A square number of positions is a square grid; those that are as many as the grid has places are left as they are.
    Raises ValueError for any others, of which nobody knows how they lie.
    """
    side = math.isqrt(len(positions))
    square = side**2 == len(positions)
    if grid == (side, side) or (not square and len(positions) == grid[0] * grid[1]):
        return positions
    if not square:
        raise ValueError(
            f"{len(positions)} learned positions are not a square grid and cannot be resized to {grid[0]}x{grid[1]}: "
            "initialise the encoder with square images."
        )
    rows, columns = (bicubic(side, n, offset, antialias).astype(np.float32) for n in grid)
    places = positions.reshape(side, side, -1)
    resized = jnp.einsum("ir,jc,rcw->ijw", rows, columns, places, precision=jax.lax.Precision.HIGHEST)
    return resized.reshape(grid[0] * grid[1], -1)
