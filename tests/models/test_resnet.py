"""ResNets against torchvision's with the same weights, with running statistics and with the batch's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seeded
from flax import traverse_util

from ssljax.models import make_encoder

IMAGES = seeded.normal("images", (4, 64, 64, 3))
PARTS = {
    ("params", "kernel"): "weight", ("params", "scale"): "weight", ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean", ("batch_stats", "var"): "running_var",
}  # fmt: skip


def torch_name(path: tuple[str, ...]) -> str:
    """("params", "stage2_block1", "norm3", "scale") is what torchvision calls layer2.0.bn3.weight."""
    collection, *modules, part = path
    if modules[0].startswith("stem"):
        module = {"stem": "conv1", "stem_norm": "bn1"}[modules[0]]
    else:
        stage, block = modules[0].removeprefix("stage").split("_block")
        inner = {"downsample": "downsample.0", "downsample_norm": "downsample.1"}.get(modules[1], modules[1])
        module = f"layer{stage}.{int(block) - 1}.{inner.replace('norm', 'bn')}"
    return f"{module}.{PARTS[collection, part]}"


def torch_weights(variables):
    """Variables of the same shapes, filled with what the golden script gave to torchvision's parameters."""

    def fill(path, leaf):
        shape = leaf.shape[::-1][:2] + leaf.shape[:2] if leaf.ndim == 4 else leaf.shape
        value = seeded.weight(torch_name(path), shape)
        return value.transpose(2, 3, 1, 0) if leaf.ndim == 4 else value

    return traverse_util.path_aware_map(fill, variables)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_features_and_running_statistics_equal_torchvision(golden, name):
    """Features are as near to the exact ones as PyTorch's own are in float32, give or take a factor of two."""
    numbers = golden("resnet")
    encoder = make_encoder(name)
    variables = torch_weights(jax.eval_shape(encoder.init, jax.random.key(0), IMAGES))

    features = jax.jit(encoder.apply)(variables, IMAGES)
    assert np.abs(features - numbers[f"{name}_eval"]).max() <= 2 * numbers[f"{name}_eval_rounding"]

    features, changed = jax.jit(partial(encoder.apply, train=True, mutable=["batch_stats"]))(variables, IMAGES)
    assert np.abs(features - numbers[f"{name}_train"]).max() <= 2 * numbers[f"{name}_train_rounding"]

    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    after, before = (traverse_util.flatten_dict(tree["batch_stats"], sep="/") for tree in (changed, variables))
    sizes = {"stem_norm": ("bn1", 4 * 32 * 32), "stage4_block1/downsample_norm": ("layer4.0.downsample.1", 4 * 2 * 2)}
    for ours, (theirs, n) in sizes.items():
        close(after[f"{ours}/mean"], numbers[f"{name}.{theirs}.running_mean"])
        # PyTorch's running variance follows the unbiased variance of n values, ours the biased one.
        kept = 0.9 * before[f"{ours}/var"]
        close(kept + (after[f"{ours}/var"] - kept) * n / (n - 1), numbers[f"{name}.{theirs}.running_var"])


@pytest.mark.parametrize("stem, side", [("imagenet", 8), ("cifar", 32), ("small", 16)])
def test_stem_sets_the_resolution_of_the_first_stage(stem, side):
    encoder = make_encoder("resnet18", stem=stem)
    images = jnp.zeros((2, 32, 32, 3))
    _, state = jax.eval_shape(
        lambda: encoder.init_with_output(jax.random.key(0), images, capture_intermediates=True, mutable=True)
    )
    assert state["intermediates"]["stage1_block1"]["__call__"][0].shape == (2, side, side, 64)


def test_zero_init_residual_makes_every_block_without_shortcut_convolution_the_identity():
    """With the last norm of each branch at zero, only the stem and the shortcuts are left, whatever the branches hold."""
    encoder = make_encoder("resnet8", zero_init_residual=True)
    images = jnp.asarray(IMAGES[:, :16, :16])
    variables = encoder.init(jax.random.key(0), images)

    def disturb(path, leaf):
        return leaf + 1.0 if path[-2] in ("conv1", "conv2") else leaf

    disturbed = traverse_util.path_aware_map(disturb, variables)
    np.testing.assert_array_equal(encoder.apply(disturbed, images), encoder.apply(variables, images))
    plain = make_encoder("resnet8")
    variables = plain.init(jax.random.key(0), images)
    assert jnp.abs(plain.apply(traverse_util.path_aware_map(disturb, variables), images) - plain.apply(variables, images)).max() > 0.1


def test_bn_groups_reach_every_norm():
    """Two groups see their halves of the batch as two batches would be seen alone."""
    encoder = make_encoder("resnet8", bn_groups=2)
    images = IMAGES[:, :16, :16]
    variables = encoder.init(jax.random.key(0), images)
    whole, _ = encoder.apply(variables, images, train=True, mutable=["batch_stats"])
    alone = make_encoder("resnet8")
    halves = [alone.apply(variables, half, train=True, mutable=["batch_stats"])[0] for half in np.split(images, 2)]
    np.testing.assert_allclose(whole, np.concatenate(halves), rtol=1e-5, atol=1e-5)


def test_an_unknown_stem_is_refused():
    with pytest.raises(ValueError, match="stem 'tiny' is unknown; use one of imagenet, cifar, small"):
        make_encoder("resnet18", stem="tiny")
