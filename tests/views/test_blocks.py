"""Block masks and I-JEPA's masks: the distributions of the originals, from nothing but keys, and what they count."""

import math
import random
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from scipy import stats

from ssljax.collectives import example_keys
from ssljax.views.blocks import (
    block_mask,
    dinov2_mask,
    dinov2_slots,
    ibot_mask,
    multi_block,
    multi_block_reference,
)
from ssljax.views.masks import pad_masked, random_mask

GRID = (14, 14)


def keys(n, seed=0):
    return example_keys(jax.random.key(seed), n)


def same_mean(mean, std, n, other_mean, other_std, other_n, errors=5.0):
    """Two samples' means are within five standard errors of their difference, everywhere."""
    error = np.sqrt(np.square(std) / n + np.square(other_std) / other_n)
    return (np.abs(mean - other_mean) <= errors * error).all()


# Blocks until a number of patches is hidden ---------------------------------------------------------------------------


def beit_loop(grid, hidden, smallest, largest, attempts=math.inf):
    """The original's two loops, one mask at a time: the mask (rows, columns), the blocks laid, how many were drawn."""
    rows, columns = grid
    mask, blocks, drawn, failures = np.zeros(grid, bool), [], 0, 0
    while mask.sum() < hidden and failures < 10 and drawn < attempts:
        drawn += 1
        room = min(hidden - mask.sum(), largest)
        area, aspect = random.uniform(smallest, room), math.exp(random.uniform(math.log(0.3), -math.log(0.3)))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        failures += 1
        if height < rows and width < columns:
            top, left = random.randint(0, rows - height), random.randint(0, columns - width)
            block = np.zeros(grid, bool)
            block[top : top + height, left : left + width] = True
            if 0 < (block & ~mask).sum() <= room:
                mask |= block
                blocks.append((height, width))
                failures = 0
    return mask, blocks, drawn


@pytest.mark.parametrize(
    "grid, hidden, smallest, largest, name",
    [
        (GRID, 75, 16, math.inf, "beit"),
        (GRID, 120, 16, 196, "data2vec"),
        (GRID, 60, 4, 98, "dinov2"),
        ((8, 12), 30.7, 4, math.inf, None),  # iBOT's numbers are not whole
    ],
)
def test_block_masks_have_the_originals_distribution(golden, grid, hidden, smallest, largest, name):
    n, m, tokens = 4000, 3000, math.prod(grid)
    random.seed(0)
    loop = [beit_loop(grid, hidden, smallest, largest) for _ in range(m)]
    expected = np.array([mask.reshape(-1) for mask, _, _ in loop])
    mask = jax.jit(partial(block_mask, grid=grid, hidden=hidden, smallest=smallest, largest=largest))(keys(n))
    assert mask.shape == (n, tokens) and mask.dtype == bool
    mask = np.asarray(mask)
    assert same_mean(mask.mean(0), mask.std(0), n, expected.mean(0), expected.std(0), m)
    counts, expected_counts = mask.sum(1), expected.sum(1)
    assert counts.max() <= hidden
    assert stats.ks_2samp(counts, expected_counts).pvalue > 1e-3
    assert max(drawn for _, _, drawn in loop) < 64  # so that the bound on the attempts changes nothing
    if name:
        numbers = golden("masks")
        theirs = numbers[f"{name}_mean"], numbers[f"{name}_std"], numbers["draws"]
        assert same_mean(mask.mean(0), mask.std(0), n, *theirs)
        count = numbers[f"{name}_count_mean"], numbers[f"{name}_count_std"], numbers["draws"]
        assert same_mean(counts.mean(), counts.std(), n, *count)


def test_blocks_have_the_originals_sides_and_places():
    """One attempt lays one block at most, which can then be measured."""
    n, m = 4000, 4000
    random.seed(1)
    drawn = [beit_loop(GRID, 60, 16, math.inf, attempts=1)[1] for _ in range(m)]
    expected = np.array([blocks[0] for blocks in drawn if blocks])
    mask = np.asarray(jax.jit(partial(block_mask, grid=GRID, hidden=60, attempts=1))(keys(n))).reshape(-1, *GRID)
    mask = mask[mask.any(axis=(1, 2))]
    rows, columns = mask.any(axis=2), mask.any(axis=1)
    height, width = rows.sum(1), columns.sum(1)
    np.testing.assert_array_equal(mask.sum(axis=(1, 2)), height * width)  # they are rectangles
    laid = len(mask) / n
    assert abs(laid - len(expected) / m) < 4 * np.sqrt(2 * laid * (1 - laid) / n)
    for ours, theirs in ((height, expected[:, 0]), (width, expected[:, 1]), (height / width, np.divide(*expected.T))):
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-3
    for first, side in ((rows.argmax(1), height), (columns.argmax(1), width)):
        assert first.min() == 0 and (first + side).max() == 14
        # The place of a block of known size is uniform over 14 - side + 1 places: its mean tells.
        centred = first / (14 - side) - 0.5
        assert abs(centred.mean()) < 4 * centred.std() / np.sqrt(len(mask))


