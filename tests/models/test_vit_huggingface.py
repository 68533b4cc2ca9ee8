"""Encoders of MAE, DINOv2 and I-JEPA, and MAE's decoder and loss, against Hugging Face's with the same weights."""

from functools import partial

import numpy as np
import pytest

from ssljax.losses import mae_loss
from ssljax.methods.images.mae import Decoder
from ssljax.models.positions import sincos_positions
from ssljax.models.vit import ViT
from ssljax.views.masks import mask_from_noise

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
EPSILON = 1e-12  # Hugging Face's for MAE; the original's is 1e-6
ENCODER = ViT(patch=8, width=32, depth=2, heads=4, epsilon=EPSILON)
DECODER = Decoder(width=16, depth=1, heads=2, pixels=192, prefix=1, epsilon=EPSILON)
tiny = partial(ViT, patch=4, width=16, depth=2, heads=2, positions="learned")
DINOV2 = {
    "mlp": tiny(layer_scale=1.0, mask_token=True),
    "swiglu": tiny(layer_scale=1.0, mask_token=True, ffn="swiglu"),
    "registers": tiny(layer_scale=1.0, mask_token=True, registers=3, position_antialias=True),
}


# Weights --------------------------------------------------------------------------------------------------------------


def dense(weights, name):
    return {"kernel": weights[f"{name}.weight"].T, "bias": weights[f"{name}.bias"]}


def norm(weights, name):
    return {"scale": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]}


def block(weights, name, heads):
    """Of the decoder; the encoders' are the product's (`ssljax.weights`)."""
    dim = len(weights[f"{name}.layernorm_before.weight"])
    split = {"kernel": (dim, heads, dim // heads), "bias": (heads, dim // heads)}
    attention = {}
    for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        packed = dense(weights, f"{name}.attention.{theirs}")
        attention[ours] = {part: packed[part].reshape(shape) for part, shape in split.items()}
    out = dense(weights, f"{name}.attention.o_proj")
    attention["out"] = out | {"kernel": out["kernel"].reshape(heads, dim // heads, dim)}
    return {
        "norm1": norm(weights, f"{name}.layernorm_before"),
        "attention": attention,
        "norm2": norm(weights, f"{name}.layernorm_after"),
        "mlp1": dense(weights, f"{name}.mlp.fc1"),
        "mlp2": dense(weights, f"{name}.mlp.fc2"),
    }


def by_files_names(weights):
    """As in files, where SwiGLU's gate is packed before its other half."""
    packed = dict(weights)
    for name in [name for name in weights if ".gate_proj." in name]:
        other = packed.pop(name.replace("gate_proj", "up_proj"))
        packed[name.replace("gate_proj", "weights_in")] = np.concatenate([packed.pop(name), other])
        last = name.replace("gate_proj", "down_proj")
        packed[name.replace("gate_proj", "weights_out")] = packed.pop(last)
    return packed


@pytest.fixture(scope="module")
def mae_params(numbers, from_huggingface):
    """The positions that it has stored are those that our encoder makes itself (see the test of them)."""
    weights = {k: x for k, x in numbers.items() if k.startswith("vit.")}
    weights["vit.embeddings.position_embeddings"] = numbers["positions"][None]
    params = from_huggingface("vit_mae", ENCODER.clone(positions="learned"), weights, numbers["images"])
    return {name: x for name, x in params.items() if name != "positions"}


def decoder_params(weights):
    return {
        "embed": dense(weights, "decoder.decoder_embed"),
        "mask_token": weights["decoder.mask_token"][0, 0],
        "decoder": {"block0": block(weights, "decoder.decoder_layers.0", DECODER.heads)},
        "norm": norm(weights, "decoder.decoder_norm"),
        "pixels": dense(weights, "decoder.decoder_pred"),
    }


# MAE ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("vit_mae")


def test_positions_are_its_table(numbers):
    close(sincos_positions(4, 4, 32), numbers["positions"][1:])
    np.testing.assert_array_equal(numbers["positions"][0], 0.0)  # the class token has none, and so it is in `ViT`


def test_mask_from_noise_is_its_mask(numbers):
    mask = mask_from_noise(numbers["noise"], kept=4)
    np.testing.assert_array_equal(mask.hidden, numbers["mask"])
    np.testing.assert_array_equal(mask.restore, numbers["ids_restore"])


def test_encoder_on_visible_patches(numbers, mae_params):
    mask = mask_from_noise(numbers["noise"], kept=4)
    params = {"params": mae_params}
    close(ENCODER.apply(params, numbers["images"], keep=mask.keep, method="tokens"), numbers["encoded"])


def test_decoder(numbers):
    params = {"params": decoder_params(numbers)}
    close(DECODER.apply(params, numbers["encoded"], numbers["ids_restore"], (4, 4)), numbers["logits"])


def test_loss_from_pixels_to_scalar(numbers, mae_params):
    mask = mask_from_noise(numbers["noise"], kept=4)
    images = numbers["images"]
    tokens = ENCODER.apply({"params": mae_params}, images, keep=mask.keep, method="tokens")
    prediction = DECODER.apply({"params": decoder_params(numbers)}, tokens, mask.restore, (4, 4))
    close(prediction, numbers["logits"])
    close(mae_loss(images, prediction, mask.hidden, ENCODER.patch), numbers["loss"])


# DINOv2 ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=DINOV2)
def dinov2(request, golden, from_huggingface):
    """(encoder, its variables, what it must give, the inputs)"""
    numbers = golden("dinov2")
    made = {k.removeprefix(f"{request.param}."): v for k, v in numbers.items() if k.startswith(f"{request.param}.")}
    vit, weights = DINOV2[request.param], {k: x for k, x in made.items() if "." in k}
    kind = "dinov2_with_registers" if vit.registers else "dinov2"
    params = from_huggingface(kind, vit, by_files_names(weights), numbers["square"])
    return vit, {"params": params}, made, numbers


def test_dinov2_at_its_size_and_at_another_with_masked_patches(dinov2):
    vit, variables, expected, inputs = dinov2
    close(vit.apply(variables, inputs["square"], method="tokens"), expected["square"])
    close(vit.apply(variables, inputs["wide"], method="tokens"), expected["wide"])
    close(vit.apply(variables, inputs["wide"], masked=inputs["mask"], method="tokens"), expected["masked"])


def test_dinov2s_last_blocks(dinov2):
    vit, variables, expected, inputs = dinov2
    first, second = vit.apply(variables, inputs["square"], last=2, norm=False, method="tokens")
    close(first, expected["block0"])
    close(second, expected["block1"])


# I-JEPA ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["square", "wide"])
def test_ijepa_at_its_size_and_at_another(golden, from_huggingface, size):
    numbers = golden("ijepa")
    vit = tiny(cls_token=False, pool="mean", epsilon=float(numbers["epsilon"]))
    weights = {k: x for k, x in numbers.items() if k.startswith(("embeddings.", "layers.", "layernorm."))}
    params = from_huggingface("ijepa", vit, weights, numbers["square.images"])
    close(vit.apply({"params": params}, numbers[f"{size}.images"], method="tokens"), numbers[f"{size}.tokens"])
