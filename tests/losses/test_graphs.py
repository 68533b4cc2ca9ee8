"""DGI's loss against PyTorch Geometric's, in its convention and in the paper's; GraphCL's against a loop."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from seeded import normal

from ssljax.losses import dgi, graphcl


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("graphs")


@pytest.mark.parametrize("convention, part", [("sum", 1.0), ("mean", 0.5)])
def test_loss_and_gradient_equal_pytorch_geometrics(numbers, convention, part):
    value, gradients = jax.value_and_grad(dgi, (0, 1))(numbers["positive"], numbers["negative"], convention=convention)
    np.testing.assert_allclose(value, part * numbers["loss"], rtol=1e-5)
    for ours, theirs in zip(gradients, ("positive_gradient", "negative_gradient"), strict=True):
        np.testing.assert_allclose(ours, part * numbers[theirs], rtol=1e-5, atol=1e-7)


def test_it_is_the_binary_cross_entropy_of_a_loop(numbers):
    terms = [np.log(1 / (1 + np.exp(-np.float64(x)))) for x in numbers["positive"]]
    terms += [np.log(1 - 1 / (1 + np.exp(-np.float64(x)))) for x in numbers["negative"]]
    np.testing.assert_allclose(dgi(numbers["positive"], numbers["negative"]), -np.mean(terms), rtol=1e-5)


def test_shards_of_as_many_graphs_have_the_mean(value_and_gradients):
    rng = np.random.RandomState(0)
    positive, negative = (rng.standard_normal((4, 7)).astype(np.float32) for _ in range(2))
    value, _ = value_and_gradients(dgi, 4, positive, negative)
    np.testing.assert_allclose(value, dgi(positive, negative), rtol=1e-6)


def test_falls_as_the_discriminator_is_surer():
    signs = jnp.ones(5), -jnp.ones(5)
    values = [float(dgi(*(t * x for x in signs))) for t in (-1.0, 0.0, 1.0, 5.0)]
    assert values == sorted(values, reverse=True) and abs(values[1] - np.log(2)) < 1e-6


def test_half_precision_is_compared_in_float32(numbers):
    halves = [jnp.asarray(numbers[name], jnp.bfloat16) for name in ("positive", "negative")]
    assert dgi(*halves) == dgi(*(x.astype(jnp.float32) for x in halves))


@pytest.mark.parametrize(
    "arrays, options, sentence",
    [
        (((3,), (4,)), {}, r"positive \(3,\) and negative \(4,\) must be of one shape, not empty"),
        (((0,), (0,)), {}, "not empty"),
        (((3,), (3,)), {"convention": "median"}, "convention 'median' is unknown; use 'mean' or 'sum'"),
    ],
)
def test_what_does_not_fit_is_said(arrays, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        dgi(*map(jnp.zeros, arrays), **options)


# GraphCL --------------------------------------------------------------------------------------------------------------

VIEWS = normal("graphcl z1", (8, 5)), normal("graphcl z1", (8, 5)) + normal("graphcl z2", (8, 5))


def graphcl_loop(z1, z2, temperature=0.2):
    """One direction; the positive is in the numerator alone."""
    total = 0.0
    for i, anchor in enumerate(z1):
        similarities = [np.exp(anchor @ z / np.linalg.norm(anchor) / np.linalg.norm(z) / temperature) for z in z2]
        total -= np.log(similarities[i] / (sum(similarities) - similarities[i]))
    return total / len(z1)


def slopes(f, x, step=1e-5):
    """The gradient of a function of one array, by differences."""
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        low, high = (x.astype(np.float64) for _ in range(2))
        low[place] -= step
        high[place] += step
        gradient[place] = (f(high) - f(low)) / (2 * step)
    return gradient


@pytest.mark.parametrize("shards", [1, 4])
def test_graphcl_and_its_gradients_equal_the_loop(value_and_gradients, shards):
    value, (dz1, dz2) = value_and_gradients(partial(graphcl, axis="data"), shards, *VIEWS)
    z1, z2 = (z.astype(np.float64) for z in VIEWS)
    np.testing.assert_allclose(value, graphcl_loop(z1, z2), rtol=1e-5)
    np.testing.assert_allclose(dz1, slopes(lambda z: graphcl_loop(z, z2), z1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dz2, slopes(lambda z: graphcl_loop(z1, z), z2), rtol=1e-5, atol=1e-6)


def test_graphcl_is_the_same_in_tiles_and_follows_its_temperature():
    np.testing.assert_allclose(jax.jit(partial(graphcl, block=3))(*VIEWS), graphcl(*VIEWS), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(graphcl)(*VIEWS, 0.7), graphcl_loop(*VIEWS, 0.7), rtol=1e-5)


def test_graphcl_falls_below_zero_as_views_of_a_graph_meet():
    z1, z2 = VIEWS
    values = [float(graphcl(z1, z1 + far * (z2 - z1))) for far in (2.0, 1.0, 0.0)]
    assert values == sorted(values, reverse=True) and values[0] > 0 > values[-1]


def test_graphcl_of_half_precision_and_of_what_does_not_fit():
    half = [jnp.asarray(x, jnp.bfloat16) for x in VIEWS]
    assert graphcl(*half) == graphcl(*(x.astype(jnp.float32) for x in half))
    with pytest.raises(ValueError, match=r"z1 \(8, 5\) and z2 \(8, 4\)"):
        graphcl(VIEWS[0], VIEWS[1][:, :4])
    with pytest.raises(ValueError, match="temperature must be positive, but is 0"):
        graphcl(*VIEWS, 0.0)
    with pytest.raises(ValueError, match="at least 2 graphs are needed"):
        graphcl(VIEWS[0][:1], VIEWS[1][:1])
