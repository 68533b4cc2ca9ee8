"""TS2Vec's encoder against the ts2vec package with the same weights, whatever the padding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from seeded import normal, weight

from ssljax.models.ts2vec import TSEncoder

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
encoder = TSEncoder(width=5, hidden=4, depth=3)
small = TSEncoder(width=5, hidden=4, depth=1)


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("series")


def params(find):
    """Weights, or their gradients, as the package names them: `find(name, shape)`."""

    def layer(name, shape):
        kernel = find(f"{name}.weight", shape)
        return {"kernel": np.moveaxis(kernel, (0, 1), (-1, -2)), "bias": find(f"{name}.bias", shape[:1])}

    tree = {"project": layer("input_fc", (4, 2))}
    for i in range(4):
        name, width = f"feature_extractor.net.{i}", 5 if i == 3 else 4
        tree[f"block{i}"] = {f"conv{j}": layer(f"{name}.conv{j}.conv", (width, w, 3)) for j, w in ((1, 4), (2, width))}
    project = layer("feature_extractor.net.3.projector", (5, 4, 1))
    tree["block3"]["project"] = project | {"kernel": project["kernel"][0]}
    return tree


@pytest.fixture(scope="module")
def variables(draw):
    """Of the small one."""
    return draw(small, normal("any", (1, 4, 2)))


@pytest.mark.parametrize("masked", ["all", "some"])
def test_encoder_and_its_gradients_equal_the_package(numbers, masked):
    """The series have a step of which one number is missing, and end at different times."""
    seen = numbers["encoder/seen"] if masked == "some" else None

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def gradients(params):
        output = encoder.apply({"params": params}, numbers["encoder/series"], seen)
        return jnp.sum(output * normal("sum", output.shape)), output

    found, output = gradients(params(weight))
    close(output, numbers[f"encoder/{masked}"])
    expected = params(lambda name, _: numbers[f"encoder/{masked}/d{name}"])
    jax.tree.map(partial(close, atol=1e-4), found, expected)  # sums of 40 steps


def test_as_many_parameters_as_the_package_has_by_default(numbers):
    shapes = jax.eval_shape(TSEncoder().init, jax.random.key(0), jnp.zeros((1, 8, 3)))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == numbers["encoder/parameters"]


def test_padding_changes_nothing_and_comes_out_as_zero(variables):
    """Two series, of 11 and 7 steps, padded to 12, and the second alone; what stands in the padding is nonsense."""
    apply = jax.jit(small.apply)
    series = normal("padding", (2, 12, 2))
    valid = np.arange(12) < np.array([[11], [7]])
    output = apply(variables, np.where(valid[..., None], series, 1e9), valid=valid)
    close(output[1, :7], apply(variables, series[1:, :7])[0])
    np.testing.assert_array_equal(output[~valid], 0.0)
    longer = np.pad(valid, [(0, 0), (0, 5)])
    more = apply(variables, np.pad(series, [(0, 0), (0, 5), (0, 0)], constant_values=np.nan), valid=longer)
    close(more[longer], output[valid])


def test_without_valid_steps_the_neighbours_see_the_padding(variables):
    """Which is how the package treats NaN, and why there is `valid`."""
    series = normal("padding", (1, 8, 2))
    series[:, 5:] = np.nan
    valid = np.arange(8)[None] < 5
    apply = jax.jit(small.apply)
    assert np.abs(apply(variables, series) - apply(variables, series, valid=valid))[:, :5].max() > 1e-3


def test_a_hidden_step_says_nothing_of_itself(variables):
    series = normal("hidden", (1, 9, 2))
    seen = np.arange(9)[None] != 4
    other = np.where(seen[..., None], series, 5.0)
    apply = jax.jit(small.apply)
    np.testing.assert_array_equal(apply(variables, other, seen), apply(variables, series, seen))
    assert np.abs(apply(variables, other) - apply(variables, series)).max() > 0.1


def test_missing_numbers_leave_the_gradient_finite(numbers, variables):
    gradient = jax.jit(jax.grad(lambda x: small.apply(variables, x).sum()))(numbers["encoder/series"])
    missing = np.isnan(numbers["encoder/series"]).any(axis=-1)
    assert np.isfinite(gradient).all() and missing.sum() == 5
    np.testing.assert_array_equal(gradient[missing], 0.0)


def test_dropout_is_drawn_for_each_example_and_in_training_alone(variables):
    series, keys = normal("dropout", (2, 50, 2)), jax.random.split(jax.random.key(0), 2)
    whole = jax.jit(small.apply)(variables, series, keys=keys)
    apply = jax.jit(partial(small.apply, variables, train=True))
    dropped = apply(series, keys=keys)
    gone = dropped == 0
    assert 0.05 < gone.mean() < 0.15 and not (whole == 0).any()
    close(dropped[~gone], whole[~gone] / 0.9)
    close(apply(series[::-1], keys=keys[::-1]), dropped[::-1])
    with pytest.raises(ValueError, match="dropout=0.1 in train mode needs `keys`"):
        apply(series)


def test_half_precision_is_of_computation_alone(variables):
    series = normal("half", (1, 12, 2))
    half = small.clone(dtype=jnp.bfloat16)
    rough, exact = (jax.jit(module.apply)(variables, series) for module in (half, small))
    assert rough.dtype == jnp.float32 and rough.shape == (1, 12, small.num_features)
    assert 0 < np.abs(rough - exact).max() < 0.1 * np.abs(exact).max()
    fresh = jax.eval_shape(half.init, jax.random.key(0), series)
    assert {x.dtype for x in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    "series, seen, valid",
    [((2, 9), None, None), ((2, 9, 1), (2, 8), None), ((2, 9, 1), None, (9,)), ((2, 9, 1), (2, 9, 1), (2, 9))],
)
def test_shapes_that_do_not_fit_are_named(series, seen, valid):
    masks = [None if shape is None else jnp.ones(shape, bool) for shape in (seen, valid)]
    with pytest.raises(ValueError) as error:
        jax.eval_shape(
            lambda x, seen, valid: small.init(jax.random.key(0), x, seen, valid=valid), jnp.zeros(series), *masks
        )
    assert f"series {series}" in str(error.value) and f"seen {seen} and valid {valid}" in str(error.value)


def test_the_last_step_alone_is_what_it_is_among_others(variables):
    """One of its two blocks sees neighbours in four steps, none of both in one."""
    series = normal("series", (2, 4, 2))
    series[1, 1] = np.nan
    valid = np.array([[True] * 4, [False, False, True, True]])
    for steps in (4, 1):
        options = {"valid": valid[:, -steps:], "seen": valid[:, -steps:]}
        whole = small.apply(variables, series[:, -steps:], **options)
        close(small.apply(variables, series[:, -steps:], **options, last=True), whole[:, -1:])
