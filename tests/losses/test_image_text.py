"""CLIP's and SigLIP's losses against Hugging Face and loops, on one device and on four, whole and in tiles."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.losses import clip, siglip

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("image_text")


@pytest.fixture(scope="module")
def pairs(numbers):
    return numbers["image"], numbers["text"]


@pytest.fixture(scope="module")
def losses(numbers):
    """Of image and text alone."""
    scale = float(np.exp(numbers["log_scale"]))
    return {
        "clip": partial(clip, logit_scale=scale),
        "siglip": partial(siglip, logit_scale=scale, logit_bias=float(numbers["bias"])),
    }


def cosines(image, text):
    image, text = image.astype(np.float64), text.astype(np.float64)
    return [[x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in text] for x in image]


def clip_loop(image, text, scale):
    z, total = np.array(cosines(image, text)), 0.0
    for i in range(len(z)):
        total -= np.log(np.exp(scale * z[i, i]) / sum(np.exp(scale * z[i, j]) for j in range(len(z)))) / 2
        total -= np.log(np.exp(scale * z[i, i]) / sum(np.exp(scale * z[j, i]) for j in range(len(z)))) / 2
    return total / len(z)


@pytest.mark.parametrize("block", [None, 3])
@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_value_and_gradients_equal_hugging_face(numbers, pairs, value_and_gradients, name, shards, block):
    """Of the learnt scalars too: each shard is given a copy, and their gradients add up."""

    def loss(image, text, log_scale, bias):
        scalars = (jnp.exp(log_scale[0]), bias[0]) if name == "siglip" else (jnp.exp(log_scale[0]),)
        return (clip if name == "clip" else siglip)(image, text, *scalars, axis="data", block=block)

    scalars = (np.full(shards, numbers[key], np.float32) for key in ("log_scale", "bias"))
    value, (image, text, scale, bias) = value_and_gradients(loss, shards, *pairs, *scalars)
    close(value, numbers[f"{name}.loss"])
    close(image, numbers[f"{name}.gradient.image"])
    close(text, numbers[f"{name}.gradient.text"])
    close(scale.sum(), numbers[f"{name}.gradient.logit_scale"])
    close(bias.sum(), numbers["siglip.gradient.logit_bias"] if name == "siglip" else 0.0)


def test_clip_equals_the_loop_and_is_the_same_for_images_and_texts(pairs):
    for scale in (1.0, 14.3):
        close(clip(*pairs, scale), clip_loop(*pairs, scale))
        close(clip(*pairs[::-1], scale), clip(*pairs, scale))


def test_siglip_equals_the_loop_of_the_golden_script(numbers, pairs, losses):
    close(losses["siglip"](*pairs), numbers["siglip.loop"])
    close(numbers["siglip.loss"], numbers["siglip.loop"])


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_falls_as_a_pair_gets_closer_and_rises_as_two_texts_are_exchanged(pairs, losses, name):
    """The images are orthogonal, so that no text comes nearer to another one's image."""
    image, text = np.eye(6, dtype=np.float32), pairs[1][:6]
    pulled = [float(losses[name](image, (1 - pull) * text + pull * image)) for pull in (0.0, 0.5, 0.9)]
    assert pulled == sorted(pulled, reverse=True) and len(set(pulled)) == 3
    assert losses[name](image, (0.1 * text + 0.9 * image)[[1, 0, 2, 3, 4, 5]]) > pulled[-1]


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_embeddings_are_normalised_and_the_order_of_pairs_is_nothing(pairs, losses, name):
    image, text = pairs
    value = losses[name](image, text)
    close(losses[name](3.0 * image, 0.2 * text), value)
    order = np.random.RandomState(0).permutation(8)
    close(losses[name](image[order], text[order]), value)


def test_a_scale_of_a_hundred_does_not_overflow_and_is_not_clamped(pairs):
    for scale in (100.0, 1000.0):
        for loss in (clip, partial(siglip, logit_bias=-10.0)):
            value, gradient = jax.value_and_grad(loss, argnums=2)(*pairs, scale)
            assert np.isfinite(value) and np.isfinite(gradient) and gradient != 0.0
    close(clip(*pairs, 1000.0), 10 * clip(*pairs, 100.0), rtol=0.05)


def test_siglips_loss_near_zero_keeps_its_digits():
    """Two pairs, exactly opposite: 2 log(1 + exp(-30)) an image."""
    x = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)
    close(siglip(x, x, 30.0, 0.0), 2 * np.exp(-30.0), atol=0)
    close(clip(x, x, 15.0), np.exp(-30.0), atol=0)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_half_precision_inputs_are_computed_in_float32(pairs, losses, name):
    half = [jnp.asarray(x, jnp.bfloat16) for x in pairs]
    value = losses[name](*half)
    assert value.dtype == jnp.float32
    assert value == losses[name](*(x.astype(jnp.float32) for x in half))


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_shapes_that_do_not_fit_are_both_named(losses, name):
    for image, text in (((8, 6), (8, 5)), ((8, 6), (7, 6)), ((8,), (8,)), ((0, 6), (0, 6))):
        with pytest.raises(ValueError) as error:
            jax.eval_shape(losses[name], jnp.zeros(image), jnp.zeros(text))
        assert f"image {image}" in str(error.value) and f"text {text}" in str(error.value)


def test_other_arguments_that_make_no_sense_are_refused(pairs):
    for loss in (clip, partial(siglip, logit_bias=0.0)):
        with pytest.raises(ValueError, match=r"logit_scale \(1,\) must be a scalar"):
            loss(*pairs, np.ones(1))
        with pytest.raises(ValueError, match="logit_scale must be positive, but is 0"):
            loss(*pairs, 0.0)
        with pytest.raises(ValueError, match="block must be a positive integer or None, but is 0"):
            loss(*pairs, 1.0, block=0)
    with pytest.raises(ValueError, match=r"logit_bias \(8,\) must be a scalar"):
        siglip(*pairs, 1.0, np.ones(8))
    with pytest.raises(ValueError, match="at least 2 pairs are needed"):
        clip(pairs[0][:1], pairs[1][:1], 1.0)
    assert np.isfinite(siglip(pairs[0][:1], pairs[1][:1], 1.0, 0.0))
