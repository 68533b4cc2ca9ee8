"""What is converted to ONNX is the encoder's function."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.models import encoders_for, make_encoder
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


@pytest.mark.parametrize("name", encoders_for("images"))
def test_encoders_take_batches_whose_size_is_not_known(name):
    """As jax2onnx calls them."""
    encoder, (n,) = make_encoder(name), jax.export.symbolic_shape("n")
    small = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(encoder.init, jax.random.key(0), small)
    features = jax.eval_shape(encoder.apply, variables, jax.ShapeDtypeStruct((n, 224, 224, 3), jnp.float32))
    assert features.shape == (n, encoder.num_features)
