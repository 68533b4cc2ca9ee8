"""Arithmetic to the last digit, and what is too large for it is not taken for nothing."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import losses
from ssljax.models.heads import Prototypes, WeightNormDense
from ssljax.numerics import normalize, product

X, Y = np.random.RandomState(0).standard_normal((2, 8, 6)).astype(np.float32)


def test_what_is_shorter_than_epsilon_is_divided_by_it_and_no_other():
    """x / max(|x|, ε), and not x / (|x| + ε), at 2 ε, at ε / 2 and at zero, where the gradient is 1 / ε."""
    x = jnp.array([[2e-6, 0.0], [5e-7, 0.0], [0.0, 0.0]])
    of = partial(normalize, epsilon=1e-6)
    np.testing.assert_allclose(of(x)[:, 0], [1.0, 0.5, 0.0], rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: of(x)[:, 0].sum())(x)[:, 0], [0.0, 1e6, 1e6], rtol=1e-6, atol=1e-3)


def test_what_overflows_is_not_zero():
    assert np.isfinite(normalize(1e18 * X)).all() and np.isnan(normalize(1e20 * X)).all()
    np.testing.assert_allclose(normalize(1e18 * X), normalize(X), rtol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        losses.negative_cosine,
        losses.cosine_regression,
        losses.nt_xent,
        losses.info_nce,
        losses.barlow_twins,
        losses.vicreg,
        lambda x, y: losses.koleo(x),
    ],
)
def test_a_loss_of_embeddings_that_overflow_is_not_finite(loss):
    """So that the step is not made, and the run says so."""
    assert np.isfinite(loss(X, Y)) and not np.isfinite(loss(1e20 * X, 1e20 * Y))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: product(x, y.T),
        losses.nt_xent,
        losses.info_nce,
        losses.barlow_twins,
        losses.vicreg,
        lambda x, y: losses.koleo(x),
        lambda x, y: WeightNormDense(7).init_with_output(jax.random.key(0), x)[0],
        lambda x, y: Prototypes(7).init_with_output(jax.random.key(0), x)[0],
    ],
)
def test_products_are_in_full_precision(function):
    """A TPU multiplies in bfloat16 where it is not told otherwise, and a logit of 10 is then off by 0.04."""
    text = jax.jit(function).lower(X, Y).as_text()
    products = re.findall(r"stablehlo.dot_general.*", text)
    assert products and all("precision = [HIGHEST, HIGHEST]" in line for line in products), products


@pytest.mark.parametrize("head", [WeightNormDense(7), Prototypes(7)])
def test_logits_of_half_precision_are_those_of_the_same_numbers_in_single(head):
    halves = jnp.asarray(X, jnp.bfloat16)
    variables = head.init(jax.random.key(0), halves)
    np.testing.assert_array_equal(head.apply(variables, halves), head.apply(variables, halves.astype(jnp.float32)))
