"""What evaluators ask of methods for images besides features: the last blocks, and features of several views."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.build import build_method
from ssljax.collectives import example_keys
from ssljax.models import infer

DEEPER = {"name": "vit_micro", "channels": None, "width": 16, "depth": 3, "heads": 2}


@pytest.fixture
def prepared(load_small, batches):
    """`prepared(name, encoder)`: a method, and variables of which target and online network differ."""

    def make(name, encoder):
        config = load_small(name)
        config.encoder.update(encoder)
        method = build_method(config, 5, examples=80)
        state = jax.jit(method.init)(jax.random.key(0), batches[0])
        return method, state.replace(target=jax.tree.map(lambda x: 1.1 * x, state.target))

    return make


@pytest.mark.parametrize("name", ["simclr", "dino", "ijepa"])
def test_the_last_blocks_are_those_of_the_encoder_that_is_evaluated(name, prepared, batches):
    method, state = prepared(name, DEEPER)
    features = jax.jit(method.features)(state, batches[0])
    one, two, whole = (
        method.last_blocks(state, batches[0], count, patches=patches)
        for count, patches in ((1, False), (2, False), (2, True))
    )
    np.testing.assert_allclose(one, features, rtol=1e-4, atol=1e-5)
    assert two.shape == (16, 32) and whole.shape == (16, 48)
    np.testing.assert_array_equal(two[:, 16:], one)
    tokens = infer(method.encoder, *method.evaluated(state), method.eval_view(batches[0]), method="tokens")
    np.testing.assert_array_equal(whole[:, :32], two)
    np.testing.assert_allclose(whole[:, 32:], tokens[:, method.encoder.num_prefix :].mean(axis=1), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="the last 4 blocks were asked for, but there are 3"):
        method.last_blocks(state, batches[0], 4)


def test_other_encoders_have_no_last_blocks(prepared, batches):
    method, state = prepared("simclr", {})
    with pytest.raises(ValueError, match="is of a Vision Transformer"):
        method.last_blocks(state, batches[0], 1)


@pytest.mark.parametrize("name", ["simclr", "dino"])
def test_views_of_one_image_differ_and_those_of_another_more(name, prepared, batches):
    method, state = prepared(name, {})
    keys = example_keys(jax.random.key(1), 16)
    views = jax.jit(method.view_features, static_argnums=3)(state, batches[0], keys, 3)
    assert views.shape == (16, 3, method.encoder.num_features) and views.dtype == jnp.float32
    again = method.view_features(state, {"image": batches[0]["image"][:4]}, keys[:4], 3)
    np.testing.assert_allclose(views[:4], again, rtol=1e-3, atol=1e-4)
    of_one = np.asarray(views - views.mean(axis=1, keepdims=True)).std()
    assert 0 < of_one < np.asarray(views - views.mean(axis=(0, 1))).std()
