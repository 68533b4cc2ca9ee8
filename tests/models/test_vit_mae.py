"""MAE's encoder, decoder and loss against Hugging Face's ViTMAEForPreTraining with the same weights and noise."""

from functools import partial

import numpy as np
import pytest

from ssljax.losses import mae_loss
from ssljax.methods.images.mae import Decoder
from ssljax.models.vit import ViT, sincos_positions
from ssljax.views.masks import mask_from_noise

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
EPSILON = 1e-12  # Hugging Face's for this model; the original's is 1e-6
ENCODER = ViT(patch=8, width=32, depth=2, heads=4, epsilon=EPSILON)
DECODER = Decoder(width=16, depth=1, heads=2, pixels=192, prefix=1, epsilon=EPSILON)


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("vit_mae")


def dense(weights, name):
    return {"kernel": weights[f"{name}.weight"].T, "bias": weights[f"{name}.bias"]}


def norm(weights, name):
    return {"scale": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]}


def block(weights, name, heads):
    dim = len(weights[f"{name}.layernorm_before.weight"])
    split = {"kernel": (dim, heads, dim // heads), "bias": (heads, dim // heads)}
    attention = {}
    for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        packed = dense(weights, f"{name}.attention.{theirs}")
        attention[ours] = {part: packed[part].reshape(shape) for part, shape in split.items()}
    out = dense(weights, f"{name}.attention.o_proj")
    return {
        "norm1": norm(weights, f"{name}.layernorm_before"),
        "attention": attention | {"out": out | {"kernel": out["kernel"].reshape(heads, dim // heads, dim)}},
        "norm2": norm(weights, f"{name}.layernorm_after"),
        "mlp1": dense(weights, f"{name}.mlp.fc1"),
        "mlp2": dense(weights, f"{name}.mlp.fc2"),
    }


def encoder_params(weights):
    # a convolution: (width, channel, row, column)
    patches = weights["vit.embeddings.patch_embeddings.projection.weight"]
    return {
        "patch_embed": {
            "kernel": patches.transpose(2, 3, 1, 0).reshape(-1, len(patches)),
            "bias": weights["vit.embeddings.patch_embeddings.projection.bias"],
        },
        "prefix": weights["vit.embeddings.cls_token"][0],
        "encoder": {f"block{i}": block(weights, f"vit.layers.{i}", ENCODER.heads) for i in range(ENCODER.depth)},
        "norm": norm(weights, "vit.layernorm"),
    }


def decoder_params(weights):
    return {
        "embed": dense(weights, "decoder.decoder_embed"),
        "mask_token": weights["decoder.mask_token"][0, 0],
        "decoder": {"block0": block(weights, "decoder.decoder_layers.0", DECODER.heads)},
        "norm": norm(weights, "decoder.decoder_norm"),
        "pixels": dense(weights, "decoder.decoder_pred"),
    }


def test_positions_are_its_table(numbers):
    close(sincos_positions(4, 4, 32), numbers["positions"][1:])
    np.testing.assert_array_equal(numbers["positions"][0], 0.0)  # the class token has none, and so it is in `ViT`


def test_mask_from_noise_is_its_mask(numbers):
    mask = mask_from_noise(numbers["noise"], kept=4)
    np.testing.assert_array_equal(mask.hidden, numbers["mask"])
    np.testing.assert_array_equal(mask.restore, numbers["ids_restore"])


def test_encoder_on_visible_patches(numbers):
    mask = mask_from_noise(numbers["noise"], kept=4)
    params = {"params": encoder_params(numbers)}
    close(ENCODER.apply(params, numbers["images"], keep=mask.keep, method="tokens"), numbers["encoded"])


def test_decoder(numbers):
    params = {"params": decoder_params(numbers)}
    close(DECODER.apply(params, numbers["encoded"], numbers["ids_restore"], (4, 4)), numbers["logits"])


def test_loss_from_pixels_to_scalar(numbers):
    mask = mask_from_noise(numbers["noise"], kept=4)
    images = numbers["images"]
    tokens = ENCODER.apply({"params": encoder_params(numbers)}, images, keep=mask.keep, method="tokens")
    prediction = DECODER.apply({"params": decoder_params(numbers)}, tokens, mask.restore, (4, 4))
    close(prediction, numbers["logits"])
    close(mae_loss(images, prediction, mask.hidden, ENCODER.patch), numbers["loss"])
