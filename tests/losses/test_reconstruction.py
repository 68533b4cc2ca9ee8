"""The MAE loss against Hugging Face and a loop, on one device and on four; and patches, in MAE's order of pixels."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.losses import mae_loss, patchify, unpatchify
from ssljax.losses.reconstruction import patch_statistics

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
PATCH = 4


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("mae_loss")


def mae_loop(images, prediction, mask, norm_pix):
    """Patch by patch, in row-major order; a patch's pixels in (row, column, channel) order."""
    errors = []
    columns = images.shape[2] // PATCH
    for image, predicted, hidden in zip(images.astype(np.float64), prediction, mask, strict=True):
        for p in np.flatnonzero(hidden):
            top, left = PATCH * (p // columns), PATCH * (p % columns)
            target = image[top : top + PATCH, left : left + PATCH].reshape(-1)
            if norm_pix:
                target = (target - target.mean()) / np.sqrt(target.var(ddof=1) + 1e-6)
            errors.append(np.mean((predicted[p] - target) ** 2))
    return np.mean(errors)


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("norm_pix, name", [(False, "pixels"), (True, "norm_pix")])
def test_mae_loss_and_its_gradient_equal_hugging_face(numbers, value_and_gradients, norm_pix, name, shards):
    def loss(images, prediction, mask):
        return mae_loss(images, prediction, mask, PATCH, norm_pix=norm_pix)

    arrays = numbers["images"], numbers["prediction"], numbers["mask"]
    value, (_, gradient, _) = value_and_gradients(loss, shards, *arrays)
    close(value, numbers[name])
    close(gradient, numbers[f"{name}_gradient"])


@pytest.mark.parametrize("norm_pix", [False, True])
def test_mae_loss_equals_the_loop_where_examples_hide_unequal_counts(numbers, norm_pix):
    mask = numbers["mask"].copy()
    mask[0, :6] = 0.0
    value = mae_loss(numbers["images"], numbers["prediction"], mask, PATCH, norm_pix=norm_pix)
    close(value, mae_loop(numbers["images"], numbers["prediction"], mask, norm_pix))


def test_visible_patches_do_not_count(numbers):
    images, prediction, mask = numbers["images"], numbers["prediction"], numbers["mask"]
    other = np.where(mask[..., None] == 0, prediction + 100.0, prediction)
    assert mae_loss(images, other, mask, PATCH) == mae_loss(images, prediction, mask, PATCH)


def test_falls_to_nothing_as_the_prediction_approaches_the_target(numbers):
    images, mask = numbers["images"], numbers["mask"]
    target = patchify(images, PATCH)
    mean, std = patch_statistics(target)
    for norm_pix, goal in ((False, target), (True, (target - mean) / std)):
        away = numbers["prediction"] - goal
        values = [float(mae_loss(images, goal + far * away, mask, PATCH, norm_pix=norm_pix)) for far in (1.0, 0.5, 0.1)]
        assert values == sorted(values, reverse=True) and values[0] > 10 * values[-1]
        assert mae_loss(images, goal, mask, PATCH, norm_pix=norm_pix) < 1e-12


def test_half_precision_inputs_are_compared_in_float32(numbers):
    halves = [jnp.asarray(numbers[name], jnp.bfloat16) for name in ("images", "prediction", "mask")]
    value = mae_loss(*halves, PATCH)
    assert value.dtype == jnp.float32
    assert value == mae_loss(*(x.astype(jnp.float32) for x in halves), PATCH)


def test_a_flat_patch_has_finite_loss_and_gradient(numbers):
    flat = np.ones_like(numbers["images"])
    value, gradient = jax.value_and_grad(lambda p: mae_loss(flat, p, numbers["mask"], PATCH))(numbers["prediction"])
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_unpatchify_undoes_patchify_on_images_that_are_not_square():
    images = np.random.RandomState(0).uniform(size=(2, 8, 12, 3)).astype(np.float32)
    patches = patchify(images, PATCH)
    assert patches.shape == (2, 6, 48)
    np.testing.assert_array_equal(patches[1, 4], images[1, 4:8, 4:8].reshape(-1))
    np.testing.assert_array_equal(unpatchify(patches, PATCH, grid=(2, 3)), images)


@pytest.mark.parametrize("shape, grid", [((2, 6, 48), (2, 4)), ((2, 6, 47), (2, 3)), ((6, 48), (2, 3))])
def test_patches_that_do_not_fit_a_grid_are_named(shape, grid):
    with pytest.raises(ValueError) as error:
        unpatchify(jnp.zeros(shape), PATCH, grid)
    assert f"patches {shape} must be (batch, {grid[0]} * {grid[1]}, 4 * 4 * channels)" in str(error.value)


@pytest.mark.parametrize("shape", [(2, 10, 8, 3), (2, 8, 10, 3), (8, 8, 3)])
def test_images_that_patches_do_not_tile_are_named(shape):
    with pytest.raises(ValueError) as error:
        patchify(jnp.zeros(shape), PATCH)
    assert str(shape) in str(error.value)


@pytest.mark.parametrize(
    "prediction, mask", [((2, 4, 47), (2, 4)), ((1, 4, 48), (2, 4)), ((2, 4, 48), (2, 5)), ((2, 4, 48), (4,))]
)
def test_shapes_that_do_not_fit_are_named(prediction, mask):
    with pytest.raises(ValueError) as error:
        jax.eval_shape(partial(mae_loss, patch=PATCH), *(jnp.zeros(s) for s in ((2, 8, 8, 3), prediction, mask)))
    assert all(str(s) in str(error.value) for s in ((2, 8, 8, 3), (2, 4, 48), (2, 4), prediction, mask))


def test_a_mask_that_hides_nothing_and_patches_of_one_number_are_refused():
    images, prediction = np.zeros((1, 4, 4, 1), np.float32), np.zeros((1, 16, 1), np.float32)
    with pytest.raises(ValueError, match="hides no patch"):
        mae_loss(images, prediction, np.zeros((1, 16)), 1, norm_pix=False)
    with pytest.raises(ValueError, match="more than one number"):
        mae_loss(images, prediction, np.ones((1, 16)), 1)
