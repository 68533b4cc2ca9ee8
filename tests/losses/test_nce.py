"""NPID's noise-contrastive loss against PyTorch, the authors' epsilon and a loop."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ssljax.losses import nce, nce_log_z

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("nce")


@pytest.fixture(scope="module")
def similarities(numbers):
    return numbers["positive"], numbers["noise"]


@pytest.fixture(scope="module")
def loss(numbers):
    return partial(nce, log_z=np.log(numbers["z"]), examples=int(numbers["examples"]))


@pytest.mark.parametrize("shards", [1, 4])
def test_value_and_gradients_equal_torch(numbers, similarities, loss, value_and_gradients, shards):
    value, (dpositive, dnoise) = value_and_gradients(loss, shards, *similarities)
    close(value, numbers["nce"])
    close(dpositive, numbers["nce_dpositive"])
    close(dnoise, numbers["nce_dnoise"])


def test_the_authors_epsilon_is_all_that_differs_from_their_code(numbers, similarities, loss):
    """1e-7 in each of K + 1 denominators, which are at least K / N."""
    k, n = similarities[1].shape[1], int(numbers["examples"])
    np.testing.assert_allclose(loss(*similarities), numbers["nce_authors"], atol=(k + 1) * 1e-7 * n / k, rtol=1e-6)
    assert numbers["nce_authors"] != numbers["nce"]


def test_value_equals_the_loop(similarities):
    positive, noise = (s.astype(np.float64) for s in similarities)
    z, n, k = 700.0, 90, noise.shape[1]
    total = 0.0
    for own, others in zip(positive, noise, strict=True):
        p = np.exp(own) / z
        total -= np.log(p / (p + k / n))
        for other in others:
            p = np.exp(other) / z
            total -= np.log(k / n / (p + k / n))
    close(nce(*similarities, np.log(z), n), total / len(positive))


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_log_z_is_that_of_the_global_batch_and_may_be_kept_as_state(numbers, similarities, spread, shards):
    """`P()`: the compiler must know that all shards agree."""
    estimate = partial(nce_log_z, examples=int(numbers["examples"]), axis="data")
    close(spread(estimate, shards, P())(*similarities), np.log(numbers["z"]))
    close(nce_log_z(*similarities, int(numbers["examples"])), np.log(numbers["z"]))


def test_z_is_a_constant_to_the_gradient(similarities):
    for gradient in jax.grad(nce_log_z, argnums=(0, 1))(*similarities, 500):
        np.testing.assert_array_equal(gradient, 0.0)
    assert jax.grad(lambda log_z: nce(*similarities, log_z, 500))(3.0) == 0.0


def test_low_temperatures_do_not_overflow(similarities):
    """exp(1 / 0.005) is beyond float32, and so would be Z."""
    positive, noise = (40 * s for s in similarities)
    assert positive.max() > 100
    log_z = nce_log_z(positive, noise, 500)
    value, gradient = jax.value_and_grad(nce)(positive, noise, log_z, 500)
    assert np.isfinite(log_z) and np.isfinite(value) and np.isfinite(gradient).all()


def test_falls_as_an_example_nears_its_own_entry_and_rises_as_it_nears_the_noise(similarities, loss):
    positive, noise = similarities
    own = [float(loss(positive + nearer, noise)) for nearer in (0.0, 0.5, 1.0)]
    assert own == sorted(own, reverse=True) and len(set(own)) == 3
    others = [float(loss(positive, noise + nearer)) for nearer in (0.0, 0.5, 1.0)]
    assert others == sorted(others) and len(set(others)) == 3


def test_half_precision_inputs_are_computed_in_float32(similarities, loss):
    half = [jnp.asarray(s, jnp.bfloat16) for s in similarities]
    value = loss(*half)
    assert value.dtype == jnp.float32
    assert value == loss(*(s.astype(jnp.float32) for s in half))


@pytest.mark.parametrize("positive, noise", [((8,), (4, 20)), ((8, 1), (8, 20)), ((8,), (8,)), ((8,), (8, 0))])
def test_shapes_that_do_not_fit_are_both_named(positive, noise):
    for call in (lambda p, n: nce(p, n, 0.0, 500), lambda p, n: nce_log_z(p, n, 500)):
        with pytest.raises(ValueError) as error:
            jax.eval_shape(call, jnp.zeros(positive), jnp.zeros(noise))
        assert str(positive) in str(error.value) and str(noise) in str(error.value)


def test_other_arguments_that_make_no_sense_are_refused(similarities):
    with pytest.raises(ValueError, match="must be positive, but is 0"):
        nce(*similarities, 0.0, 0)
    with pytest.raises(ValueError, match=r"log_z \(8,\) must be a scalar"):
        nce(*similarities, similarities[0], 500)
