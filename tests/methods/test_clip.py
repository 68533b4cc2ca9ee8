"""CLIP's own: the scale that is held, whose captions are read, and what the loss is of."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.build import build_method, modality_of
from ssljax.encoder import Encoder
from ssljax.losses import clip, siglip
from ssljax.typing import TrainState

pytestmark = pytest.mark.parametrize("name", ["clip"], indirect=True)


@pytest.fixture
def batch(batches_of):
    return batches_of("image_text")[0]


def state_of(method, batch) -> TrainState:
    v = jax.jit(method.init)(jax.random.key(0), batch)
    return TrainState(v.params, v.model_state, v.target, v.extra, jnp.int32(0), ())


@pytest.mark.parametrize("objective", ["softmax", "sigmoid"])
def test_the_loss_is_of_what_is_evaluated(config, objective, batch):
    config.views.scale = (1.0, 1.0)
    config.method.update(objective=objective, bias=-1.0)
    method = build_method(config, 5)
    state = state_of(method, batch)
    x, y = jnp.moveaxis(jax.jit(method.embed)(state, batch), 1, 0)
    image = method.eval_view(batch)  # without a random crop
    loss, aux = method.loss(state.params, state, (image, batch["captions"][:, 0]), jax.random.key(1), None)
    expected = clip(x, y, 2.0) if objective == "softmax" else siglip(x, y, 2.0, -1.0)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert abs(aux["metrics"]["logit_scale"] - 2.0) < 1e-5


def test_the_scale_is_held_and_begins_below(config, batch):
    method = build_method(config, 5)
    state = state_of(method, batch)
    params = {**state.params, "similarity": {"log_scale": jnp.float32(9.0)}}
    held = method.update(state.replace(params=params), {"model_state": state.model_state}, None)
    np.testing.assert_allclose(jnp.exp(held.params["similarity"]["log_scale"]), 100.0, rtol=1e-5)
    kept = method.update(state, {"model_state": state.model_state}, None)
    assert kept.params["similarity"]["log_scale"] == state.params["similarity"]["log_scale"]
    for fields, sentence in (
        ({"temperature": 0.001}, "is a scale above max_scale"),
        ({"objective": "x"}, "softmax or"),
    ):
        config.method.update(fields)
        with pytest.raises(ValueError, match=sentence):
            build_method(config, 5)


def test_templates_have_one_place_for_a_name_and_nothing_else(config):
    for template in ("a photo", "{}, {}", "a {} of {x}", "{{}}", "{}}"):
        config.data.templates = ("a {}.", template)
        with pytest.raises(ValueError, match="once, for the class's name"):
            modality_of(config).open("train")


def test_words_that_training_does_not_see(config, batch):
    config.method.word_dropout = 0.5
    method, ids = build_method(config, 5), np.full((200, 1, 8), 9, np.int32)
    ids[:, :, 0], ids[:, :, 5], ids[:, :, 6:] = 2, method.end, 0
    keys = jax.random.split(jax.random.key(0), 200)
    image = np.resize(batch["image"], (200, *batch["image"].shape[1:]))
    _, seen = method.views(keys, {"image": image, "captions": ids})
    lost = np.asarray(seen == method.unknown)
    np.testing.assert_array_equal(np.where(lost, 9, seen), ids[:, 0])
    assert not lost[:, [0, 5, 6, 7]].any() and abs(lost[:, 1:5].mean() - 0.5) < 0.1


def test_captions_do_not_depend_on_their_padding(method, batch):
    state = state_of(method, batch)
    ids = batch["captions"]
    both = jnp.concatenate([ids, jnp.zeros_like(ids)], axis=1)
    found = jax.jit(method.embed)(state, {**batch, "captions": both})
    np.testing.assert_allclose(found[:, :2], jax.jit(method.embed)(state, batch), atol=1e-6)
    assert not found[:, 2].any()
    ends = np.argmax(np.asarray(ids[:, 0]) == method.end, axis=1)
    other = jnp.where(jnp.arange(ids.shape[-1]) > ends[:, None], 7, ids[:, 0])
    np.testing.assert_allclose(method.embed_texts(state, other), found[:, 1], atol=1e-6)


def test_a_loaded_encoder_puts_images_and_texts_into_one_space(config, method, batch):
    modality, state = modality_of(config), state_of(method, batch)
    encoder, images, texts = Encoder(SimpleNamespace(method=method), state, modality), batch["image"][:2], ["a", "b c"]
    captions = modality.token_ids(texts)[:, None]
    expected = jax.jit(method.embed)(state, {"image": images, "captions": captions})
    np.testing.assert_allclose(encoder.embed(images), expected[:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(encoder.embed(texts), expected[:, 1], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="features are of images only: `encoder.embed` puts texts"):
        encoder(texts)
    for wrong in ("a", ["a", ""], ["a", 1]):
        with pytest.raises(ValueError, match="texts must be a list of strings"):
            encoder.embed(wrong)
