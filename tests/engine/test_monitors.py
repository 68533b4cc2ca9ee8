"""The statistics say what their docstring says, on any number of shards, and the alarm sounds when it should."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ssljax.engine.monitors import alarm, collapse_statistics
from ssljax.methods.images.image_method import target_statistics


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture
def aux():
    rng = np.random.RandomState(0)
    z = rng.randn(64, 8).astype(np.float32)
    return {"features": z * np.linspace(0.1, 2, 8), "embeddings": (z, z + 0.3 * rng.randn(64, 8).astype(np.float32))}


def test_values(aux):
    found = collapse_statistics(aux, None)
    x = unit(aux["features"])
    eigenvalues = np.linalg.eigvalsh(np.cov(x.T, bias=True))
    np.testing.assert_allclose(found["feature_std"], x.std(0).mean() * np.sqrt(8), rtol=1e-4)
    np.testing.assert_allclose(found["effective_rank"], eigenvalues.sum() ** 2 / (eigenvalues**2).sum(), rtol=1e-4)
    a, b = map(unit, aux["embeddings"])
    np.testing.assert_allclose(found["embedding_std"], a.std(0).mean() * np.sqrt(8), rtol=1e-4)
    np.testing.assert_allclose(found["alignment"], ((a - b) ** 2).sum(1).mean(), rtol=1e-4)
    pairs = [np.exp(-2 * ((a[i] - a[j]) ** 2).sum()) for i in range(64) for j in range(64) if i != j]
    np.testing.assert_allclose(found["uniformity"], np.log(np.mean(pairs)), rtol=1e-4)


def test_the_same_on_four_shards(aux, spread):
    whole = collapse_statistics(aux, None)
    names = ("features", "first", "second")
    run = spread(
        lambda features, first, second: collapse_statistics(
            {"features": features, "embeddings": (first, second)}, "data"
        ),
        4,
        out_specs=P(),
    )
    shards = run(*dict(zip(names, (aux["features"], *aux["embeddings"]), strict=True)).values())
    for name, value in whole.items():
        np.testing.assert_allclose(shards[name], value, rtol=1e-4, err_msg=name)


def test_one_view_has_no_alignment(aux):
    assert set(collapse_statistics({**aux, "embeddings": ()}, None)) == {"feature_std", "effective_rank"}


def test_alarms():
    rng = np.random.RandomState(0)
    point = np.ones((64, 8)) + 1e-3 * rng.randn(64, 8)
    line = np.outer(rng.randn(64), np.arange(1, 9)) + 1e-3 * rng.randn(64, 8)
    for features, words in ((point, "the same representation"), (line, "on a line")):
        numbers = collapse_statistics({"features": jnp.asarray(features), "embeddings": ()}, None)
        assert words in alarm({k: float(v) for k, v in numbers.items()})
    spread = jnp.asarray(rng.randn(64, 8))
    healthy = collapse_statistics({"features": spread, "embeddings": (spread, spread)}, None)
    assert alarm({k: float(v) for k, v in healthy.items()}) is None
    collapsed = collapse_statistics({"features": spread, "embeddings": (jnp.asarray(point),) * 2}, None)
    assert alarm({k: float(v) for k, v in collapsed.items()}).startswith("embedding_std is 0.00")


def test_targets_that_are_all_one_prototype_or_none():
    rng = np.random.RandomState(0)
    one = np.tile(np.eye(16)[3], (2, 32, 1))
    spread = np.eye(16)[rng.randint(16, size=(2, 32))]
    for targets, words in ((one, "the same prototype"), (np.full((2, 32, 16), 1 / 16), "every prototype")):
        assert words in alarm(
            {k: float(v) for k, v in target_statistics(jnp.asarray(targets), jnp.float32(5.0), None).items()}
        )
    numbers = target_statistics(jnp.asarray(spread), jnp.float32(5.0), None)
    share = np.bincount(spread.reshape(-1, 16).argmax(1), minlength=16) / 64
    np.testing.assert_allclose(numbers["prototypes_used"], -(share * np.log(share)).sum() / np.log(16), rtol=1e-5)
    np.testing.assert_allclose(numbers["target_entropy"], 0.0, atol=1e-5)
    np.testing.assert_allclose(numbers["kl_divergence"], 5.0, atol=1e-4)
    assert alarm({k: float(v) for k, v in numbers.items()}) is None
