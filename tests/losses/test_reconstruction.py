"""MAE's and VideoMAE's losses against Hugging Face and a loop, on one device and on four; and patches and tubelets, in
their order of pixels."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from seeded import normal

from ssljax.losses import mae_loss, patchify, tubify, unpatchify, untubify, videomae_loss
from ssljax.losses.reconstruction import patch_statistics, tubelet_statistics

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


# VideoMAE -------------------------------------------------------------------------------------------------------------

TUBELET = 2


@pytest.fixture(scope="module")
def video(golden):
    """(videos, prediction, indexes of hidden tubelets), and what the losses must be."""
    numbers = golden("videomae")
    hidden = np.nonzero(numbers["mask"])[1].reshape(len(numbers["mask"]), -1)
    return (numbers["videos"], normal("prediction", numbers["logits"].shape), hidden), numbers


def videomae_loop(videos, prediction, hidden, norm_pix):
    """Tubelet by tubelet, in the order of slot, row and column."""
    errors = []
    _, _, height, width, _ = videos.shape
    per_slot, columns = height * width // PATCH**2, width // PATCH
    for clip, predicted, indexes in zip(videos.astype(np.float64), prediction, hidden, strict=True):
        for p, i in zip(predicted, indexes, strict=True):
            slot, place = divmod(i, per_slot)
            t, top, left = TUBELET * slot, PATCH * (place // columns), PATCH * (place % columns)
            target = clip[t : t + TUBELET, top : top + PATCH, left : left + PATCH]
            if norm_pix:
                pixels = target.reshape(-1, target.shape[-1])
                target = (target - pixels.mean(axis=0)) / (pixels.std(axis=0, ddof=1) + 1e-6)
            errors.append(np.mean((p - target.reshape(-1)) ** 2))
    return np.mean(errors)


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("norm_pix, name", [(False, "pixels"), (True, "norm_pix")])
def test_videomae_loss_and_its_gradient_equal_hugging_face(video, spread, norm_pix, name, shards):
    inputs, numbers = video

    def on_a_shard(videos, prediction, hidden):
        def loss(prediction):
            value = videomae_loss(videos, prediction, hidden, TUBELET, PATCH, norm_pix=norm_pix)
            return jax.lax.pmean(value, "data")

        return jax.value_and_grad(loss)(prediction)

    value, gradient = spread(on_a_shard, shards, (P(), P("data")))(*inputs)
    close(value, numbers[f"given.{name}"])
    close(gradient, numbers[f"given.{name}.gradient"])


@pytest.mark.parametrize("norm_pix", [False, True])
def test_videomae_loss_equals_the_loop_in_any_order_and_shape(norm_pix):
    random = np.random.RandomState(0)
    videos = random.uniform(size=(2, 4, 4, 8, 3)).astype(np.float32)
    hidden = np.array([[3, 0], [1, 2]])
    prediction = random.standard_normal((2, 2, 96)).astype(np.float32)
    value = videomae_loss(videos, prediction, hidden, TUBELET, PATCH, norm_pix=norm_pix)
    close(value, videomae_loop(videos, prediction, hidden, norm_pix))


def test_videomae_loss_falls_to_nothing_as_the_prediction_approaches_the_target(video):
    (videos, prediction, hidden), _ = video
    tubelets = np.take_along_axis(np.asarray(tubify(videos, TUBELET, PATCH)), hidden[:, :, None], axis=1)
    mean, std = tubelet_statistics(tubelets, 3)
    goal = (tubelets - mean) / std
    values = [
        float(videomae_loss(videos, goal + far * (prediction - goal), hidden, TUBELET, PATCH)) for far in (1, 0.5, 0.1)
    ]
    assert values == sorted(values, reverse=True) and values[0] > 10 * values[-1]
    assert videomae_loss(videos, goal, hidden, TUBELET, PATCH) < 1e-12


def test_videomae_loss_compares_half_precision_in_float32_and_flat_tubelets_finitely(video):
    (videos, prediction, hidden), _ = video
    halves = [jnp.asarray(x, jnp.bfloat16) for x in (videos, prediction)]
    value = videomae_loss(*halves, hidden, TUBELET, PATCH)
    assert value.dtype == jnp.float32
    assert value == videomae_loss(*(x.astype(jnp.float32) for x in halves), hidden, TUBELET, PATCH)
    flat = jax.grad(lambda v, p: videomae_loss(v, p, hidden, TUBELET, PATCH), argnums=(0, 1))
    for gradient in flat(np.ones_like(videos), prediction):
        assert np.isfinite(gradient).all()


def test_untubify_undoes_tubify_on_videos_that_are_not_square():
    videos = np.random.RandomState(0).uniform(size=(2, 6, 8, 12, 3)).astype(np.float32)
    tubelets = tubify(videos, TUBELET, PATCH)
    assert tubelets.shape == (2, 18, 96)
    np.testing.assert_array_equal(tubelets[1, 10], videos[1, 2:4, 4:8, 4:8].reshape(-1))
    np.testing.assert_array_equal(untubify(tubelets, TUBELET, PATCH, grid=(3, 2, 3)), videos)


def test_videos_and_tubelets_that_do_not_fit_are_named():
    for shape in ((2, 5, 8, 8, 3), (2, 6, 6, 8, 3), (2, 6, 8, 6, 3), (6, 8, 8, 3)):
        with pytest.raises(ValueError) as error:
            tubify(jnp.zeros(shape), TUBELET, PATCH)
        assert f"videos {shape} must be (batch, frames, height, width, channels)" in str(error.value)
    for shape in ((2, 18, 95), (2, 17, 96), (18, 96)):
        with pytest.raises(ValueError) as error:
            untubify(jnp.zeros(shape), TUBELET, PATCH, (3, 2, 3))
        assert f"tubelets {shape} must be (batch, 3 * 2 * 3, 2 * 4 * 4 * channels)" in str(error.value)


@pytest.mark.parametrize(
    "prediction, hidden, kind",
    [((2, 3, 95), (2, 3), int), ((2, 3, 96), (2, 4), int), ((2, 3, 96), (3,), int), ((2, 3, 96), (2, 3), float)],
)
def test_videomae_loss_names_what_does_not_fit(prediction, hidden, kind):
    with pytest.raises(ValueError) as error:
        videomae_loss(np.zeros((2, 4, 4, 8, 3)), np.zeros(prediction), np.zeros(hidden, kind), TUBELET, PATCH)
    assert "4 tubelets of 96 numbers need hidden (2, K), integers" in str(error.value)
    assert str(prediction) in str(error.value) and str(hidden) in str(error.value)


def test_videomae_loss_refuses_tubelets_of_one_pixel():
    with pytest.raises(ValueError, match="more than one pixel"):
        videomae_loss(np.zeros((1, 2, 2, 2, 3)), np.zeros((1, 1, 3)), np.zeros((1, 1), int), 1, 1)
