"""Which values are replaced, how many, and by what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.views.tables import scarf_corrupt, vime_corrupt

ROWS, COLUMNS = 4000, 14
KEYS = jax.random.split(jax.random.key(0), ROWS)
VALUES, DONORS = jnp.zeros((ROWS, COLUMNS)), jnp.ones((ROWS, COLUMNS))


@pytest.mark.parametrize("share, replaced", [(0.6, 8), (0.5, 7), (0.08, 1)])
def test_scarf_replaces_the_floor_of_the_share_in_every_row_and_any_column(share, replaced):
    corrupted = np.asarray(scarf_corrupt(KEYS, VALUES, DONORS, share))
    assert (corrupted.sum(axis=1) == replaced).all()
    np.testing.assert_allclose(corrupted.mean(axis=0), replaced / COLUMNS, atol=0.03)


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
def test_scarf_must_replace_something_and_leave_something(share):
    with pytest.raises(ValueError, match=f"a share of {share} replaces .* of 14 columns: at least one, and not all"):
        scarf_corrupt(KEYS, VALUES, DONORS, share)


def test_vime_replaces_each_value_by_itself():
    corrupted, mask = map(np.asarray, vime_corrupt(KEYS, VALUES, DONORS, 0.3))
    np.testing.assert_array_equal(corrupted, mask)
    np.testing.assert_allclose(mask.mean(axis=0), 0.3, atol=0.03)
    np.testing.assert_allclose(mask.sum(axis=1).var(), COLUMNS * 0.3 * 0.7, rtol=0.1)


def test_a_value_that_is_replaced_by_an_equal_one_is_not_corrupted():
    donors = DONORS.at[:, ::2].set(0)
    corrupted, mask = map(np.asarray, vime_corrupt(KEYS, VALUES, donors, 0.9))
    assert not mask[:, ::2].any() and mask[:, 1::2].mean() > 0.8
    np.testing.assert_array_equal(corrupted, mask)


def test_values_come_from_the_donor_of_the_same_row_and_column():
    values, donors = jnp.arange(24.0).reshape(2, 12), -1.0 - jnp.arange(24.0).reshape(2, 12)
    for corrupted in (scarf_corrupt(KEYS[:2], values, donors), vime_corrupt(KEYS[:2], values, donors)[0]):
        assert bool(((corrupted == values) | (corrupted == donors)).all())
