"""SVM, the nearest neighbour by Euclid's distance, and cross-validation."""

from dataclasses import replace

import numpy as np
import pytest

from ssljax.evals import svm as of_svm
from ssljax.evals.folds import cross_validated
from ssljax.evals.knn import one_nearest
from ssljax.evals.linear import linear_probe
from ssljax.evals.protocols import Settings, described
from ssljax.evals.scores import Score
from ssljax.evals.svm import svm

RNG = np.random.RandomState(0)


def rings(n):
    """Two classes of which one is around the other."""
    labels = np.arange(n) % 2
    points = RNG.standard_normal((n, 2))
    return points / np.linalg.norm(points, axis=1, keepdims=True) * (1 + labels[:, None]), labels


def test_svm_tells_what_no_line_does_and_says_nothing_of_noise():
    train, test = rings(80), rings(60)
    assert svm(*train, *test).accuracy == 1.0
    noise = svm(RNG.standard_normal((80, 2)), train[1], RNG.standard_normal((60, 2)), test[1])
    assert 0.25 < noise.accuracy < 0.75


def test_svm_chooses_its_penalty_without_the_test_examples():
    """Whatever their labels are, the same are predicted."""
    train, (test, labels) = rings(40), rings(30)
    right, wrong = svm(*train, test, labels).correct, svm(*train, test, 1 - labels).correct
    np.testing.assert_array_equal(right, ~wrong)


def test_svm_of_a_class_with_one_example_and_of_very_many(monkeypatch):
    x, labels = rings(40)
    labels = np.where(np.arange(40) == 3, 2, labels)
    assert svm(x, labels, x, labels).accuracy > 0.9
    monkeypatch.setattr(of_svm, "MOST", 30)
    assert 0.8 < svm(x, labels % 2, x, labels % 2).accuracy


@pytest.mark.parametrize("judge", [svm, linear_probe])
def test_what_has_learnt_of_one_class_tells_nothing_apart(judge):
    x, labels = rings(20)
    with pytest.raises(ValueError, match="all 10 labels to learn from are the same, which leaves nothing to tell"):
        judge(x[labels == 1], labels[labels == 1], x, labels)


def test_one_nearest_is_a_loop():
    bank, queries = RNG.standard_normal((30, 4)), RNG.standard_normal((20, 4))
    bank_labels, labels = np.arange(30) % 3, np.arange(20) % 3
    nearest = [np.square(bank - q).sum(axis=1).argmin() for q in queries]
    np.testing.assert_array_equal(
        one_nearest(bank, bank_labels, queries, labels).correct, bank_labels[nearest] == labels
    )


def test_each_example_is_judged_once_by_those_of_the_other_folds():
    features, labels = np.arange(50)[:, None], np.arange(50) % 5
    seen = []

    def judge(train, train_labels, test, test_labels):
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])[:, 0]), np.arange(50))
        np.testing.assert_array_equal(np.bincount(test_labels), 1)  # ten of each class, in ten folds
        seen.extend(test[:, 0])
        return Score(test[:, 0] % 2 == 0)

    found = cross_validated(judge, features, labels, 10)
    assert sorted(seen) == list(range(50))
    np.testing.assert_array_equal(found.correct, np.arange(50) % 2 == 0)
    with pytest.raises(ValueError, match="a class has only 10 examples, too few for 11 folds"):
        cross_validated(judge, features, labels, 11)


def test_a_protocol_in_words_is_of_the_encoder_and_the_counts_at_hand():
    settings = Settings(20, 0.07, "standard", folds=0, things="images")
    of_vit = described("probe_dino", replace(settings, blocks=12), 100, 1)
    assert "of a Vision Transformer 4 last class tokens, or 1 last class token and the mean of the patches" in of_vit
    assert of_vit.endswith("100 training images; 1 test image")
    assert "Vision Transformer" not in described("probe_dino", settings, 100, 1)
    assert "2 last class tokens, or" in described("probe_dino", replace(settings, blocks=2), 100, 1)