def test_masks_depend_on_their_examples_keys_alone(spread):
    """And not on the other examples, nor on how many devices there are."""

    def draw(own):
        return ibot_mask(own, (8, 8)), multi_block(own, (8, 8), 16, min_keep=4)

    whole = jax.jit(draw)(keys(8))
    some = jax.jit(draw)(keys(8)[3:5])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[3:5]), some, whole)
    shards = spread(lambda rows: draw(example_keys(jax.random.key(0), len(rows), "data")), 4, P("data"))
    jax.tree.map(np.testing.assert_array_equal, shards(jnp.zeros(8)), whole)


@pytest.mark.parametrize("shape", ["block", "random"])
def test_ibot_hides_nothing_in_half_of_the_crops_and_a_uniform_share_in_the_others(shape):
    n = 4000
    mask = np.asarray(jax.jit(partial(ibot_mask, grid=GRID, shape=shape))(keys(n)))
    counts = mask.sum(1)
    assert abs((counts == 0).mean() - 0.5) < 4 * 0.5 / np.sqrt(n)
    counts = counts[counts > 0]
    if shape == "random":  # exactly int(ratio * 196)
        assert stats.chisquare(np.bincount(counts, minlength=98)[20:98]).pvalue > 1e-3
        assert (counts < 98).all() and (counts >= 19).all()
        rate = mask.mean()
        assert (np.abs(mask.mean(0) - rate) < 5 * mask.std(0) / np.sqrt(n)).all()
    else:
        random.seed(2)
        expected = [beit_loop(GRID, random.uniform(0.1, 0.5) * 196, 16, math.inf)[0].sum() for _ in range(2000)]
        assert stats.ks_2samp(counts, expected).pvalue > 1e-3


def test_a_random_mask_hides_as_many_as_each_example_is_to():
    mask = random_mask(keys(4), 10, jnp.array([0.0, 3.9, 4.0, 10.0]))
    np.testing.assert_array_equal(mask.sum(1), [0, 3, 4, 10])
    np.testing.assert_array_equal(random_mask(keys(4), 10, 5).sum(1), 4 * [5])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: block_mask(keys(1), (4, 4), 8), "no block of 16 patches is shorter than a grid of 4 x 4"),
        (lambda: ibot_mask(keys(1), (1, 9)), "no block of 0 patches is shorter than a grid of 1 x 9"),
        (lambda: ibot_mask(keys(1), GRID, shape="rand"), "mask shape 'rand' is unknown; use 'block' or 'random'"),
        (lambda: ibot_mask(keys(1), GRID, ratio=(0.5, 0.1)), r"mask ratio \(0.5, 0.1\) must be"),
        (lambda: dinov2_mask(jax.random.key(0), 2, GRID, probability=2), "probability 2 a share of the crops"),
        (lambda: pad_masked(jnp.ones((2, 4), bool), 5), "5 slots cannot hold the hidden ones of 4 tokens"),
        (lambda: multi_block(keys(1), GRID, 0), "0 of 196 patches cannot be kept as context"),
        (lambda: multi_block(keys(1), (2, 2), 1), "blocks of 0 patches can be drawn"),
        (lambda: multi_block_reference(jax.random.key(0), 1, (8, 8)), "blocks of 9 patches .* more than 10 must be"),
    ],
)
def test_masks_that_would_hide_nothing_or_too_much_are_refused(make, message):
    """lightly once gave NaN where no patch was masked."""
    with pytest.raises(ValueError, match=message):
        make()


# DINOv2's batch -------------------------------------------------------------------------------------------------------


def test_dinov2_masks_half_of_the_crops_with_every_ratio(golden):
    n, batches = 8, 200
    draw = jax.jit(jax.vmap(lambda key: dinov2_mask(key, n, GRID)))
    mask = np.asarray(draw(keys(batches)))
    assert mask.shape == (batches, 2, n, 196)
    counts = mask.sum(-1).reshape(batches, 2 * n)
    assert ((counts > 0).sum(1) == n).all()
    # The i-th smallest is of the i-th part of [0.1, 0.5] at most, and nearly reaches it.
    parts = np.linspace(0.1, 0.5, n + 1) * 196
    ordered = np.sort(counts, axis=1)[:, n:]
    assert (ordered <= parts[1:]).all()
    assert (ordered.mean(0) > parts[:-1] - 1).all()
    total = counts.sum(1)
    assert total.max() <= dinov2_slots(n, GRID)
    numbers = golden("masks")
    theirs = numbers["batch_count_mean"], numbers["batch_count_std"], numbers["batches"]
    assert same_mean(total.mean(), total.std(), batches, *theirs)
    # Which crops are masked is drawn anew, all alike.
    masked = counts > 0
    assert (np.abs(masked.mean(0) - 0.5) < 5 * 0.5 / np.sqrt(batches)).all()


