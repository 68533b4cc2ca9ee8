"""The encoder of tables: numbers as they are, categories one-hot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.models.mlp import TableMLP, expand

VALUES = np.array([[0.5, 2, -1.0], [3.0, 0, 4.0]], np.float32)


def test_expand():
    expected = [[0.5, 0, 0, 1, -1.0], [3.0, 1, 0, 0, 4.0]]
    np.testing.assert_array_equal(expand(jnp.asarray(VALUES), (0, 3, 0)), expected)


def test_it_is_a_stack_of_dense_layers_with_relu_after_each():
    encoder = TableMLP(width=4, depth=2, cardinalities=(0, 3, 0))
    features, variables = encoder.init_with_output(jax.random.key(0), VALUES)
    x = np.asarray(expand(jnp.asarray(VALUES), (0, 3, 0)))
    for layer in (1, 2):
        dense = variables["params"][f"dense{layer}"]
        x = np.maximum(x @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"]), 0)
    np.testing.assert_allclose(features, x, rtol=1e-5, atol=1e-6)
    assert features.dtype == jnp.float32 and encoder.num_features == 4


def test_half_precision_gives_float32():
    encoder = TableMLP(width=4, depth=1, cardinalities=(0, 3, 0), dtype=jnp.bfloat16)
    features, variables = encoder.init_with_output(jax.random.key(0), VALUES)
    assert features.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_columns_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"values \(2, 3\) must be \(batch, 2\)"):
        TableMLP(cardinalities=(0, 3)).init(jax.random.key(0), VALUES)
