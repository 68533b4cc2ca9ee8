"""Masks made of rectangles of patches: those of BEiT, data2vec, iBOT and DINOv2, and I-JEPA's contexts and targets.

A grid is (rows, columns) of patches; tokens are numbered row by row. Everything has a static shape, is drawn on the
device, and depends on keys alone: of each example, or of the step and the example's place in the global batch.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ssljax.collectives import example_keys, shard_offset, varying_like
from ssljax.typing import Array
from ssljax.views.images import fold, uniform
from ssljax.views.masks import random_mask

Grid = tuple[int, int]


def spans(corner: Array, size: Array, grid: Grid) -> tuple[Array, Array]:
    """The rows (…, rows) and columns (…, columns) that a block is on, bool; corner (…, 2) is its top and left, size
    (…, 2) its height and width."""

    def span(i: int) -> Array:
        place, start = jnp.arange(grid[i]), corner[..., i, None]
        return (place >= start) & (place < start + size[..., i, None])

    return span(0), span(1)


def rectangle(corner: Array, size: Array, grid: Grid) -> Array:
    """(…, rows, columns) bool, true inside the block."""
    rows, columns = spans(corner, size, grid)
    return rows[..., :, None] & columns[..., None, :]


# Blocks until a number of patches is hidden ---------------------------------------------------------------------------


def block_mask(
    keys: Array,
    grid: Grid,
    hidden: Array | float,
    *,
    smallest: float = 16,
    largest: float = math.inf,
    aspect: float = 0.3,
    attempts: int = 64,
) -> Array:
    """BEiT's masks: blocks are laid, one over the other, until `hidden` patches are hidden; (batch, tokens) bool.

    hidden: a number, or one for each example (batch,). A block's area is uniform between `smallest` and the patches
    that are still to be hidden (at most `largest`), its height over its width log-uniform between `aspect` and
    1 / aspect, its place uniform. A block that hides nothing new or too much, or is as long as the grid, is drawn
    again; after ten such in a row the mask stays as it is. So no more than `hidden` patches are hidden, often fewer,
    and 75 of 196 (BEiT) or 120 of 196 (data2vec) are what is aimed at.

    attempts: how many blocks are drawn in all, where the original has no bound; at the published settings it never
    needs as many, and on grids much larger than 14 x 14 more can be allowed. Raises ValueError where no block fits.

    Bao et al., "BEiT: BERT Pre-Training of Image Transformers", 2022.
    """
    if min(grid) < 2 or smallest > (grid[0] - 1) * (grid[1] - 1):
        raise ValueError(
            f"no block of {smallest} patches is shorter than a grid of {grid[0]} x {grid[1]}: use smaller patches, "
            "larger views or smaller blocks."
        )
    sides = jnp.array(grid, jnp.float32)

    def one(key: Array, hidden: Array) -> Array:
        def lay(state, draw):
            mask, count, failures = state
            room = jnp.minimum(hidden - count, largest)
            area = smallest + (room - smallest) * draw[0]
            ratio = jnp.exp(math.log(aspect) * (1 - 2 * draw[1]))
            size = jnp.round(jnp.sqrt(jnp.stack([area * ratio, area / ratio])))
            block = rectangle(jnp.floor(draw[2:] * (sides - size + 1)), size, grid)
            new = jnp.sum(block & ~mask, dtype=jnp.float32)
            fits = (size < sides).all() & (new > 0) & (new <= room)
            laid = fits & (count < hidden) & (failures < 10)
            return (mask | (block & laid), count + jnp.where(laid, new, 0), jnp.where(laid, 0, failures + 1)), None

        draws = jax.random.uniform(key, (attempts, 4))
        start = jnp.zeros(grid, bool), jnp.float32(0), jnp.int32(0)
        (mask, _, _), _ = jax.lax.scan(lay, varying_like(start, draws), draws)
        return mask.reshape(-1)

    return jax.vmap(one)(keys, jnp.broadcast_to(jnp.asarray(hidden, jnp.float32), keys.shape))


def ibot_mask(
    keys: Array,
    grid: Grid,
    *,
    ratio: tuple[float, float] = (0.1, 0.5),
    probability: float = 0.5,
    shape: str = "block",
) -> Array:
    """iBOT's mix: with `probability` a share of the patches, uniform in `ratio`, is hidden, else none; (batch, tokens).

    shape: "block" is `block_mask` with blocks of at least (shorter side // 3)^2 patches, "random" single patches.
    Each crop needs keys of its own. Raises ValueError for another shape and for impossible shares.

    Zhou et al., "iBOT: Image BERT Pre-Training with Online Tokenizer", 2022.
    """
    _check_shares(ratio, probability)
    masked = uniform(fold(keys, 0)) < probability
    hidden = jnp.where(masked, uniform(fold(keys, 1), *ratio) * math.prod(grid), 0.0)
    if shape == "block":
        return block_mask(fold(keys, 2), grid, hidden, smallest=(min(grid) // 3) ** 2)
    if shape == "random":
        return random_mask(fold(keys, 2), math.prod(grid), hidden)
    raise ValueError(f"mask shape '{shape}' is unknown; use 'block' or 'random'.")


def dinov2_mask(
    key: Array,
    n: int,
    grid: Grid,
    *,
    crops: int = 2,
    ratio: tuple[float, float] = (0.1, 0.5),
    probability: float = 0.5,
    axis: str | None = None,
) -> Array:
    """DINOv2's masks of a whole batch, for the `crops` crops of this shard's n examples: (crops, n, tokens) bool.

    Of all crops of the global batch the share `probability`, m in number, is masked. The i-th of them, in an order
    drawn anew each step, hides int(tokens * r) patches, where r is uniform in the i-th of m equal parts of `ratio`; so
    each batch has every ratio. Blocks have four patches or more. key: the step's, the same on all shards.

    Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2024.
    """
    _check_shares(ratio, probability)
    order_key, ratio_key, block_key = jax.random.split(key, 3)
    total = n if axis is None else n * jax.lax.axis_size(axis)
    masked, tokens = int(crops * total * probability), math.prod(grid)
    order = jax.random.permutation(order_key, crops * total)
    places = (jnp.arange(crops)[:, None] * total + shard_offset(n, axis) + jnp.arange(n)).reshape(-1)

    def keys(key: Array) -> Array:
        return jax.vmap(lambda place: jax.random.fold_in(key, place))(places)

    rank = order[places]
    drawn = ratio[0] + (ratio[1] - ratio[0]) * (rank + uniform(keys(ratio_key))) / max(masked, 1)
    hidden = jnp.where(rank < masked, jnp.floor(tokens * drawn), 0.0)
    mask = block_mask(keys(block_key), grid, hidden, smallest=4, largest=0.5 * tokens)
    return mask.reshape(crops, n, tokens)


def dinov2_slots(
    n: int,
    grid: Grid,
    *,
    shards: int = 1,
    crops: int = 2,
    ratio: tuple[float, float] = (0.1, 0.5),
    probability: float = 0.5,
) -> int:
    """The most patches that `dinov2_mask` can hide on one of `shards` shards with n examples each, for `pad_masked`.

    On one shard it is the original's bound, the sum of the upper ends of all parts of `ratio`; a shard of several may
    by chance hold the crops that hide the most.
    """
    masked = int(crops * n * shards * probability)
    most = [int(math.prod(grid) * r + 1e-3) for r in np.linspace(*ratio, masked + 1)[1:]]
    return max(1, sum(sorted(most)[-crops * n :]))


def _check_shares(ratio: tuple[float, float], probability: float) -> None:
    if not (0 <= ratio[0] <= ratio[1] <= 1 and 0 <= probability <= 1):
        raise ValueError(
            f"mask ratio {ratio} must be (smallest, largest) share of the patches, and probability {probability} a "
            "share of the crops, in [0, 1]."
        )


# I-JEPA ---------------------------------------------------------------------------------------------------------------


class MultiBlock(struct.PyTreeNode):
    """What I-JEPA's encoder sees of each image, and what is predicted.

    context (batch, kept) and target (batch, blocks, tokens) are indexes of patches; context_valid and target_valid, of
    the same shapes, tell which of them count.
    """

    context: Array
    context_valid: Array
    target: Array
    target_valid: Array


def multi_block(
    keys: Array,
    grid: Grid,
    kept: int,
    *,
    targets: int = 4,
    context_scale: tuple[float, float] = (0.85, 1.0),
    target_scale: tuple[float, float] = (0.15, 0.2),
    aspect: tuple[float, float] = (0.75, 1.5),
    min_keep: int = 10,
) -> MultiBlock:
    """I-JEPA's masks with fixed numbers of tokens and without a preference for any side.

    The middle is more often a target than the border is, and less often in the context (0.07 of the time on 14 x 14,
    a corner 0.28): no places for blocks that lie within the grid would make them even.

    Every image draws the sizes and places of its own blocks, which may touch every edge. Of the context, which is its
    block without the targets, `kept` patches are chosen uniformly, fewer (see `context_valid`) only where there are
    fewer: 99 of 100 images have a quarter of the grid. Of each target as many patches are chosen as the smallest
    possible target has. `multi_block_reference` tells the rest.
    """
    if not 0 < kept <= math.prod(grid):
        raise ValueError(f"{kept} of {math.prod(grid)} patches cannot be kept as context: keep one at least, not more.")
    target_sizes = _sizes(grid, target_scale, aspect, tied=False)
    context_sizes = _sizes(grid, context_scale, (1.0, 1.0), tied=False)
    _check_sizes(0, target_sizes)
    _check_sizes(min_keep, context_sizes)
    size = _pick(target_sizes, uniform(fold(keys, 0), shape=(targets,)))
    blocks = rectangle(_corner(uniform(fold(keys, 1), shape=(targets, 2)), size, grid, last=1), size, grid)
    context_size = _pick(context_sizes, uniform(fold(keys, 2)))
    context = _context(fold(keys, 3), context_size, blocks, min_keep, last=1)
    noise = uniform(fold(keys, 4), shape=(targets + 1, *grid))
    context_index, context_valid = _first(context, kept, noise[:, 0])
    target_index, target_valid = _first(blocks, int(target_sizes.prod(axis=1).min()), noise[:, 1:])
    return MultiBlock(context_index, context_valid, target_index, target_valid)


def multi_block_reference(
    key: Array,
    n: int,
    grid: Grid,
    *,
    targets: int = 4,
    context_scale: tuple[float, float] = (0.85, 1.0),
    target_scale: tuple[float, float] = (0.15, 0.2),
    aspect: tuple[float, float] = (0.75, 1.5),
    min_keep: int = 10,
    overlap: bool = False,
    axis: str | None = None,
) -> MultiBlock:
    """I-JEPA's masks as its official code draws them, for this shard's n examples; the defaults are the published ones.

    One size of target blocks and one of context blocks is drawn for the whole batch: an area of `scale` times the
    grid's and, from the same number, height over width in `aspect`. Each image draws places for them. Its context is
    the context block without its targets, drawn again until more than `min_keep` patches are left; after each twenty
    tries one target fewer is taken out. Then all contexts of the batch are cut to the number of patches of the
    smallest, and the lowest indexes stay.

    With it come two preferences for the upper left: the cut leaves out the bottom, more so in larger batches, and the
    last row and column are never used, since the places of a block end one short of the edge. `multi_block` has
    neither. A size is drawn from 4096 equally likely ones instead of a continuum.

    key: the step's, the same on all shards; over `axis` the global batch is cut to one number. overlap: the targets
    stay in the context. Raises ValueError where blocks cannot have more than `min_keep` patches.

    Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture", 2023.
    """
    target_sizes = _sizes(grid, target_scale, aspect, tied=True)
    context_sizes = _sizes(grid, context_scale, (1.0, 1.0), tied=True)
    _check_sizes(min_keep, target_sizes)
    _check_sizes(min_keep, context_sizes)
    target_key, context_key, place_key = jax.random.split(key, 3)
    keys = example_keys(place_key, n, axis)
    size = _pick(target_sizes, jax.random.uniform(target_key))
    blocks = rectangle(_corner(uniform(fold(keys, 0), shape=(targets, 2)), size, grid, last=0), size, grid)
    context_size = jnp.broadcast_to(_pick(context_sizes, jax.random.uniform(context_key)), (n, 2))
    context = _context(fold(keys, 1), context_size, blocks & (not overlap), min_keep, last=0)
    context_index, context_valid = _first(context, int(context_sizes.prod(axis=1).max()))
    fewest = context_valid.sum(axis=1).min()
    if axis is not None:
        fewest = jax.lax.pmin(fewest, axis)
    context_valid = context_valid & (jnp.arange(context_valid.shape[1]) < fewest)
    target_index, target_valid = _first(blocks, int(target_sizes.prod(axis=1).max()))
    return MultiBlock(context_index, context_valid, target_index, target_valid)


def _sizes(grid: Grid, scale: tuple[float, float], aspect: tuple[float, float], *, tied: bool) -> np.ndarray:
    """(4096, 2): equally likely heights and widths. tied: area and aspect come of one draw, and blocks are shorter than
    the grid."""
    if tied:
        area_draw = aspect_draw = (np.arange(4096) + 0.5) / 4096
    else:
        area_draw, aspect_draw = (x.ravel() for x in np.meshgrid(*2 * [(np.arange(64) + 0.5) / 64]))
    area = np.floor(math.prod(grid) * (scale[0] + area_draw * (scale[1] - scale[0])))
    ratio = aspect[0] + aspect_draw * (aspect[1] - aspect[0])
    sizes = np.stack([np.sqrt(area * ratio), np.sqrt(area / ratio)], axis=1).round().astype(np.int32)
    return np.minimum(sizes, np.array(grid) - int(tied))


def _check_sizes(min_keep: int, sizes: np.ndarray) -> None:
    smallest = sizes.prod(axis=1).min()
    if smallest <= min_keep:
        raise ValueError(
            f"blocks of {smallest} patches can be drawn, but more than {min_keep} must be kept: use smaller patches, "
            "larger views, a larger scale or a smaller min_keep."
        )


def _pick(sizes: np.ndarray, draw: Array) -> Array:
    """The sizes (…, 2) for uniform draws (…)."""
    return jnp.asarray(sizes)[jnp.floor(draw * len(sizes)).astype(jnp.int32)]


def _corner(draw: Array, size: Array, grid: Grid, last: int) -> Array:
    """Top and left (…, 2) of blocks of `size` (…, 2), uniform; last: 1 if the last place is one of them, else 0."""
    return jnp.floor(draw * (jnp.array(grid) - size + last)).astype(jnp.int32)


def _context(keys: Array, size: Array, targets: Array, min_keep: int, last: int) -> Array:
    """A block of `size` (batch, 2) for each example, without its targets (batch, blocks, rows, columns): (batch, rows,
    columns) bool.

    It is the first of twenty draws that has more than `min_keep` patches left; if none has, of twenty more with the
    last target left in, and so on.
    """
    blocks, grid = targets.shape[1], (targets.shape[2], targets.shape[3])

    def one(key: Array, size: Array, targets: Array) -> Array:
        allowed = jnp.stack([~targets[: blocks - tries].any(axis=0) for tries in range(blocks + 1)])
        corner = _corner(jax.random.uniform(key, (blocks + 1, 20, 2)), size, grid, last)
        in_rows, in_columns = spans(corner, size, grid)
        left = jnp.einsum("kty,kyx,ktx->kt", *(x.astype(jnp.float32) for x in (in_rows, allowed, in_columns)))
        level, draw = jnp.divmod(jnp.argmax(left > min_keep), 20)
        return rectangle(corner[level, draw], size, grid) & allowed[level]

    return jax.vmap(one)(keys, size, targets)


def _first(mask: Array, size: int, noise: Array | float = 0.0) -> tuple[Array, Array]:
    """Indexes (…, size) of the patches in a mask (…, rows, columns), by ascending noise, else by index; and which of
    them are: there may be fewer."""
    order = jnp.where(mask, noise, jnp.inf).reshape(*mask.shape[:-2], -1)
    return jax.lax.top_k(-order, size)[1], jnp.arange(size) < mask.sum(axis=(-2, -1))[..., None]
