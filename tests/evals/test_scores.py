"""Intervals of accuracies."""

import numpy as np
import pytest

from ssljax.evals.scores import Score, averaged, bootstrap, margin


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


def test_a_few_examples_that_are_all_right_leave_some_doubt():
    """13 of 13: as near to 1 as 15 of 17 is."""
    score = Score(np.ones(13, bool))
    assert score.accuracy == 1 and score.standard_error == pytest.approx(np.sqrt(15 * 2 / 17**3))


def test_an_error_holds_that_of_the_draws():
    """Of accuracies that spread by 0.1, the mean of four has an error of 0.05 more, whatever the test examples are."""
    right = [np.arange(1000) < 1000 * share for share in (0.4, 0.5, 0.5, 0.6)]
    score, other = averaged(right), averaged([each[::-1] for each in right])
    spread = np.std((0.4, 0.5, 0.5, 0.6), ddof=1)
    assert score.standard_error == pytest.approx(np.hypot(np.sqrt(0.25 / 1004), spread / 2))
    assert Score(right[1]).standard_error == pytest.approx(np.sqrt(0.25 / 1004))
    # The same draws differ by nothing; those of one classifier alone differ as they do.
    paired = (score.correct - other.correct).std(ddof=1) / np.sqrt(1000)
    assert margin(score, other) == pytest.approx((0, paired))
    alone = (score.correct - right[1]).std(ddof=1) / np.sqrt(1000)
    assert margin(score, Score(right[1])) == pytest.approx((0, np.hypot(alone, spread / 2)))
