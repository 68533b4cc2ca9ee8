"""BatchNorm: whose statistics normalise whom, on one device and on four."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ssljax.models.norm import BatchNorm

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
IMAGES = np.random.RandomState(0).normal(1.0, 2.0, (16, 3, 3, 5)).astype(np.float32)


def start(norm, x=IMAGES):
    return jax.jit(partial(norm.init, train=True))(jax.random.key(0), x)


def normalised(x, groups):
    """What the formula says, in NumPy: the output, and the mean over the groups of their means and variances."""
    outputs, means, variances = [], [], []
    for part in np.split(x.astype(np.float64), groups):
        mean, var = part.mean((0, 1, 2)), part.var((0, 1, 2))
        outputs.append((part - mean) / np.sqrt(var + 1e-5))
        means.append(mean)
        variances.append(var)
    return np.concatenate(outputs), np.mean(means, axis=0), np.mean(variances, axis=0)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_each_group_is_normalised_by_its_own_statistics(groups):
    norm = BatchNorm(groups=groups)
    y, changed = norm.apply(start(norm), IMAGES, train=True, mutable=["batch_stats"])
    expected, mean, var = normalised(IMAGES, groups)
    close(y, expected)
    close(changed["batch_stats"]["mean"], 0.9 * 0.0 + 0.1 * mean)
    close(changed["batch_stats"]["var"], 0.9 * 1.0 + 0.1 * var)


def test_scale_and_bias_come_after_normalising():
    norm = BatchNorm()
    scale, bias = np.arange(1.0, 6.0), np.arange(-2.0, 3.0)
    variables = {**start(norm), "params": {"scale": scale, "bias": bias}}
    y, _ = norm.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
    close(y, normalised(IMAGES, 1)[0] * scale + bias)


def test_evaluation_uses_running_statistics_and_leaves_them():
    norm = BatchNorm()
    mean, var = np.arange(5.0), np.arange(1.0, 6.0)
    variables = {**start(norm), "batch_stats": {"mean": mean, "var": var}}
    y, changed = norm.apply(variables, IMAGES, train=False, mutable=["batch_stats"])
    close(y, (IMAGES - mean) / np.sqrt(var + 1e-5))
    np.testing.assert_array_equal(changed["batch_stats"]["mean"], mean)


@pytest.mark.parametrize("shards, groups", [(4, 1), (4, 4), (4, 8), (4, 2), (3, 8), (2, 3)])
def test_shards_equal_one_device(spread, shards, groups):
    """Outputs, running statistics and the gradient by the inputs, which flows across shards where a group does: one
    group, two on four shards, eight on three and three on two."""
    norm = BatchNorm(groups=groups)
    images = np.concatenate([IMAGES, 2 * IMAGES[:8] - 1])[: 16 if 16 % (shards * groups) == 0 else 24]
    variables = start(norm, images)
    weights = np.random.RandomState(1).normal(size=images.shape).astype(np.float32)

    def forward(axis, x, w):
        def loss(x):
            y, changed = norm.apply(variables, x, train=True, axis=axis, mutable=["batch_stats"])
            total = jnp.sum(jnp.sin(y) * w)
            return (total if axis is None else jax.lax.psum(total, axis)), (y, changed["batch_stats"])

        gradient, (y, statistics) = jax.grad(loss, has_aux=True)(x)
        return gradient, y, statistics

    one = jax.jit(partial(forward, None))(images, weights)
    many = spread(partial(forward, "data"), shards, (P("data"), P("data"), P()))(images, weights)
    jax.tree.map(close, many, one)


@pytest.mark.parametrize("scale, bias", [(True, True), (True, False), (False, False)])
def test_scale_and_bias_exist_where_asked(scale, bias):
    variables = start(BatchNorm(use_scale=scale, use_bias=bias))
    assert set(variables.get("params", {})) == {name for name, there in (("scale", scale), ("bias", bias)) if there}


def test_half_precision_has_float32_statistics():
    norm = BatchNorm(dtype=jnp.bfloat16)
    halves = jnp.asarray(IMAGES, jnp.bfloat16)
    y, changed = norm.apply(start(norm, halves), halves, train=True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16 and changed["batch_stats"]["var"].dtype == jnp.float32
    close(changed["batch_stats"]["mean"], 0.1 * np.asarray(halves, np.float32).mean((0, 1, 2)))


def test_groups_that_do_not_divide_the_batch_are_refused(spread):
    with pytest.raises(ValueError, match="5 BatchNorm groups do not fit a batch of 16 examples on each of 1 shards"):
        start(BatchNorm(groups=5))
    norm = BatchNorm(groups=3)
    variables = start(norm, IMAGES[:12])
    with pytest.raises(ValueError, match="3 BatchNorm groups do not fit a batch of 4 examples on each of 4 shards"):
        spread(lambda x: norm.apply(variables, x, train=True, axis="data", mutable=["batch_stats"])[0], 4, P("data"))(
            IMAGES
        )
