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
    """They differ in names, and DINOv2 has layer scales and maybe SwiGLU."""
    first, second = (f"{name}.{part}" for part in ("norm1", "norm2"))
    if f"{first}.weight" not in weights:
        first, second = (f"{name}.{part}" for part in ("layernorm_before", "layernorm_after"))
    dim = len(weights[f"{first}.weight"])
    split = {"kernel": (dim, heads, dim // heads), "bias": (heads, dim // heads)}
    attention = {}
    for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        packed = dense(weights, f"{name}.attention.{theirs}")
        attention[ours] = {part: packed[part].reshape(shape) for part, shape in split.items()}
    out = dense(weights, f"{name}.attention.o_proj")
    attention["out"] = out | {"kernel": out["kernel"].reshape(heads, dim // heads, dim)}
    params = {"norm1": norm(weights, first), "attention": attention, "norm2": norm(weights, second)}
    ffn = {"fc1": "mlp1", "fc2": "mlp2", "gate_proj": "gate", "up_proj": "mlp1", "down_proj": "mlp2"}
    for theirs, ours in ffn.items():
        if f"{name}.mlp.{theirs}.weight" in weights:
            params[ours] = dense(weights, f"{name}.mlp.{theirs}")
    for i in (1, 2):
        if f"{name}.layer_scale{i}.lambda1" in weights:
            params[f"layer_scale{i}"] = weights[f"{name}.layer_scale{i}.lambda1"]
    return params


def encoder_params(weights, embeddings, layers, last_norm, vit):
    """All but the parameters that stand for themselves: prefix, positions, mask token."""
    patches = weights[f"{embeddings}.patch_embeddings.projection.weight"]  # (width, channel, row, column)
    return {
        "patch_embed": {
            "kernel": patches.transpose(2, 3, 1, 0).reshape(-1, len(patches)),
            "bias": weights[f"{embeddings}.patch_embeddings.projection.bias"],
        },
        "encoder": {f"block{i}": block(weights, f"{layers}.{i}", vit.heads) for i in range(vit.depth)},
        "norm": norm(weights, last_norm),
    }


def mae_params(weights):
    params = encoder_params(weights, "vit.embeddings", "vit.layers", "vit.layernorm", ENCODER)
    return params | {"prefix": weights["vit.embeddings.cls_token"][0]}


def dinov2_params(weights, vit):
    """The class token's position is added to it once and for all."""
    positions = weights["embeddings.position_embeddings"][0]
    prefix = [weights["embeddings.cls_token"][0] + positions[:1]]
    if vit.registers:
        prefix.append(weights["embeddings.register_tokens"][0])
    return encoder_params(weights, "embeddings", "encoder.layer", "layernorm", vit) | {
        "prefix": np.concatenate(prefix),
        "positions": positions[1:],
        "mask_token": weights["embeddings.mask_token"][0],
    }


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


def test_encoder_on_visible_patches(numbers):
    mask = mask_from_noise(numbers["noise"], kept=4)
    params = {"params": mae_params(numbers)}
    close(ENCODER.apply(params, numbers["images"], keep=mask.keep, method="tokens"), numbers["encoded"])


def test_decoder(numbers):
    params = {"params": decoder_params(numbers)}
    close(DECODER.apply(params, numbers["encoded"], numbers["ids_restore"], (4, 4)), numbers["logits"])


def test_loss_from_pixels_to_scalar(numbers):
    mask = mask_from_noise(numbers["noise"], kept=4)
    images = numbers["images"]
    tokens = ENCODER.apply({"params": mae_params(numbers)}, images, keep=mask.keep, method="tokens")
    prediction = DECODER.apply({"params": decoder_params(numbers)}, tokens, mask.restore, (4, 4))
    close(prediction, numbers["logits"])
    close(mae_loss(images, prediction, mask.hidden, ENCODER.patch), numbers["loss"])


# DINOv2 ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=DINOV2)
def dinov2(request, golden):
    """(encoder, its variables, what it must give, the inputs)"""
    numbers = golden("dinov2")
    made = {k.removeprefix(f"{request.param}."): v for k, v in numbers.items() if k.startswith(f"{request.param}.")}
    vit = DINOV2[request.param]
    return vit, {"params": dinov2_params(made, vit)}, made, numbers


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
def test_ijepa_at_its_size_and_at_another(golden, size):
    numbers = golden("ijepa")
    vit = tiny(cls_token=False, pool="mean", epsilon=float(numbers["epsilon"]))
    params = encoder_params(numbers, "embeddings", "layers", "layernorm", vit)
    params["positions"] = numbers["embeddings.position_embeddings"][0]
    close(vit.apply({"params": params}, numbers[f"{size}.images"], method="tokens"), numbers[f"{size}.tokens"])
