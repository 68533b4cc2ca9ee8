"""Masks have a static count, choose uniformly, and can be undone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.collectives import example_keys
from ssljax.views.masks import mae_mask, mask_from_noise, tube_mask, unshuffle

N = 4000


@pytest.fixture(scope="module")
def mask():
    return mae_mask(example_keys(jax.random.key(0), N), tokens=16, ratio=0.75)


@pytest.mark.parametrize("tokens, ratio, kept", [(196, 0.75, 49), (16, 0.75, 4), (16, 0.5, 8), (9, 0.75, 2)])
def test_every_example_keeps_the_same_number(tokens, ratio, kept):
    mask = mae_mask(example_keys(jax.random.key(1), 5), tokens, ratio)
    assert mask.keep.shape == (5, kept)
    np.testing.assert_array_equal(mask.hidden.sum(axis=1), tokens - kept)


def test_kept_are_exactly_what_is_not_hidden(mask):
    visible = np.asarray(mask.hidden) == 0
    np.testing.assert_array_equal(np.sort(mask.keep, axis=1), np.nonzero(visible)[1].reshape(N, 4))


def test_every_token_and_every_pair_is_kept_equally_often(mask):
    """A token with probability 4/16, two tokens together with (4/16)(3/15); five standard errors over 256 numbers."""
    visible = (np.asarray(mask.hidden) == 0).astype(np.float64)
    together = visible.T @ visible / N
    expected = np.where(np.eye(16) == 1, 4 / 16, 4 / 16 * 3 / 15)
    assert (np.abs(together - expected) < 5 * np.sqrt(expected * (1 - expected) / N)).all()


def test_a_mask_depends_on_its_examples_key_alone(mask):
    some = mae_mask(example_keys(jax.random.key(0), N)[3:5], tokens=16)
    np.testing.assert_array_equal(some.hidden, mask.hidden[3:5])
    assert len(np.unique(mask.hidden[:20], axis=0)) > 10


def test_smallest_noise_is_kept_in_ascending_order():
    mask = mask_from_noise(jnp.array([[0.9, 0.1, 0.5, 0.3]]), kept=2)
    np.testing.assert_array_equal(mask.keep, [[1, 3]])
    np.testing.assert_array_equal(mask.hidden, [[1, 0, 1, 0]])
    np.testing.assert_array_equal(mask.restore, [[3, 0, 2, 1]])


def test_unshuffle_puts_visible_tokens_back_and_filler_elsewhere(mask):
    tokens = np.random.RandomState(0).standard_normal((N, 16, 2)).astype(np.float32)
    visible = np.take_along_axis(tokens, np.asarray(mask.keep)[:, :, None], axis=1)
    filler = np.array([7.0, -7.0], np.float32)
    expected = np.where(np.asarray(mask.hidden)[:, :, None] == 1, filler, tokens)
    np.testing.assert_array_equal(unshuffle(jnp.asarray(visible), jnp.asarray(filler), mask.restore), expected)


@pytest.mark.parametrize("kept", [0, 4, 5])
def test_a_mask_that_hides_all_or_nothing_is_refused(kept):
    with pytest.raises(ValueError, match=f"{kept} of 4 tokens would be kept; .* change the mask ratio"):
        mask_from_noise(jnp.zeros((1, 4)), kept)


def test_a_tube_hides_the_same_patches_in_every_slot():
    mask = tube_mask(example_keys(jax.random.key(0), 5), slots=8, patches=196)
    slots = np.asarray(mask.hidden).reshape(5, 8, 196)
    np.testing.assert_array_equal(slots, np.broadcast_to(slots[:, :1], slots.shape))
    np.testing.assert_array_equal(slots[:, 0].sum(axis=1), 176)
    np.testing.assert_array_equal(np.nonzero(mask.hidden == 0)[1].reshape(5, 160), mask.keep)
    np.testing.assert_array_equal(np.nonzero(mask.hidden)[1].reshape(5, 1408), mask.hide)
    assert len(np.unique(slots[:, 0], axis=0)) == 5
    with pytest.raises(ValueError, match="0 of 4 tokens would be kept"):
        tube_mask(example_keys(jax.random.key(0), 5), slots=2, patches=4, ratio=1.0)


def test_a_tube_hides_every_patch_equally_often_and_is_its_examples_alone():
    """Five standard errors over 9 numbers."""
    keys = example_keys(jax.random.key(1), N)
    hidden = np.asarray(tube_mask(keys, slots=2, patches=9, ratio=0.75).hidden)
    assert np.abs(hidden[:, :9].mean(axis=0) - 6 / 9).max() < 5 * np.sqrt(6 / 9 * 3 / 9 / N)
    np.testing.assert_array_equal(tube_mask(keys[3:5], slots=2, patches=9, ratio=0.75).hidden, hidden[3:5])


def test_hide_is_what_restore_puts_back(mask):
    order = np.concatenate([mask.keep, mask.hide], axis=1)
    np.testing.assert_array_equal(np.take_along_axis(order, np.asarray(mask.restore), axis=1)[:3], [np.arange(16)] * 3)
