"""Losses that keep the dimensions of an embedding apart. Statistics are float32 and of the global batch."""

import jax
import jax.numpy as jnp

from ssljax import collectives
from ssljax.losses.blockwise import as_tiles, tile_side
from ssljax.losses.checks import check_pair
from ssljax.numerics import inverse_root, product
from ssljax.typing import Array


def barlow_twins(
    z1: Array, z2: Array, *, weight: float = 0.005, axis: str | None = None, block: int | None = None
) -> Array:
    """Cross-correlation of two views pulled towards the identity (Barlow Twins).

        L = Σ_i (1 - C_ii)² + λ Σ_{i≠j} C_ij²,   C = ẑ1ᵀ ẑ2 / N,   ẑ = (z - mean(z)) / sqrt(var(z) + 1e-5)

    with the biased variance, as BatchNorm without scale and offset gives ẑ in the authors' code. The sum has dim² terms
    and so a value in the hundreds or thousands at first; solo-learn multiplies it by 0.025 (CIFAR: 0.1).

    Args:
      z1, z2: embeddings of two views, (batch, dim); row i of both comes from example i. They are standardised here.
      weight: λ; 0.005 in the paper, 0.0051 in its code.
      axis: mesh axis that the batch is split over. Mean, variance, C and N are those of the global batch, and so is the
        returned value, on every shard.
      block: number of columns of C that are held at a time; it need not divide dim. Value and gradients are the same,
        but for rounding. None: all of C while it is small, blocks beyond (`ssljax.losses.blockwise`).

    Returns: a float32 scalar.

    Raises: ValueError if the shapes are not two equal (batch, dim), the global batch has fewer than 2 examples or block
    is not a positive integer.

    Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", 2021, equations 1 and 2.
    """
    z1, z2 = jnp.asarray(z1), jnp.asarray(z2)
    check_pair("z1", z1, "z2", z2)
    _global_batch(z1, axis)
    z1, z2 = _standardise(z1, axis), _standardise(z2, axis)
    diagonal = collectives.mean(jnp.mean(z1 * z2, axis=0), axis)
    return jnp.sum((1 - diagonal) ** 2) + weight * _off_diagonal(z1, z2, axis, block)


def vicreg(
    z1: Array,
    z2: Array,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    convention: str = "mean",
    axis: str | None = None,
    block: int | None = None,
) -> Array:
    """Variance, invariance and covariance regularisation (VICReg).

        L = λ mean_{ni} (z1_ni - z2_ni)² + μ V + ν (c(z1) + c(z2))

        v(z) = mean_i max(0, 1 - sqrt(var(z_i) + 1e-4)),   c(z) = 1/dim Σ_{i≠j} cov(z)_ij²

    with the unbiased variance and covariance, both over N - 1. V is the mean of v(z1) and v(z2), or their sum. The
    first term is divided by dim, as in the algorithm that the paper lists and in its code, not as in its equation 5.

    Args:
      z1, z2: embeddings of two views, (batch, dim), not normalised; row i of both comes from example i.
      invariance, variance, covariance: λ, μ and ν.
      convention: "mean": V = (v(z1) + v(z2)) / 2 (the authors' code, lightly); "sum": V = v(z1) + v(z2) (the paper's
        equation 6, solo-learn), which is twice the weight.
      axis: mesh axis that the batch is split over. Variances and covariances are those of the global batch; the mean of
        the returned values over the shards is the loss of the whole batch.
      block: number of columns of a covariance matrix that are held at a time; it need not divide dim. Value and
        gradients are the same, but for rounding. None: the whole matrix while it is small, blocks beyond
        (`ssljax.losses.blockwise`).

    Returns: a float32 scalar.

    Raises: ValueError if the shapes are not two equal (batch, dim), the convention is unknown, the global batch has
    fewer than 2 examples or block is not a positive integer.

    Bardes, Ponce and LeCun, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning", 2022,
    equations 1 to 6.
    """
    z1, z2 = jnp.asarray(z1), jnp.asarray(z2)
    check_pair("z1", z1, "z2", z2)
    if convention not in ("mean", "sum"):
        raise ValueError(f"convention '{convention}' is unknown; use 'mean' or 'sum'.")
    n = _global_batch(z1, axis)
    z1, z2 = z1.astype(jnp.float32), z2.astype(jnp.float32)
    unbiased = n / (n - 1)
    hinges, covariances = jnp.float32(0), jnp.float32(0)
    for z in (_centre(z1, axis), _centre(z2, axis)):
        hinges += jax.nn.relu(1 - jnp.sqrt(unbiased * _variance(z, axis) + 1e-4)).mean()
        covariances += unbiased**2 * _off_diagonal(z, z, axis, block) / z.shape[1]
    hinges = hinges / 2 if convention == "mean" else hinges
    return invariance * jnp.mean((z1 - z2) ** 2) + variance * hinges + covariance * covariances


def _global_batch(z: Array, axis: str | None) -> int:
    n = len(z) * (1 if axis is None else jax.lax.axis_size(axis))
    if n < 2:
        raise ValueError("at least 2 examples are needed in the global batch: one has no variance.")
    return n


def _centre(z: Array, axis: str | None) -> Array:
    """z less its mean over the global batch, in float32."""
    z = z.astype(jnp.float32)
    return z - collectives.mean(z.mean(axis=0), axis)


def _variance(centred: Array, axis: str | None) -> Array:
    """The biased variance (dim,) over the global batch, in a second pass: E[z²] - E[z]² would lose its digits."""
    return collectives.mean(jnp.mean(centred**2, axis=0), axis)


def _standardise(z: Array, axis: str | None) -> Array:
    centred = _centre(z, axis)
    return centred * inverse_root(_variance(centred, axis) + 1e-5)


def _off_diagonal(a: Array, b: Array, axis: str | None, block: int | None) -> Array:
    """Σ_{i≠j} C_ij² of C = aᵀ b / N over the global batch; a and b are (batch, dim).

    Each shard multiplies its own examples, and a block of C is summed over the shards before it is squared. So a device
    holds its rows of a and b and one block, however large the batch and dim are. The Gram matrices a aᵀ and b bᵀ would
    give the same sum (|aᵀ b|² = Σ (a aᵀ)(b bᵀ)) with less work where N < dim / 2, but they want all rows on each device
    and grow with N².
    """
    ids = jnp.arange(a.shape[1])

    def of_columns(columns: Array, column_ids: Array) -> Array:
        c = collectives.mean(product(a.T, columns.T) / len(a), axis)
        return jnp.sum(jnp.where(ids[:, None] == column_ids, 0.0, c) ** 2)

    side = tile_side(block, a.shape[1] ** 2)
    if side is None:
        return of_columns(b.T, ids)
    # The backward pass makes every block again. Columns of padding are zero, and so is their part of the sum.
    again = jax.checkpoint(of_columns, prevent_cse=False)
    return jax.lax.map(lambda tile: again(*tile), (as_tiles(b.T, side), as_tiles(ids, side, -1))).sum()
