"""The MLP on an encoder: which of its layers have a bias, a norm, a scale, an offset."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from ssljax.models.heads import MLP

X = np.random.RandomState(0).normal(2.0, 3.0, (32, 6)).astype(np.float32)


def names(head):
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), X, train=True))
    return set(traverse_util.flatten_dict(shapes["params"], sep="/"))


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"last_norm": "none"}, {"dense1/kernel", "norm1/scale", "norm1/bias", "dense2/kernel", "dense2/bias"}),
        ({"last_norm": "scale"}, {"dense1/kernel", "norm1/scale", "norm1/bias", "dense2/kernel", "norm2/scale"}),
        ({"last_norm": "plain"}, {"dense1/kernel", "norm1/scale", "norm1/bias", "dense2/kernel"}),
        ({"norm": False}, {"dense1/kernel", "dense1/bias", "dense2/kernel", "dense2/bias"}),
    ],
)
def test_parameters_are_the_papers(options, expected):
    """BYOL and SimSiam's predictor; SimCLR; MoCo v3; MoCo v2."""
    assert names(MLP((5, 4), **options)) == expected


@pytest.mark.parametrize("norm", [False, True])
def test_output_equals_the_formula(draw, norm):
    head = MLP((5, 4), norm=norm, last_norm="scale" if norm else "none")
    variables = draw(head, X, train=True)
    params = traverse_util.flatten_dict(variables["params"], sep="/")
    y, _ = head.apply(variables, X, train=True, mutable=["batch_stats"])

    def layer(i, x):
        x = x @ params[f"dense{i}/kernel"].astype(np.float64) + params.get(f"dense{i}/bias", 0.0)
        if norm:
            x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * params[f"norm{i}/scale"] + params.get(f"norm{i}/bias", 0.0)
        return x

    np.testing.assert_allclose(y, layer(2, np.maximum(layer(1, X), 0)), rtol=1e-5, atol=1e-5)


def test_kernels_start_as_in_pytorch():
    """Uniform in ±1 / √fan-in: the bound is reached and not passed, and the variance is a third of its square."""
    kernel = MLP((500, 4)).init(jax.random.key(0), X, train=True)["params"]["dense1"]["kernel"]
    bound = 1 / np.sqrt(6)
    assert 0.98 * bound < np.abs(kernel).max() <= bound
    assert abs(kernel.var() / (bound**2 / 3) - 1) < 0.05
