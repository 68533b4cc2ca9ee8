"""DGI's loss against PyTorch Geometric's, in its convention and in the paper's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.losses import dgi


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
