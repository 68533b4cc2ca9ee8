"""TS2Vec's hierarchical loss against the ts2vec package, on one device and on four."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.losses import ts2vec

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("series")


def case(numbers, name):
    """(loss of the two views, the views, expected value, expected gradients)"""
    alpha, unit, z1, z2, loss, dz1, dz2 = (
        numbers[f"{name}/{part}"] for part in ("alpha", "temporal_unit", "z1", "z2", "loss", "dz1", "dz2")
    )
    return partial(ts2vec, alpha=float(alpha), temporal_unit=int(unit)), (z1, z2), loss, (dz1, dz2)


@pytest.mark.parametrize("name", ["odd", "late", "instance", "temporal", "one_step", "one_series"])
def test_value_and_gradients_equal_the_package(numbers, name):
    loss, views, expected, gradients = case(numbers, name)
    value, found = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(*views)
    close(value, expected)
    jax.tree.map(close, found, gradients)


@pytest.mark.parametrize("name", ["odd", "one_step"])
def test_instances_are_told_from_those_on_all_devices(numbers, value_and_gradients, name):
    """One series on each of four devices."""
    loss, views, expected, gradients = case(numbers, name)
    value, found = value_and_gradients(partial(loss, axis="data"), 4, *views)
    close(value, expected)
    jax.tree.map(close, found, gradients)


@pytest.mark.parametrize("name", ["one_step", "temporal"])
def test_tiles_change_nothing(numbers, value_and_gradients, name):
    loss, views, expected, gradients = case(numbers, name)
    value, found = value_and_gradients(partial(loss, axis="data", block=3), 2, *views)
    close(value, expected)
    jax.tree.map(close, found, gradients)


def test_padding_changes_nothing(numbers, value_and_gradients):
    """Nor does it to a batch whose series have different lengths; what stands in it is nonsense."""
    z1, z2 = (np.pad(numbers[f"odd/{z}"], [(0, 0), (0, 3), (0, 0)], constant_values=50.0) for z in ("z1", "z2"))
    there = np.tile(np.arange(8) < 5, (4, 1))

    def loss(z1, z2, mask):
        return ts2vec(z1, z2, mask=mask > 0, axis="data")

    value, (dz1, dz2, _) = value_and_gradients(loss, 2, z1, z2, there.astype(np.float32))
    close(value, numbers["odd/loss"])
    close(dz1[:, :5], numbers["odd/dz1"])
    close(dz2[:, :5], numbers["odd/dz2"])
    assert not dz1[:, 5:].any()
    lengths = np.arange(8) < np.array([[5], [2], [1], [0]])
    value, (dz1, _, _) = value_and_gradients(loss, 2, z1, z2, lengths.astype(np.float32))
    np.testing.assert_allclose(value, by_a_loop(z1, z2, (5, 2, 1, 0)), rtol=1e-5)
    assert np.isfinite(dz1).all() and not dz1[~lengths].any()


def by_a_loop(z1, z2, lengths):
    """Of the embeddings that are there, one after the other."""
    series = [(a[:n].astype(float), b[:n].astype(float)) for a, b, n in zip(z1, z2, lengths, strict=True)]
    total, levels = 0.0, 0
    while any(len(a) for a, _ in series):
        terms = {"instance": [], "temporal": []}
        for i, views in enumerate(series):
            for t in range(len(views[0])):
                others = {
                    "instance": [z[t] for j, zs in enumerate(series) if j != i and len(zs[0]) > t for z in zs],
                    "temporal": [z[s] for z in views for s in range(len(z)) if s != t],
                }
                for kind, found in others.items():
                    for anchor, partner in (views, views[::-1]):
                        logits = np.array([anchor[t] @ x for x in (partner[t], *found)])
                        terms[kind] += [np.log(np.exp(logits - logits[0]).sum())] if found else []
        total += 0.5 * sum(np.mean(x) for x in terms.values() if x)
        levels += 1
        series = [tuple(z[: len(z) // 2 * 2].reshape(-1, 2, z.shape[1]).max(axis=1) for z in zs) for zs in series]
    return total / levels


def test_of_two_steps_that_are_alike_the_first_has_the_gradient():
    """As in PyTorch: the pooled step's gradient is added to the first step's own."""
    z1, z2 = np.random.RandomState(0).standard_normal((2, 3, 2, 4)).astype(np.float32)
    z1[:, 1] = z1[:, 0]

    @jax.jit
    @jax.grad
    def both_levels(z1):
        return ts2vec(z1, z2, alpha=1.0)

    @jax.jit
    @jax.grad
    def step_by_step(z1):
        steps = [ts2vec(z1[:, i, None], z2[:, i, None], alpha=1.0) / 2 for i in range(2)]
        return (sum(steps) + ts2vec(z1[:, :1], z2.max(axis=1, keepdims=True), alpha=1.0)) / 2

    close(both_levels(z1), step_by_step(z1))


def test_falls_as_the_views_of_a_step_meet(numbers):
    z1, z2 = numbers["odd/z1"], numbers["odd/z2"]
    loss = jax.jit(ts2vec)
    # Of one length, so that the nearest of all is the step's own other view.
    z1 = 3 * z1 / np.linalg.norm(z1, axis=-1, keepdims=True)
    values = [float(loss(z1, z1 + far * z2)) for far in (2.0, 1.0, 0.0)]
    assert values == sorted(values, reverse=True) and len(set(values)) == 3


def test_half_precision_inputs_are_computed_in_float32(numbers):
    half = [jnp.asarray(numbers[f"one_step/{z}"], jnp.bfloat16) for z in ("z1", "z2")]
    loss = jax.jit(ts2vec)
    value = loss(*half)
    assert value.dtype == jnp.float32
    assert value == loss(*(z.astype(jnp.float32) for z in half))


@pytest.mark.parametrize("shapes", [((4, 7, 3), (4, 6, 3)), ((4, 7), (4, 7)), ((4, 0, 3), (4, 0, 3))])
def test_shapes_that_do_not_fit_are_both_named(shapes):
    with pytest.raises(ValueError) as error:
        jax.eval_shape(ts2vec, *map(jnp.zeros, shapes))
    assert all(str(shape) in str(error.value) for shape in shapes)


def test_other_arguments_that_make_no_sense_are_refused():
    z = np.zeros((2, 3, 4))
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\], but is 1.5"):
        ts2vec(z, z, 1.5)
    with pytest.raises(ValueError, match="temporal_unit must be 0 or more, but is -1"):
        ts2vec(z, z, temporal_unit=-1)
    with pytest.raises(ValueError, match=r"mask \(2,\) must be \(batch, time\) of z1 \(2, 3, 4\)"):
        ts2vec(z, z, mask=np.ones(2))
    with pytest.raises(ValueError, match="a single step of a single series"):
        ts2vec(z[:1, :1], z[:1, :1])
