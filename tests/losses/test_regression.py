"""Smooth L1, LayerNorm without scale and data2vec's target against PyTorch and loops, on one device and on four."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.losses import data2vec_target, instance_norm, layer_norm, smooth_l1

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("regression")


def smooth_l1_loop(prediction, target, beta):
    errors = []
    for x, y in zip(prediction.flatten().astype(np.float64), target.flatten(), strict=True):
        d = abs(x - y)
        errors.append(d * d / (2 * beta) if d < beta else d - beta / 2)
    return np.mean(errors)


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("rows", ["all", "masked"])
def test_smooth_l1_and_its_gradient_equal_torch(numbers, value_and_gradients, rows, beta, shards):
    """The shards have unequal numbers of masked rows."""

    def loss(prediction, target, mask):
        weights = mask if rows == "masked" else None
        return smooth_l1(prediction, target, beta=beta, weights=weights, axis="data")

    mask = numbers["mask"].astype(np.float32)
    assert len(set(mask.reshape(4, -1).sum(axis=1))) > 1
    value, (gradient, of_target, _) = value_and_gradients(loss, shards, numbers["prediction"], numbers["target"], mask)
    close(value, numbers[f"smooth_l1_{beta}_{rows}"])
    close(gradient, numbers[f"smooth_l1_{beta}_{rows}_gradient"])
    np.testing.assert_array_equal(of_target, 0.0)


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_smooth_l1_equals_the_loop(numbers, beta):
    prediction, target = numbers["prediction"], numbers["target"]
    close(smooth_l1(prediction, target, beta=beta), smooth_l1_loop(prediction, target, beta))


def test_rows_of_weight_zero_do_not_count(numbers):
    prediction, target, mask = numbers["prediction"], numbers["target"], numbers["mask"]
    other = np.where(mask[..., None], prediction, prediction + 100.0)
    assert smooth_l1(other, target, weights=mask) == smooth_l1(prediction, target, weights=mask)


def test_without_a_row_that_counts_the_loss_is_zero(numbers, value_and_gradients):
    loss = partial(smooth_l1, axis="data")
    arrays = numbers["prediction"], numbers["target"], np.zeros_like(numbers["mask"], np.float32)
    value, (gradient, _, _) = value_and_gradients(lambda x, y, w: loss(x, y, weights=w), 2, *arrays)
    assert value == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_falls_to_nothing_as_the_prediction_reaches_the_target_and_its_gradient_stays_finite(numbers, beta):
    prediction, target = numbers["prediction"], numbers["target"]
    loss = partial(smooth_l1, target=target, beta=beta)
    values = [float(loss((1 - pull) * prediction + pull * target)) for pull in (0.0, 0.3, 0.6)]
    assert values == sorted(values, reverse=True) and len(set(values)) == 3
    value, gradient = jax.value_and_grad(loss)(target)
    assert value == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


def test_layer_norm_equals_torch(numbers):
    """One of the blocks is so small that epsilon shows."""
    close(layer_norm(numbers["layers"]), numbers["layer_norm"])


def test_layer_norm_of_equal_numbers_is_zero_with_a_finite_gradient():
    x = jnp.full((2, 8), 3.0)
    np.testing.assert_array_equal(layer_norm(x), 0.0)
    assert np.isfinite(jax.grad(lambda x: layer_norm(x)[0, 0])(x)).all()


def test_instance_norm_equals_torch_and_takes_out_what_tokens_share(numbers):
    layers = numbers["layers"]
    close(instance_norm(layers), numbers["instance_norm"])
    close(instance_norm(layers[0] + 3.0), instance_norm(layers[0]), atol=1e-5)


@pytest.mark.parametrize("norm, name", [("layer", "data2vec_target"), ("instance", "data2vec_instance_target")])
def test_data2vec_target_equals_torch_and_gets_no_gradient(norm, name, numbers):
    layers, target = numbers["layers"], partial(data2vec_target, norm=norm)
    close(target(layers), numbers[name])
    close(target(list(layers)), numbers[name])
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.sum(target(x) ** 3))(layers), 0.0)


def test_data2vec_target_equals_the_loop(numbers):
    layers = numbers["layers"].astype(np.float64)
    normed = np.zeros_like(layers)
    for place in np.ndindex(*layers.shape[:-1]):
        normed[place] = (layers[place] - layers[place].mean()) / np.sqrt(layers[place].var() + 1e-5)
    for place in np.ndindex(*layers.shape[1:-1]):
        average = normed[(slice(None), *place)].mean(axis=0)
        close(data2vec_target(layers)[place], (average - average.mean()) / np.sqrt(average.var() + 1e-5))


def test_blocks_weigh_the_same_whatever_their_scale(numbers):
    """Without the first norm, the largest block alone would be the target."""
    layers = numbers["layers"].copy()
    target = data2vec_target(layers)
    layers[1] *= 1e3
    close(data2vec_target(layers), target, atol=1e-5)


def test_half_precision_inputs_are_computed_in_float32(numbers):
    x, y, layers = (jnp.asarray(numbers[name], jnp.bfloat16) for name in ("prediction", "target", "layers"))
    for f, arrays in ((smooth_l1, (x, y)), (layer_norm, (x,)), (instance_norm, (x,)), (data2vec_target, (layers,))):
        value = f(*arrays)
        assert value.dtype == jnp.float32
        np.testing.assert_array_equal(value, f(*(a.astype(jnp.float32) for a in arrays)))


def test_arguments_that_make_no_sense_are_refused():
    x = jnp.ones((4, 3))
    with pytest.raises(ValueError, match=r"prediction \(4, 3\) and target \(4, 1\)"):
        smooth_l1(x, x[:, :1])
    with pytest.raises(ValueError, match=r"prediction \(0, 3\) and target \(0, 3\) must be equal, and not empty"):
        smooth_l1(x[:0], x[:0])
    with pytest.raises(ValueError, match=r"prediction \(4, 3\) must be .* weights \(3,\)"):
        smooth_l1(x, x, weights=jnp.ones(3))
    with pytest.raises(ValueError, match="beta must not be negative, but is -1"):
        smooth_l1(x, x, beta=-1)
    with pytest.raises(ValueError, match="at least one block"):
        data2vec_target([])
    with pytest.raises(ValueError, match=r"equal shapes, but are \[\(4, 3\), \(3,\)\]"):
        data2vec_target([x, x[0]])
    with pytest.raises(ValueError, match="norm 'batch' is unknown; use layer or instance"):
        data2vec_target([x], norm="batch")
    with pytest.raises(ValueError, match=r"x \(\) must be \(…, dim\)"):
        layer_norm(1.0)
    with pytest.raises(ValueError, match=r"x \(3,\) must be \(…, tokens, dim\)"):
        instance_norm(x[0])
