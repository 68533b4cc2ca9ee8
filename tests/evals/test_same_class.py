"""Retrieval of the same class, against scikit-learn's average precision and by construction."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from ssljax.evals import same_class as module
from ssljax.evals.same_class import same_class

RNG = np.random.RandomState(0)
BANK, LABELS = RNG.randn(80, 5).astype(np.float32), np.arange(80) % 4
QUERIES, TRUTH = RNG.randn(30, 5).astype(np.float32), np.arange(30) % 5


def cosine(a, b):
    return a @ b.T / np.linalg.norm(a, axis=-1, keepdims=True) / np.linalg.norm(b, axis=1)


def test_it_is_scikit_learns_over_queries_whose_class_is_there():
    similarity, asked = cosine(QUERIES, BANK), TRUTH < 4
    expected = [average_precision_score(LABELS == TRUTH[i], similarity[i]) for i in np.flatnonzero(asked)]
    found = same_class(BANK, LABELS, QUERIES, TRUTH)
    assert found["mAP"]["value"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert found["mAP"]["standard_error"] == pytest.approx(np.std(expected) / np.sqrt(asked.sum()), rel=1e-4)
    for k in (1, 5, 10):
        first = np.argsort(-similarity, axis=1)[:, :k]
        right = (LABELS[first] == TRUTH[:, None]).any(axis=1)[asked]
        assert found[f"R@{k}"]["value"] == pytest.approx(right.mean())


def test_leave_one_out_is_over_all_others(monkeypatch):
    expected = []
    for i in range(80):
        rest = np.arange(80) != i
        expected.append(average_precision_score(LABELS[rest] == LABELS[i], cosine(BANK[i : i + 1], BANK[rest])[0]))
    assert same_class(BANK, LABELS)["mAP"]["value"] == pytest.approx(np.mean(expected), rel=1e-5)
    monkeypatch.setattr(module, "MOST", 20)
    rows = np.sort(np.random.default_rng(0).permutation(80)[:20])
    assert same_class(BANK, LABELS)["mAP"]["value"] == pytest.approx(np.mean(np.array(expected)[rows]), rel=1e-5)


def test_classes_that_lie_apart_are_found_and_chance_is_the_share_of_a_class():
    apart = np.eye(4, dtype=np.float32)
    perfect = same_class(apart[LABELS], LABELS, apart[TRUTH[TRUTH < 4]], TRUTH[TRUTH < 4])
    assert all(of["value"] == 1 for of in perfect.values())
    assert perfect["mAP"]["standard_error"] == 0 < perfect["R@1"]["standard_error"]
    noise = same_class(RNG.randn(400, 9), np.arange(400) % 4, RNG.randn(200, 9), np.arange(200) % 4)
    assert noise["mAP"]["value"] == pytest.approx(0.25, abs=0.02)
