"""What is converted to ONNX is the encoder's function."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.weights.graphs import _convertible


@pytest.mark.parametrize(
    "window, stride, padding", [((3, 3), (2, 2), ((1, 1), (1, 1))), ((2, 3), (1, 3), ((0, 1), (2, 0)))]
)
def test_pools_are_taken_apart(window, stride, padding):
    x = jnp.asarray(np.random.RandomState(0).standard_normal((2, 7, 8, 3)), jnp.float32) - 5.0

    def pooled(x):
        return nn.max_pool(x, window, stride, padding)

    convertible = _convertible(pooled, {"x": jax.ShapeDtypeStruct(x.shape, x.dtype)})
    assert "reduce_window" not in str(jax.make_jaxpr(convertible)(x))
    np.testing.assert_array_equal(convertible(x), pooled(x))
