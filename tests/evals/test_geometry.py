"""Ranks and spreads of features whose geometry is known."""

import numpy as np
import pytest

from ssljax.evals.geometry import alignment, feature_std, lidar, rankme, singular_values, uniformity

RNG = np.random.RandomState(0)


def of_rank(rank, examples=500, dim=20):
    """Features that use so many directions, all of them as much."""
    q, _ = np.linalg.qr(RNG.randn(examples, rank))
    r, _ = np.linalg.qr(RNG.randn(dim, rank))
    return (7 * q @ r.T).astype(np.float32)


@pytest.mark.parametrize("shape", [(60, 12), (12, 60)])
def test_singular_values_are_those_of_numpy(shape):
    x = RNG.randn(*shape)
    np.testing.assert_allclose(singular_values(x), np.linalg.svd(x, compute_uv=False), rtol=1e-9)


@pytest.mark.parametrize("rank", [1, 3, 20])
def test_rankme_is_the_number_of_directions(rank):
    assert rankme(of_rank(rank)) == pytest.approx(rank, rel=1e-3)
    assert rankme(100 * of_rank(rank)) == pytest.approx(rank, rel=1e-3)


def test_rankme_of_directions_that_count_less():
    """Of singular values 3 and 1: exp(H(3/4, 1/4))."""
    x = np.diag([3.0, 1.0])
    assert rankme(x) == pytest.approx(np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)), rel=1e-5)


def test_what_fills_the_sphere_and_what_is_one_point():
    sphere, point = RNG.randn(3000, 64), np.tile(RNG.randn(64), (50, 1)) * RNG.uniform(1, 2, (50, 1))
    assert feature_std(sphere) == pytest.approx(1, rel=0.02) and feature_std(point) == pytest.approx(0, abs=1e-6)
    assert uniformity(sphere) == pytest.approx(-4 * (1 - 2 / 64), abs=0.05)
    assert uniformity(point) == pytest.approx(0, abs=1e-9)
    opposite = np.array([[5.0, 0.0], [-1.0, 0.0]])
    assert uniformity(opposite) == pytest.approx(-8)


def test_alignment_is_a_loop_over_pairs():
    views = RNG.randn(9, 3, 5)
    unit = views / np.linalg.norm(views, axis=-1, keepdims=True)
    pairs = [np.square(v[i] - v[j]).sum() for v in unit for i in range(3) for j in range(3) if i != j]
    assert alignment(views) == pytest.approx(np.mean(pairs))
    assert alignment(np.repeat(views[:, :1], 4, axis=1)) == pytest.approx(0, abs=1e-12)


def test_lidar_counts_only_what_tells_examples_apart():
    """Four directions differ between examples; ten others, larger, only between the views of one."""
    examples, noise = np.zeros((400, 1, 20)), np.zeros((400, 10, 20))
    examples[:, 0, :4], noise[..., 10:] = RNG.randn(400, 4), 5 * RNG.randn(400, 10, 10)
    views = examples + noise + 0.01 * RNG.randn(400, 10, 20)
    assert lidar(views) == pytest.approx(4, rel=0.1)
    assert rankme(views.reshape(-1, 20)) > 10
    assert lidar(RNG.randn(400, 1, 4) + 0.1 * RNG.randn(400, 10, 4)) == pytest.approx(4, rel=0.05)


def test_lidar_is_the_whitened_covariance_of_its_paper():
    views = RNG.randn(30, 4, 6) + 2 * RNG.randn(30, 1, 6)
    means = views.mean(axis=1)
    between = np.cov(means.T)
    within = np.mean([np.cov(v.T) for v in views], axis=0) + 1e-4 * np.eye(6)
    values, vectors = np.linalg.eigh(within)
    root = vectors / np.sqrt(values) @ vectors.T
    p = np.linalg.eigvalsh(root @ between @ root)
    p = p / p.sum() + 1e-8
    assert lidar(views) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)
