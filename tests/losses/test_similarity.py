"""BYOL's and SimSiam's losses against lightly, PyTorch and loops that spell out the formulas."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.losses import cosine_regression, negative_cosine

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
LOSSES = {"cosine_regression": cosine_regression, "negative_cosine": negative_cosine}
METHODS = {
    "byol": lambda p1, p2, z1, z2: cosine_regression(p1, z2) + cosine_regression(p2, z1),
    "simsiam": lambda p1, p2, z1, z2: (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2,
}


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("similarity")


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_the_librarys_and_the_target_gets_none(numbers, value_and_gradients, name, shards):
    value, (dp, dz) = value_and_gradients(LOSSES[name], shards, numbers["p1"], numbers["z2"])
    close(value, numbers[name])
    close(dp, numbers[f"{name}_dp1"])
    np.testing.assert_array_equal(dz, 0.0)


@pytest.mark.parametrize("name", METHODS)
def test_both_directions_are_summed_in_byol_and_averaged_in_simsiam(numbers, value_and_gradients, name):
    arrays = [numbers[k] for k in ("p1", "p2", "z1", "z2")]
    value, (dp1, dp2, dz1, dz2) = value_and_gradients(METHODS[name], 2, *arrays)
    close(value, numbers[name])
    close(dp1, numbers[f"{name}_dp1"])
    close(dp2, numbers[f"{name}_dp2"])
    np.testing.assert_array_equal(dz1, 0.0)
    np.testing.assert_array_equal(dz2, 0.0)


def test_values_equal_the_loops(numbers):
    p, z = numbers["p1"].astype(np.float64), numbers["z1"].astype(np.float64)
    cosines = [
        sum(a * b for a, b in zip(x, y, strict=True)) / np.sqrt(x @ x * (y @ y)) for x, y in zip(p, z, strict=True)
    ]
    close(negative_cosine(p, z), -sum(cosines) / len(cosines))
    close(cosine_regression(p, z), sum(2 - 2 * c for c in cosines) / len(cosines))


def test_range_is_the_papers(numbers):
    p = numbers["p1"]
    for target, distance, cosine in ((3 * p, 0, -1), (-0.5 * p, 4, 1)):
        np.testing.assert_allclose(cosine_regression(p, target), distance, atol=1e-6)
        np.testing.assert_allclose(negative_cosine(p, target), cosine, atol=1e-6)


def test_a_distance_near_zero_keeps_its_digits():
    """An angle of 1e-4, of which the cosine is 1 - 5e-9: 1 in float32."""
    p = np.array([[1.0, 0.0]], np.float32)
    z = np.array([[np.cos(1e-4), np.sin(1e-4)]], np.float32)
    np.testing.assert_allclose(cosine_regression(p, z), 2 * (1 - np.cos(1e-4)), rtol=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_falls_as_the_prediction_nears_the_target(numbers, name):
    p, z = numbers["p1"], numbers["z2"]
    values = [float(LOSSES[name]((1 - pull) * p + pull * z, z)) for pull in (0.0, 0.3, 0.6, 1.0)]
    assert values == sorted(values, reverse=True) and len(set(values)) == 4


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_inputs_are_computed_in_float32(numbers, name):
    p, z = (jnp.asarray(numbers[k], jnp.bfloat16) for k in ("p1", "z2"))
    value = LOSSES[name](p, z)
    assert value.dtype == jnp.float32
    assert value == LOSSES[name](p.astype(jnp.float32), z.astype(jnp.float32))


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_finite_where_a_vector_is_zero(numbers, name):
    p, z = numbers["p1"].copy(), numbers["z2"].copy()
    p[0] = z[1] = p[2] = z[2] = 0.0
    assert np.isfinite(jax.grad(LOSSES[name])(p, z)).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("p, z", [((8, 16), (8, 4)), ((8, 16), (1, 16)), ((8,), (8,)), ((2, 8, 4), (2, 8, 4))])
def test_shapes_that_do_not_fit_are_both_named(name, p, z):
    with pytest.raises(ValueError) as error:
        jax.eval_shape(LOSSES[name], jnp.zeros(p), jnp.zeros(z))
    assert f"prediction {p}" in str(error.value) and f"target {z}" in str(error.value)
