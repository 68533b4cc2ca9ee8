"""TS2Vec's crops."""

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.views.series import overlapping_crops, seen_steps, shift

MANY = 3000


def crops_of(lengths, share, shortest=2, time=8):
    valid = np.arange(time) < np.asarray(lengths)[:, None]
    draws = np.random.RandomState(0).rand(len(lengths), 3)
    return valid, jax.tree.map(np.asarray, jax.jit(overlapping_crops, static_argnums=3)(draws, valid, share, shortest))


def test_two_crops_of_steps_that_are_there_overlap_where_it_is_said():
    lengths = np.tile([8, 5, 2, 1], MANY // 4)
    valid, crops = crops_of(lengths, 0.4)
    assert not (crops.first & ~valid).any() and not (crops.second & ~valid).any()
    both = crops.first & crops.second
    np.testing.assert_array_equal(both.sum(axis=1), crops.length)
    np.testing.assert_array_equal(both.argmax(axis=1), crops.start)
    for crop in (crops.first, crops.second):  # each in one piece, the first one the earlier
        assert (np.abs(np.diff(np.pad(crop, [(0, 0), (1, 1)]).astype(int))).sum(axis=1) == 2).all()
    assert (crops.first.argmax(axis=1) <= crops.second.argmax(axis=1)).all()
    # ⌊0.4 (n - 1)⌋ steps more than two, or all that there are.
    np.testing.assert_array_equal(crops.length, np.select([lengths == 8, lengths == 5], [4, 3], lengths))


def test_places_are_uniform_and_the_longest_share_is_everything():
    _, crops = crops_of([8] * MANY, 0.5)  # five steps, which begin at 0, 1, 2 or 3
    np.testing.assert_allclose(np.bincount(crops.start, minlength=4) / MANY, 1 / 4, atol=0.03)
    latest = crops.start == 3
    np.testing.assert_allclose(np.bincount(crops.first[latest].argmax(axis=1)) / latest.sum(), 1 / 4, atol=0.06)
    earliest = crops.start == 0
    np.testing.assert_allclose(np.bincount(crops.second[earliest].sum(axis=1))[5:] / earliest.sum(), 1 / 4, atol=0.06)
    _, crops = crops_of([8, 3], 0.9999)
    np.testing.assert_array_equal(crops.length, [8, 3])
    _, crops = crops_of([8, 3], 0.0, 4)
    np.testing.assert_array_equal(crops.length, [4, 3])


def test_the_overlap_is_brought_to_the_front():
    z = jnp.arange(10.0).reshape(1, 5, 2)
    np.testing.assert_array_equal(shift(z, jnp.array([2]))[:, :3], z[:, 2:])


def test_half_of_the_steps_are_seen_and_padding_changes_no_key():
    keys = jax.random.split(jax.random.key(0), 100)
    seen = seen_steps(keys, jnp.ones((100, 50), bool))
    assert abs(seen.mean() - 0.5) < 0.03 and not (seen[0] == seen[1]).all()
    assert seen_steps(keys, jnp.ones((100, 50), bool), 1.0).all()
