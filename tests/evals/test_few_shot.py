"""A few labels of each class, against loops and against what is known beforehand."""

import numpy as np
import pytest

from ssljax.evals.few_shot import CLASSIFIERS, DRAWS, draw_shots, few_shot
from ssljax.evals.protocols import require_shots

RNG = np.random.RandomState(0)
LABELS, TRUTH = np.arange(120) % 4, np.arange(60) % 4


def clusters(apart):
    centres = apart * np.eye(4, 8) + 3.0
    return [(centres[y] + RNG.randn(len(y), 8)).astype(np.float32) for y in (LABELS, TRUTH)]


def test_shots_are_of_each_class_drawn_by_the_seed():
    rows = draw_shots(LABELS, 5, seed=3)
    assert np.bincount(LABELS[rows]).tolist() == [5] * 4 and (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, draw_shots(LABELS, 5, seed=3))
    assert rows.tolist() != draw_shots(LABELS, 5, seed=4).tolist()
    with pytest.raises(ValueError, match="31 shots need as many .* class number 0, counted from 0, has 30"):
        draw_shots(LABELS, 31, seed=0)


def test_shots_that_there_are_not_are_told_by_the_protocol_and_the_class():
    labels = np.repeat([0, 2, 3], [10, 6, 4])
    require_shots("few_shot_1", labels, None)
    with pytest.raises(ValueError, match="'few_shot_5' needs 5 .* class 'd' has 4: label more, or use few_shot_1"):
        require_shots("few_shot_5", labels, "abcd")
    with pytest.raises(ValueError, match="class number 2, counted from 0, has 6: label more, or use ridge_5"):
        require_shots("ridge_10", labels[:16], None)


def by_centroid(x, labels, queries):
    means = np.stack([x[labels == k].mean(axis=0) for k in range(4)])
    return np.array([np.square(means - q).sum(axis=1).argmin() for q in queries])


def by_ridge(x, labels, queries):
    """Of targets -1 and 1, with an intercept that is not penalised: W = (XᵀX + I)⁻¹ Xᵀ Y of what is centred."""
    y = 2.0 * np.eye(4)[labels] - 1
    centred = x - x.mean(axis=0)
    w = np.linalg.solve(centred.T @ centred + np.eye(8), centred.T @ (y - y.mean(axis=0)))
    return ((queries - x.mean(axis=0)) @ w + y.mean(axis=0)).argmax(axis=1)


@pytest.mark.parametrize("name, rule", [("centroid", by_centroid), ("ridge", by_ridge)])
def test_each_draw_is_what_the_formula_says(name, rule):
    train, test = clusters(1.5)
    centred = [(part - train.mean(axis=0)).astype(np.float64) for part in (train, test)]
    x, queries = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in centred)
    right = []
    for seed in range(DRAWS):
        rows = draw_shots(LABELS, 3, seed)
        right.append(rule(x[rows], LABELS[rows], queries) == TRUTH)
    score = few_shot(train, LABELS, test, TRUTH, shots=3, classifier=name)
    np.testing.assert_allclose(score.correct, np.mean(right, axis=0), atol=0.051)
    np.testing.assert_allclose(score.draws, [r.mean() for r in right], atol=0.02)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_far_classes_are_told_by_one_shot_and_noise_never_is(name):
    train, test = clusters(40.0)
    assert few_shot(train, LABELS, test, TRUTH, shots=1, classifier=name).accuracy == 1
    train, test = clusters(0.0)
    assert abs(few_shot(train, LABELS, test, TRUTH, shots=5, classifier=name).accuracy - 0.25) < 0.1
    train, test = clusters(2.0)
    one, five, ten = (few_shot(train, LABELS, test, TRUTH, shots=s, classifier=name).accuracy for s in (1, 5, 10))
    assert one < five < ten