def test_dinov2_masks_are_the_same_on_any_number_of_shards(spread):
    draw = partial(dinov2_mask, jax.random.key(3), grid=(8, 8))
    whole = np.asarray(jax.jit(partial(draw, 8))())
    for shards in (2, 4):
        parts = spread(lambda rows: draw(len(rows), axis="data"), shards, P(None, "data"))(jnp.zeros(8))
        np.testing.assert_array_equal(parts, whole)
        most = max(part.sum() for part in np.split(whole, shards, axis=1))
        assert most <= dinov2_slots(8 // shards, (8, 8), shards=shards)


@pytest.mark.parametrize("together", [False, True])
def test_a_loss_over_masked_tokens_does_not_depend_on_the_slots(together):
    rng = np.random.RandomState(0)
    mask = rng.rand(6, 10) < np.array([0, 0.1, 0.3, 0.5, 0.9, 1])[:, None]
    losses = rng.rand(6, 10).astype(np.float32)
    expected = np.mean([row[hidden].mean() if hidden.any() else 0.0 for row, hidden in zip(losses, mask, strict=True)])
    flat = jnp.asarray(losses.reshape(-1) if together else losses)
    least = mask.sum() if together else mask.sum(1).max()
    for slots in {int(least), int(least) + (20 if together else 0), flat.shape[-1]}:
        index, weight = jax.jit(partial(pad_masked, slots=slots, together=together))(jnp.asarray(mask))
        assert index.shape == weight.shape == ((slots,) if together else (6, slots))
        picked = jnp.take_along_axis(flat, index, axis=-1)
        np.testing.assert_allclose((weight * picked).sum() / 6, expected, rtol=1e-5)
        of_hidden = np.take_along_axis(mask.reshape(flat.shape), np.asarray(index), axis=-1)
        np.testing.assert_array_equal(weight > 0, of_hidden)


def test_what_does_not_fit_into_the_slots_is_what_comes_last():
    index, weight = pad_masked(jnp.array([[1, 0, 1, 1, 0, 1]], bool), 2)
    np.testing.assert_array_equal(index, [[0, 2]])
    np.testing.assert_allclose(weight, [[0.25, 0.25]])


# I-JEPA ---------------------------------------------------------------------------------------------------------------


PUBLISHED = {"grid": GRID}
CROWDED = {"grid": (8, 8), "context_scale": (0.5, 0.8), "target_scale": (0.3, 0.5), "min_keep": 14}


def shown(index, valid, tokens):
    """How often each token is in (…, tokens)."""
    index, valid = np.asarray(index), np.asarray(valid)
    dense = np.zeros((*index.shape[:-1], tokens + 1))
    np.put_along_axis(dense, np.where(valid, index, tokens), 1.0, axis=-1)
    return dense[..., :-1]


@pytest.fixture(scope="module", params=[("ijepa", PUBLISHED), ("crowded", CROWDED)], ids=["published", "crowded"])
def reference(request):
    """400 batches of 16 in the reference's way, as contexts (400, 16, tokens) and targets (400, 16, 4, tokens)."""
    name, fields = request.param
    drawn = jax.jit(lambda k: jax.lax.map(lambda key: multi_block_reference(key, 16, **fields), k))(keys(400))
    tokens = math.prod(fields["grid"])
    context = shown(drawn.context, drawn.context_valid, tokens)
    return name, fields, drawn, context, shown(drawn.target, drawn.target_valid, tokens)


def test_reference_masks_have_the_originals_distribution(golden, reference):
    name, _, _, context, target = reference
    numbers, n = golden("masks"), len(context)
    kept = context.sum(-1)[:, 0]
    for part, values in (("context", context.mean(1)), ("target", target.mean((1, 2))), ("kept", kept)):
        theirs = numbers[f"{name}_{part}_mean"], numbers[f"{name}_{part}_std"], numbers["batches"]
        assert same_mean(values.mean(0), values.std(0), n, *theirs), part


def test_a_batch_shares_the_sizes_of_blocks_and_the_number_of_context_patches(reference):
    _, fields, drawn, context, target = reference
    assert (context.sum(-1) == context.sum(-1)[:, :1]).all()
    assert (context.sum(-1) > fields.get("min_keep", 10)).all()
    in_rows, in_columns = (target.reshape(*target.shape[:3], *fields["grid"]).any(axis) for axis in (-1, -2))
    height, width = in_rows.sum(-1), in_columns.sum(-1)
    assert (height == height[:, :1, :1]).all() and (width == width[:, :1, :1]).all()
    np.testing.assert_array_equal(target.sum(-1), height * width)
    assert len(np.unique(height[:, 0, 0])) > 1
    index, valid = np.asarray(drawn.context), np.asarray(drawn.context_valid)
    assert (np.diff(index, axis=-1)[valid[..., 1:]] > 0).all()  # the order in which the original has them


def test_the_context_is_outside_of_all_targets_unless_too_little_would_be_left(reference):
    name, _, _, context, target = reference
    overlaps = (context[:, :, None] * target).sum(-1)
    if name == "ijepa":
        assert overlaps.max() == 0
    else:
        assert (overlaps > 0).mean(axis=(0, 1)).tolist() == sorted((overlaps > 0).mean(axis=(0, 1)))
        assert 0 < (overlaps[:, :, 0] > 0).mean() < (overlaps[:, :, 3] > 0).mean()  # the last is given up first


def test_reference_masks_are_the_same_on_any_number_of_shards(spread):
    draw = partial(multi_block_reference, jax.random.key(1), grid=GRID)
    whole = jax.jit(partial(draw, 8))()
    for shards in (2, 4):
        parts = spread(lambda rows: draw(len(rows), axis="data"), shards, P("data"))(jnp.zeros(8))
        jax.tree.map(np.testing.assert_array_equal, parts, whole)


def test_targets_may_stay_in_the_context():
    drawn = jax.jit(partial(multi_block_reference, n=4, grid=GRID, overlap=True))(jax.random.key(0))
    assert (drawn.context_valid.sum(1) == 13 * 13).all()


def by_row(frequency):
    return frequency.reshape(-1, *GRID).mean(axis=2)


def test_the_reference_prefers_the_top_and_the_unbiased_masks_no_side():
    """facebookresearch/ijepa#60: contexts cut to the smallest of the batch lose the bottom of the picture."""
    n, batches = 128, 40
    draw = jax.jit(lambda k: jax.lax.map(lambda key: multi_block_reference(key, n, GRID), k))(keys(batches))
    context = shown(draw.context, draw.context_valid, 196)
    of_batches = by_row(context.mean(1))
    rows, error = of_batches.mean(0), of_batches.std(0) / np.sqrt(batches)
    top, bottom = slice(0, 4), slice(12, 8, -1)  # the block has rows 0 to 12
    assert (rows[top] - rows[bottom] > 5 * (error[top] + error[bottom])).all()
    assert context.reshape(-1, *GRID)[:, 13].max() == 0 and context.reshape(-1, *GRID)[:, :, 13].max() == 0

    n = 5000
    draw = jax.jit(partial(multi_block, grid=GRID, kept=49))(keys(n))
    for mask in (shown(draw.context, draw.context_valid, 196), shown(draw.target, draw.target_valid, 196).mean(1)):
        mask = mask.reshape(n, *GRID)
        assert mask[:, 13].max() > 0 and mask[:, :, 13].max() > 0
        for mirrored in (mask[:, ::-1], mask[:, :, ::-1]):
            difference = mask - mirrored
            assert (np.abs(difference.mean(0)) <= 5 * difference.std(0) / np.sqrt(n)).all()


def test_unbiased_masks_have_fixed_numbers_and_subsets_chosen_uniformly():
    n = 3000
    draw, few = (jax.jit(partial(multi_block, grid=GRID, kept=kept))(keys(n)) for kept in (196, 49))
    assert few.context.shape == (n, 49) and few.target.shape == draw.target.shape == (n, 4, 24)
    assert few.target_valid.all() and 0.99 < few.context_valid.all(1).mean() < 1
    allowed, context = (shown(d.context, d.context_valid, 196) for d in (draw, few))
    target = shown(few.target, few.target_valid, 196)
    np.testing.assert_array_equal(target.sum(-1), 24)
    assert (context <= allowed).all() and ((allowed[:, None] * target).sum() == 0)
    np.testing.assert_array_equal(context.sum(1), np.minimum(allowed.sum(1), 49))
    # A patch that may be kept is kept with probability 49 / (number that may): early and late ones alike.
    surprise = (context - allowed * np.minimum(1, 49 / allowed.sum(1, keepdims=True))).mean(0)
    assert (np.abs(surprise) <= 5 * context.std(0) / np.sqrt(n)).all()
