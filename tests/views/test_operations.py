"""The deterministic core of every image operation: torchvision's numbers, and Pillow's to within its eight bits."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from ssljax.views import images as ops
from ssljax.views import recipes

close = np.testing.assert_allclose
FACTORS, SHIFTS = (0.3, 1.0, 1.7), (-0.4, -0.1, 0.0, 0.2, 0.5)
BLURS = ((3, 0.1), (3, 2.0), (9, 0.7), (9, 1.6))


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("image_ops")


@pytest.fixture(scope="module")
def image(numbers):
    return ops.as_float(jnp.asarray(numbers["image"]))


def one(operation, image, *args):
    """The operation on a batch of this image upside down and this image; the second is returned."""
    batch = ops.as_planes(jnp.stack([image[::-1], image]))
    return ops.as_images(operation(batch, *(jnp.full(2, arg) for arg in args)))[1]


def crop(image, box, mode):
    boxes = jnp.stack([jnp.array([0, 0, 4, 4]), jnp.asarray(box[:4])])
    return ops.crop_and_resize(jnp.stack([image[::-1], image]), boxes, int(box[4]), mode)[1]


# torchvision ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["up", "down", "mixed"])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_crop_and_resize_equals_torchvision(numbers, image, mode, name):
    """Antialiased; bicubic overshoots, which torchvision leaves and we clip."""
    expected = numbers[f"crop_{name}_{mode}"].clip(0, 1)
    close(crop(image, numbers[f"box_{name}"], mode), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "operation, arg",
    [(name, f) for name in ("brightness", "contrast", "saturation") for f in FACTORS] + [("hue", s) for s in SHIFTS],
)
def test_colour_operation_equals_torchvision(numbers, image, operation, arg):
    close(
        one(getattr(ops, {"hue": "shift_hue"}.get(operation, operation)), image, arg),
        numbers[f"{operation}_{arg}"],
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("operation", ["greyscale", "solarize"])
def test_operation_without_argument_equals_torchvision(numbers, image, operation):
    close(
        one(getattr(ops, {"hue": "shift_hue"}.get(operation, operation)), image),
        numbers[operation],
        rtol=1e-5,
        atol=1e-6,
    )


def test_flip_equals_torchvision(numbers, image):
    square, box = image[None, :20], jnp.array([[0, 0, 20, 20]])
    flipped = ops.crop_to_planes(square, box, 20, flipped=jnp.array([True]))
    close(ops.as_images(flipped)[0], numbers["flip"][:20], atol=1e-6)


@pytest.mark.parametrize("window, sigma", BLURS)
def test_gaussian_blur_equals_torchvision(numbers, image, window, sigma):
    blurred = one(lambda x, s: ops.gaussian_blur(x, s, window), image, sigma)
    close(blurred, numbers[f"blur_{window}_{sigma}"], rtol=1e-5, atol=1e-5)


# Pillow, which rounds to eight bits after every pass ------------------------------------------------------------------


def eight_bits(image, pillow, levels):
    """Nowhere more than so many of the 255 levels apart."""
    assert np.abs(np.asarray(image) * 255 - np.asarray(pillow, np.float32)).max() <= levels


@pytest.mark.parametrize("name", ["up", "down", "mixed"])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_crop_and_resize_equals_pillow(numbers, image, mode, name):
    top, left, height, width, size = (int(n) for n in numbers[f"box_{name}"])
    cropped = Image.fromarray(numbers["image"]).crop((left, top, left + width, top + height))
    filter_ = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[mode]
    eight_bits(crop(image, numbers[f"box_{name}"], mode), cropped.resize((size, size), filter_), levels=1.1)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
    "operation, enhance",
    [("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color)],
)
def test_colour_operation_equals_pillow(numbers, image, operation, enhance, factor):
    """Pillow rounds the grey image (or its mean) that it blends with, by half a level, and the blend by up to one."""
    expected = enhance(Image.fromarray(numbers["image"])).enhance(factor)
    eight_bits(
        one(getattr(ops, {"hue": "shift_hue"}.get(operation, operation)), image, factor),
        expected,
        levels=1 + 0.5 * abs(1 - factor) + 0.1,
    )


def test_greyscale_and_solarize_equal_pillow(numbers, image):
    picture = Image.fromarray(numbers["image"])
    eight_bits(one(ops.greyscale, image), picture.convert("L").convert("RGB"), levels=0.6)
    eight_bits(one(ops.solarize, image), ImageOps.solarize(picture, 128), levels=1e-3)


# Properties -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_the_whole_image_at_its_own_size_is_itself(mode):
    square = jnp.asarray(np.random.RandomState(0).uniform(size=(1, 9, 9, 3)), jnp.float32)
    close(ops.crop_and_resize(square, jnp.array([[0, 0, 9, 9]]), 9, mode), square, atol=1e-6)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size, size_in", [(224, 256), (96, 256), (128, 200)])
def test_lines_made_in_blocks_are_those_of_the_whole_matrix(mode, size, size_in):
    """Of boxes at the edges, in the middle, of few pixels, and of all."""
    images = jnp.asarray(np.random.RandomState(0).uniform(size=(5, size_in, 3, 2)), jnp.float32)
    start = jnp.array([0.0, size_in - 30.0, 20.3, 77.0, 0.0])
    extent = jnp.array([25.0, 30.0, 140.7, 2.0, float(size_in)])
    matrix = jax.vmap(lambda a, b: ops.resize_matrix(a, b, size_in, size, mode))(start, extent)
    expected = jnp.einsum("boh,bhwc->bowc", matrix, images, precision="highest")
    resize = jax.jit(lambda *given: ops.resize_lines(*given, ops.REACH[mode]))
    close(resize(matrix, images), expected, rtol=1e-5, atol=1e-6)
    (product,) = re.findall(r"dot_general.*-> tensor<(.*)xf32>", resize.lower(matrix, images).as_text())
    assert product.startswith(f"5x{size // ops.BLOCK}x"), "not in blocks"


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_pixels_outside_the_crop_have_no_influence(image, mode):
    box = np.array([4, 5, 10, 12, 6])
    outside = jnp.ones_like(image).at[4:14, 5:17].set(image[4:14, 5:17])
    np.testing.assert_array_equal(crop(outside, box, mode), crop(image, box, mode))


def test_hue_turned_full_circle_and_grey_pixels_stay(image):
    close(one(ops.shift_hue, image, 1.0), image, atol=1e-5)
    grey = jnp.full((4, 4, 3), 0.3)
    close(one(ops.shift_hue, grey, 0.4), grey, atol=1e-6)


def test_hue_of_a_third_of_the_circle_turns_red_to_green_to_blue():
    red, green, blue = (jnp.zeros((2, 2, 3)).at[..., channel].set(0.8) for channel in range(3))
    close(one(ops.shift_hue, red, 1 / 3), green, atol=1e-5)
    close(one(ops.shift_hue, green, 1 / 3), blue, atol=1e-5)


@pytest.mark.parametrize("window", [4, 41])
def test_a_blur_window_that_does_not_fit_is_refused(image, window):
    with pytest.raises(ValueError, match=f"a blur window of {window} pixels must be odd and less than twice"):
        ops.gaussian_blur(ops.as_planes(image[None]), jnp.ones(1), window)


def test_uint8_and_float_images_are_the_same(numbers, image):
    assert image.dtype == jnp.float32 and float(image.max()) == 1.0
    np.testing.assert_array_equal(ops.as_float(image), image)


def test_unnormalize_undoes_normalize(image):
    normalised = ops.normalize(image, recipes.IMAGENET_MEAN, recipes.IMAGENET_STD)
    close(normalised, (np.asarray(image) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], atol=1e-6)
    close(ops.unnormalize(normalised, recipes.IMAGENET_MEAN, recipes.IMAGENET_STD), image, atol=1e-6)
