"""Row-wise log-sum-exp of a matrix of similarities, of which only one tile need be alive at a time."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.collectives import by_shard, varying_like, whole
from ssljax.numerics import product
from ssljax.typing import Array

# Up to 2**24 similarities (64 MiB each time that they are held) the whole matrix is the simplest way. Tiles of 1024 x
# 1024 (4 MiB) stay near a core's cache, and are whole multiples of a TPU's 128 x 128 units.
LARGEST_WHOLE = 2**24
BLOCK = 1024


def log_sum_exp(rows: Array, columns: Array, row_ids: Array, column_ids: Array, *, block: int | None = None) -> Array:
    """Of each row, the log-sum-exp of its similarities to the columns that are not its own.

        out_i = log Σ_j exp(rows_i · columns_j),   over the j with column_ids_j ≠ row_ids_i

    The value and the gradients do not depend on `block`, but for rounding. With a block, memory is a tile's and the
    arguments', (n + m) * dim: the forward pass keeps a running maximum and sum of each row, the backward pass makes
    every tile again, which costs one matrix product more. There is then no forward-mode derivative (`jax.jvp`).

    Args:
      rows: (n, dim) float32; columns: (m, dim) float32.
      row_ids: (n,), column_ids: (m,): integers ≥ 0. Every row must be left with at least one column.
      block: side of the square tiles; it need not divide n or m. None: the whole matrix if it has at most
        LARGEST_WHOLE entries, else tiles of BLOCK.

    Returns: (n,) float32.

    Raises: ValueError if block is neither None nor a positive integer.

    Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018.
    """
    side = tile_side(block, len(rows) * len(columns))
    if side is None:
        return jax.nn.logsumexp(_similarities(rows, row_ids, columns, column_ids), axis=1)
    rows = varying_like(rows, columns)  # inside shard_map, loops ask for it
    return _in_tiles(side, rows, *varying_like((columns, row_ids, column_ids), rows))


def tile_side(block: int | None, entries: int) -> int | None:
    """Side of the tiles of a matrix of that many entries: `block` where it is given, else BLOCK; None: keep it whole.

    Raises: ValueError if block is neither None nor a positive integer.
    """
    if block is None:
        return None if entries <= LARGEST_WHOLE else BLOCK
    if isinstance(block, bool) or not isinstance(block, int | np.integer) or block < 1:
        raise ValueError(f"block must be a positive integer or None, but is {block!r}.")
    return int(block)


def _similarities(rows: Array, row_ids: Array, columns: Array, column_ids: Array) -> Array:
    """A tile of the matrix, -inf where a row meets a column of its own, or one of the padding."""
    hidden = (row_ids[:, None] == column_ids) | (column_ids < 0)
    return jnp.where(hidden, -jnp.inf, product(rows, columns.T))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _in_tiles(block: int, rows: Array, columns: Array, row_ids: Array, column_ids: Array) -> Array:
    return _forward(block, rows, columns, row_ids, column_ids)[0]


def _forward(block, rows, columns, row_ids, column_ids):
    tiles_of_rows = as_tiles(rows, block), as_tiles(row_ids, block, -1)

    def column_of_tiles(sums, column):
        column = whole(column)

        def add(row):
            *row, highest, total = row
            logits = _similarities(*row, *column)
            higher = jnp.maximum(highest, logits.max(axis=1))
            return higher, total * jnp.exp(highest - higher) + jnp.exp(logits - higher[:, None]).sum(axis=1)

        return jax.lax.map(add, (*tiles_of_rows, *sums)), None

    # Not -inf: a first tile that is hidden altogether would give inf - inf.
    zeros = jnp.zeros_like(tiles_of_rows[0][..., 0])
    start = zeros + jnp.finfo(jnp.float32).min, zeros
    sums, _ = jax.lax.scan(column_of_tiles, start, (as_tiles(columns, block), as_tiles(column_ids, block, -1)))
    highest, total = (_untile(x, len(rows)) for x in sums)
    return highest + jnp.log(total), (rows, columns, row_ids, column_ids, highest, total)


def _backward(block, residuals, gradient):
    """With p_ij = gradient_i * softmax_ij: d rows = p columns, d columns = pᵀ rows."""
    rows, columns, row_ids, column_ids, highest, total = residuals
    # exp(x - highest) / total, and not exp(x - out): out rounds what makes a row of the softmax sum to one. Rows of
    # padding have weight 0, and so count for nothing.
    weights = gradient / total
    tiles_of_rows = (
        as_tiles(rows, block),
        as_tiles(row_ids, block, -1),
        as_tiles(highest, block),
        as_tiles(weights, block),
    )
    shards = len(by_shard(tiles_of_rows[0][0]))

    def column_of_tiles(d_rows, column):
        column = whole(column)

        def add(d_column, row):
            *row, highest, weight, d_row = row
            p = weight[:, None] * jnp.exp(_similarities(*row, *column) - highest[:, None])
            return d_column + _by_shard_of_rows(p, row[0]), d_row + product(p, column[0])

        by_shards = jnp.zeros((shards, *column[0].shape), column[0].dtype)
        d_column, d_rows = jax.lax.scan(add, varying_like(by_shards, columns), (*tiles_of_rows, d_rows))
        return d_rows, d_column.sum(axis=0)

    tiles_of_columns = as_tiles(columns, block), as_tiles(column_ids, block, -1)
    d_rows, d_columns = jax.lax.scan(column_of_tiles, jnp.zeros_like(tiles_of_rows[0]), tiles_of_columns)
    return _untile(d_rows, len(rows)), _untile(d_columns, len(columns)), None, None


def _by_shard_of_rows(p: Array, rows: Array) -> Array:
    """pᵀ rows (shards, columns, dim), of which the sum over shards is left to do."""
    p, rows = by_shard(p), by_shard(rows)
    # A stack of one product would be slower than the product on a CPU.
    return product(p[0].T, rows[0])[None] if len(p) == 1 else product(p.swapaxes(1, 2), rows)


_in_tiles.defvjp(_forward, _backward)


def as_tiles(x: Array, block: int, fill: int = 0) -> Array:
    """(n, …) -> (tiles, side, …) with side ≤ block, padded with `fill`; tile t has the rows t, t + tiles, t + 2 tiles …

    They are dealt out, not cut into runs: where the compiler spreads the batch over devices by itself, each tile is
    spread then too. Runs would lie on one device each, and every device would compute every tile.
    """
    tiles = -(-len(x) // block)
    side = -(-len(x) // tiles)
    x = jnp.pad(x, [(0, tiles * side - len(x))] + [(0, 0)] * (x.ndim - 1), constant_values=fill)
    return x.reshape(side, tiles, *x.shape[1:]).swapaxes(0, 1)


def _untile(x: Array, n: int) -> Array:
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])[:n]
