"""Scores of steps that stand out."""

import numpy as np

from ssljax.evals.anomalies import WINDOW, limit, relative


def test_relative_is_a_loop():
    scores = np.random.RandomState(0).rand(60) + 0.5
    expected = [0.0]
    for i in range(1, 60):
        before = scores[max(0, i - WINDOW) : i].mean()
        expected.append((scores[i] - before) / before)
    np.testing.assert_allclose(relative(scores), expected)
    assert not relative(np.zeros(5)).any()


def test_a_step_far_above_those_before_it_stands_out():
    scores = 1 + 0.1 * np.random.RandomState(0).standard_normal(300)
    scores[250] = 3.0
    found = relative(scores)
    assert list(np.flatnonzero(found[200:] > limit(found[:200]))) == [50]
