"""Masks of attention and colours of patches: against loops, and where the answer is known."""

import numpy as np
import pytest

from ssljax.evals.patches import held, principal_colours


@pytest.mark.parametrize(
    "attention, share, expected",
    [
        ([0.1, 0.5, 0.1, 0.2], 0.6, [0, 1, 0, 1]),  # of 0.9, the largest holds 56 %
        ([0.25, 0.25, 0.25, 0.25], 0.6, [0, 1, 1, 1]),
        ([0.0, 1.0, 0.0, 0.0], 0.6, [0, 1, 0, 0]),
        ([0.4, 0.3, 0.2, 0.1], 0.95, [1, 1, 1, 1]),
    ],
)
def test_a_mask_is_of_the_fewest_patches_that_hold_the_share(attention, share, expected):
    assert held(np.array(attention), share).tolist() == [bool(x) for x in expected]


def test_masks_are_those_of_a_loop():
    attention = np.random.RandomState(0).rand(3, 4, 25)
    mask = held(attention)
    for example in range(3):
        for head in range(4):
            whole, inside, kept = attention[example, head].sum(), 0.0, set()
            for patch in sorted(range(25), key=lambda p: -attention[example, head, p]):  # noqa: B023
                if inside <= 0.6 * whole:
                    kept.add(patch)
                    inside += attention[example, head, patch]
            assert set(np.flatnonzero(mask[example, head])) == kept


def test_colours_tell_kinds_of_patches_apart_and_are_the_same_in_all_images():
    """Four kinds of patches in ten dimensions, at the corners of a simplex, which has three directions."""
    kind = np.random.RandomState(0).randint(0, 4, (5, 9))
    colours = principal_colours(np.eye(10)[kind].astype(np.float32))
    assert colours.shape == (5, 9, 3) and colours.min() >= 0 and colours.max() <= 1
    of_kind = [colours[kind == k] for k in range(4)]
    for k in range(4):
        np.testing.assert_allclose(of_kind[k], of_kind[k][:1].repeat(len(of_kind[k]), axis=0), atol=1e-5)
        assert all(np.abs(of_kind[k][0] - of_kind[other][0]).max() > 0.3 for other in range(k))
    np.testing.assert_allclose(colours.min(axis=(0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose(colours.max(axis=(0, 1)), 1, atol=1e-6)


def test_colours_are_projections_onto_the_covariances_eigenvectors():
    tokens = np.random.RandomState(0).randn(4, 30, 6) * [1, 6, 2, 4, 3, 0.5]
    rows = tokens.reshape(-1, 6) - tokens.reshape(-1, 6).mean(axis=0)
    _, vectors = np.linalg.eigh(rows.T @ rows)
    colours = principal_colours(tokens)
    for component in range(3):
        projected = rows @ vectors[:, -1 - component]
        correlation = np.corrcoef(projected, colours[..., component].ravel())[0, 1]
        assert abs(correlation) > 0.9999


def test_patches_that_are_all_alike_are_of_one_colour():
    assert np.ptp(principal_colours(np.ones((2, 4, 5))), axis=(0, 1)).max() == 0
