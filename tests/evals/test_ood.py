"""Other data, told by distances, against scikit-learn and where the answer is known."""

import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from ssljax.evals.ood import auroc, knn_distance, mahalanobis

RNG = np.random.RandomState(0)


def test_auroc_is_scikit_learns_with_ties():
    inside, outside = RNG.randint(0, 8, 70), RNG.randint(2, 10, 50)
    expected = roc_auc_score(np.repeat([0, 1], [70, 50]), np.concatenate([inside, outside]))
    assert auroc(inside, outside)["value"] == pytest.approx(expected)
    assert auroc(outside, inside)["value"] == pytest.approx(1 - expected)


def test_aurocs_that_are_known():
    low, high = np.arange(5.0), np.arange(5.0) + 5
    assert auroc(low, high)["value"] == 1
    assert auroc(np.ones(5), np.ones(4))["value"] == 0.5
    assert auroc(np.array([1.0]), np.array([0.0]))["value"] == 0


def test_few_examples_leave_doubt_of_an_auroc():
    errors = [auroc(np.zeros(n), np.ones(n))["standard_error"] for n in (1, 8, 1000)]
    assert errors[0] > 0.25 > errors[1] > 0.1 > 0.01 > errors[2]


def test_the_error_of_an_auroc_is_that_of_repeated_draws():
    found = [auroc(RNG.randn(80), RNG.randn(60) + 0.7) for _ in range(600)]
    spread = np.std([f["value"] for f in found])
    assert np.mean([f["standard_error"] for f in found]) == pytest.approx(spread, rel=0.08)


def test_the_distance_to_a_neighbour_is_scikit_learns():
    bank, queries = RNG.randn(90, 6).astype(np.float32), RNG.randn(40, 6).astype(np.float32)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    far, _ = NearestNeighbors(n_neighbors=7).fit(unit(bank)).kneighbors(unit(queries))
    np.testing.assert_allclose(knn_distance(bank, queries, 7), far[:, -1], rtol=1e-4)
    assert knn_distance(bank[:3], queries).shape == (40,)


def test_mahalanobis_is_scikit_learns_and_leaves_out_what_never_changes():
    labels, centres = np.arange(200) % 3, 4 * RNG.randn(3, 5)
    mix = RNG.randn(5, 5)
    bank, queries = centres[labels] + RNG.randn(200, 5) @ mix, 3 * RNG.randn(40, 5)
    means = np.stack([bank[labels == k].mean(axis=0) for k in range(3)])
    shared = EmpiricalCovariance(assume_centered=True).fit(bank - means[labels])
    expected = np.min([shared.mahalanobis(queries - mean) for mean in means], axis=0)
    np.testing.assert_allclose(mahalanobis(bank, labels, queries), expected, rtol=1e-6)
    constant = lambda x: np.append(x, np.ones((len(x), 2)), axis=1)  # noqa: E731
    wide = RNG.randn(5, 300)  # the same directions, among more than there are examples
    np.testing.assert_allclose(mahalanobis(bank @ wide, labels, queries @ wide), expected, rtol=1e-5)
    np.testing.assert_allclose(mahalanobis(constant(bank), labels, constant(queries)), expected, rtol=1e-5)


def test_what_is_far_is_found_and_what_is_the_same_is_not():
    bank, labels = RNG.randn(400, 8) + 4 * np.eye(8)[np.arange(400) % 2], np.arange(400) % 2
    inside, other = RNG.randn(300, 8) + 4 * np.eye(8)[np.arange(300) % 2], RNG.randn(300, 8) + 4 * np.eye(8)[5]
    same = RNG.randn(300, 8) + 4 * np.eye(8)[np.arange(300) % 2]
    for score in (lambda x: knn_distance(bank, x, 10), lambda x: mahalanobis(bank, labels, x)):
        assert auroc(score(inside), score(other))["value"] > 0.9
        assert abs(auroc(score(inside), score(same))["value"] - 0.5) < 0.06
