"""Segmentation by patches: against scikit-learn, and where the answer is known."""

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from ssljax.evals.segmentation import IGNORED, jaccard, of_attention, of_clusters, painted


@pytest.fixture
def truth():
    """Six masks of 12 x 12 pixels, of three classes that fill patches of 3 x 3."""
    return painted(np.random.RandomState(0).randint(0, 3, (6, 16)), (6, 12, 12))


def test_patches_that_tell_classes_apart_make_all_pixels_right(truth):
    """Whatever number a cluster has. One patch that is wrong is a ninth of its pixels each time."""
    tokens = np.eye(5)[2 + truth[:, ::3, ::3].reshape(6, 16)]
    for name in ("mIoU of clusters", "pixels of clusters"):
        assert of_clusters(tokens, truth)[name] == {"value": 1.0, "standard_error": 0.0}
    other = np.where(truth == 1, IGNORED, truth)
    assert of_clusters(tokens, other)["pixels of clusters"]["value"] > 0.5  # of two clusters one has two classes
    tokens[0, 0] = np.roll(tokens[0, 0], 1) if truth[0, 0, 0] < 2 else np.roll(tokens[0, 0], -1)
    found = of_clusters(tokens, truth)
    assert found["pixels of clusters"]["value"] == pytest.approx(1 - 9 / truth.size)
    assert 0 < found["pixels of clusters"]["standard_error"] < 0.02


def test_numbers_are_those_of_scikit_learn(truth):
    """Of clusters that are noise; the names that they get are the best of all six."""
    tokens = np.random.RandomState(1).rand(6, 16, 1).round()[..., [0, 0]] * [1, 0] + [0, 1]
    tokens[::2, ::3] = [5, 5]
    clusters = np.select([tokens[..., 0] == 5, tokens[..., 0] == 1], [2, 1], 0)
    flat, found = truth.ravel(), of_clusters(tokens, truth)
    drawn = painted(clusters, truth.shape).ravel()
    names = [np.array(order)[drawn] for order in permutations(range(3))]
    best = max(names, key=lambda named: (named == flat).mean())
    assert found["pixels of clusters"]["value"] == pytest.approx((best == flat).mean())
    assert found["mIoU of clusters"]["value"] == pytest.approx(jaccard_score(flat, best, average="macro"))


def test_attention_on_the_object_is_the_object():
    rng = np.random.RandomState(0)
    truth = painted(np.arange(16)[None] % 4 < rng.randint(1, 3, (5, 1)), (5, 8, 8)).astype(int)
    truth[:, 0] = IGNORED
    of_patches = truth[:, 1::2, ::2].reshape(5, 16)
    on, off = np.where(of_patches == 1, 1.0, 1e-6), np.where(of_patches == 1, 1e-6, 1.0)
    found = of_attention(np.stack([off, on], axis=1), truth)
    assert found["Jaccard, best head"]["value"] < 1  # 60 % of what is the same everywhere is not all patches
    noise = painted(rng.rand(5, 16) < 0.5, truth.shape)
    seen = truth != IGNORED
    expected = [jaccard_score(truth[i][seen[i]] == 1, noise[i][seen[i]]) for i in range(5)]
    np.testing.assert_allclose(jaccard(noise, truth), expected)
    one = np.zeros((5, 2, 16))
    one[:, 1, 5] = one[:, 0, 9] = 1.0
    at = np.zeros((5, 16), int)
    at[:, 5] = 1
    exact = of_attention(one, painted(at, (5, 8, 8)))
    assert exact["Jaccard, best head"]["value"] == 1 and exact["Jaccard, all heads"]["value"] == 0.5
