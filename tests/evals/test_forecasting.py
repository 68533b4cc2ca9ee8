"""Forecasts by ridge regression."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from ssljax.evals.forecasting import _ridge, errors, repeated, ridge_forecast

RNG = np.random.RandomState(0)
LINE = np.stack([np.sin(np.arange(200) / 5), np.cos(np.arange(200) / 5)], axis=1)


def test_what_is_linear_in_the_features_is_foretold():
    """Sine and cosine of now are all that a later one needs."""
    found = ridge_forecast(LINE, LINE, 3, 120, 150)
    assert found.squared < 1e-4 < repeated(LINE, 3, 150).squared
    noise = ridge_forecast(RNG.standard_normal((200, 2)), LINE, 3, 120, 150)
    assert noise.squared > 0.4


def test_it_is_the_ridge_of_scikit_learn():
    x, y, new = (RNG.standard_normal(shape) for shape in ((50, 6), (50, 3), (4, 6)))
    for penalty in (0.1, 100.0):
        expected = Ridge(penalty).fit(x + 3, y).predict(new)
        np.testing.assert_allclose(_ridge(x + 3, y)(new, penalty), expected, rtol=1e-8)


def test_the_floor_is_a_loop_and_gaps_are_left_out():
    values = LINE.copy()
    values[160, 1] = np.nan
    pairs = [(np.tile(values[t], (4, 1)), values[t + 1 : t + 5]) for t in range(149, 196)]
    pairs = [(a, b) for a, b in pairs if not np.isnan(b).any()]
    expected = errors(np.nan_to_num([a for a, _ in pairs]), np.array([b for _, b in pairs]))
    found = repeated(values, 4, 150)
    np.testing.assert_allclose([found.squared, found.absolute], [expected.squared, expected.absolute])
    assert np.isfinite(ridge_forecast(LINE, values, 4, 120, 150).squared)


def test_nothing_that_is_tested_is_learnt_from():
    """Whatever stands in the last part changes no forecast for it but by its own features."""
    other = LINE.copy()
    other[150:] = -5.0
    far = ridge_forecast(LINE, other, 1, 120, 150)
    np.testing.assert_allclose(far.squared, np.square(np.roll(LINE, -1, axis=0)[149:-1] + 5.0).mean(), rtol=1e-2)


def test_too_short():
    with pytest.raises(ValueError, match="too few to foretell 40"):
        ridge_forecast(LINE, LINE, 40, 120, 150)
