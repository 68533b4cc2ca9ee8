"""ResNets against torchvision's with the same weights, with running statistics and with the batch's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seeded
from flax import traverse_util

from ssljax.models import make_encoder
from ssljax.weights import ARCHITECTURES
from ssljax.weights.rows import read, write

IMAGES = seeded.normal("images", (4, 64, 64, 3))


def torch_weights(encoder):
    """Its variables, filled with what the golden script gave to torchvision's parameters, whose names are timm's."""
    rows = ARCHITECTURES["timm_resnet"].rows(encoder)
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), IMAGES)
    blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    drawn = {name: seeded.weight(name, x.shape) for name, x in write(blank, rows).items()}
    return read(drawn, rows, shapes)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_features_and_running_statistics_equal_torchvision(golden, name):
    """All are as near to the exact ones as PyTorch's own are in float32, give or take a factor of two."""
    numbers = golden("resnet")

    def assert_near(actual, key):
        atol = 1e-5 + 2 * numbers[f"{name}.{key}.rounding"]
        np.testing.assert_allclose(actual, numbers[f"{name}.{key}"], rtol=1e-5, atol=atol)

    encoder = make_encoder(name)
    variables = torch_weights(encoder)
    assert_near(jax.jit(encoder.apply)(variables, IMAGES), "eval")
    features, changed = jax.jit(partial(encoder.apply, train=True, mutable=["batch_stats"]))(variables, IMAGES)
    assert_near(features, "train")

    after, before = (traverse_util.flatten_dict(tree["batch_stats"], sep="/") for tree in (changed, variables))
    sizes = {"stem_norm": ("bn1", 4 * 32 * 32), "stage4_block1/downsample_norm": ("layer4.0.downsample.1", 4 * 2 * 2)}
    for ours, (theirs, n) in sizes.items():
        assert_near(after[f"{ours}/mean"], f"{theirs}.running_mean")
        # PyTorch's running variance follows the unbiased variance of n values, ours the biased one.
        kept = 0.9 * before[f"{ours}/var"]
        assert_near(kept + (after[f"{ours}/var"] - kept) * n / (n - 1), f"{theirs}.running_var")


@pytest.mark.parametrize("stem, side", [("imagenet", 8), ("cifar", 32), ("small", 16)])
def test_stem_sets_the_resolution_of_the_first_stage(stem, side):
    encoder = make_encoder("resnet18", stem=stem)
    images = jnp.zeros((2, 32, 32, 3))
    _, state = jax.eval_shape(
        lambda: encoder.init_with_output(jax.random.key(0), images, capture_intermediates=True, mutable=True)
    )
    assert state["intermediates"]["stage1_block1"]["__call__"][0].shape == (2, side, side, 64)


def features(variables, images, *, train=False, **fields):
    encoder = make_encoder("resnet8", **fields)
    return jax.jit(partial(encoder.apply, train=train, mutable=["batch_stats"]))(variables, images)[0]


def test_zero_init_residual_starts_the_last_norm_of_every_branch_at_zero():
    def scales(zero):
        params = make_encoder("resnet8", zero_init_residual=zero).init(jax.random.key(0), IMAGES)["params"]
        return {path: x for path, x in traverse_util.flatten_dict(params).items() if path[-1] == "scale"}

    zero, ones = jax.jit(lambda: (scales(True), scales(False)))()
    last = {(f"stage{i}_block1", "norm2", "scale") for i in (1, 2, 3)}
    for path, scale in zero.items():
        np.testing.assert_array_equal(scale, 0.0 if path in last else 1.0)
        np.testing.assert_array_equal(ones[path], 1.0)


def test_bn_groups_reach_every_norm(draw):
    """Two groups see their halves of the batch as two batches would be seen alone."""
    images = IMAGES[:, :16, :16]
    variables = draw(make_encoder("resnet8"), images)
    halves = [features(variables, half, train=True) for half in np.split(images, 2)]
    whole = features(variables, images, train=True, bn_groups=2)
    np.testing.assert_allclose(whole, np.concatenate(halves), rtol=1e-5, atol=1e-5)


def test_an_unknown_stem_is_refused():
    with pytest.raises(ValueError, match="stem 'tiny' is unknown; use one of imagenet, cifar, small"):
        make_encoder("resnet18", stem="tiny")
