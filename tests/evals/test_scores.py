"""Intervals of accuracies."""

import numpy as np
import pytest

from ssljax.evals.scores import averaged, bootstrap


def test_an_interval_is_the_normal_one_where_examples_are_many():
    right = np.random.RandomState(0).rand(2000) < 0.7
    low, high = bootstrap(right)
    wide = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / len(right))
    assert (low, high) == pytest.approx((right.mean() - wide, right.mean() + wide), abs=0.0015)
    assert bootstrap(right) == (low, high)


def test_an_interval_is_that_of_samples_with_replacement_and_holds_most_true_means():
    random = np.random.RandomState(0)
    values = random.rand(40)
    means = [random.choice(values, 40).mean() for _ in range(20_000)]
    assert bootstrap(values) == pytest.approx(np.percentile(means, (2.5, 97.5)), abs=0.005)
    held = [low <= 0.6 <= high for low, high in (bootstrap(random.rand(100) < 0.6, draws=500) for _ in range(400))]
    assert 0.9 < np.mean(held) < 0.98
    assert bootstrap(np.ones(30, bool)) == (1.0, 1.0)


def test_what_several_classifiers_get_right():
    score = averaged([np.array([True, False, True, True]), np.array([True, False, False, False])])
    np.testing.assert_array_equal(score.correct, [1, 0, 0.5, 0.5])
    assert score.draws == (0.75, 0.25) and score.accuracy == 0.5
