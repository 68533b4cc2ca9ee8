"""What the maps of Vision Transformers share, and how images are prepared in both libraries' words."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssljax.models.vit import ViT
from ssljax.weights.architecture import IMAGENET, Config, ImageInputs
from ssljax.weights.layout import (
    CLASS_AND_POSITIONS,
    PREFIX_AND_POSITIONS,
    REGISTERS_AND_POSITIONS,
    Layout,
    leading,
)
from ssljax.weights.rows import Row


def images_of(size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)


def ratio(hidden: int, width: int) -> float:
    """What `width` is multiplied by, and the product rounded down, to be `hidden`."""
    exact = hidden / width
    return exact if int(width * exact) == hidden else (hidden + 0.5) / width


def prefix_rows(vit: ViT, token: str, registers: str, positions: str, *, apart: bool = False) -> Iterator[Row]:
    """Class token, registers and positions by their names there. apart: with registers, only patches have positions."""
    ours = "params/prefix", "params/positions"
    if not vit.cls_token:
        if vit.registers:
            raise ValueError("registers without a class token have no counterpart in another library's models.")
        yield Row((ours[1],), (positions,), leading(1))
    elif vit.registers:
        layout: Layout = PREFIX_AND_POSITIONS if apart else REGISTERS_AND_POSITIONS
        yield Row(ours, (token, registers, positions), layout)
    else:
        yield Row(ours, (token, positions), CLASS_AND_POSITIONS)


def huggingface_inputs(size: int, preprocessing: Config, default: tuple = IMAGENET) -> ImageInputs:
    """Of preprocessor_config.json; where it is silent, whole images of `size` pixels with the `default` mean and
    standard deviation."""
    resized, cropped = preprocessing.get("size"), preprocessing.get("crop_size")
    crops = bool(cropped) and preprocessing.get("do_center_crop", True)
    side = side_of(cropped if crops else resized) or size
    whole = side_of(resized) or side
    mean, std = (tuple(preprocessing.get(f"image_{k}", x)) for k, x in zip(("mean", "std"), default, strict=True))
    return ImageInputs(side, min(1.0, side / whole), mean, std)


def huggingface_preprocessing(inputs: ImageInputs) -> dict[str, Any]:
    """preprocessor_config.json; see `huggingface_inputs`."""
    return {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": round(inputs.size / inputs.crop)},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": inputs.size, "width": inputs.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(inputs.mean),
        "image_std": list(inputs.std),
    }


def timm_inputs(config: Config, name: str) -> ImageInputs:
    """Of a timm config's pretrained_cfg; the size may stand in the model's name instead."""
    of_weights = config.get("pretrained_cfg", config)
    named = re.search(r"_(\d{3})(?:\.|$)", name)
    size = int(of_weights["input_size"][-1]) if "input_size" in of_weights else int(named[1]) if named else 224
    mean, std = (tuple(of_weights.get(k, x)) for k, x in zip(("mean", "std"), IMAGENET, strict=True))
    return ImageInputs(size, of_weights.get("crop_pct", 1.0), mean, std)


def timm_config(name: str, features: int, pool: str, arguments: dict[str, Any], inputs: ImageInputs) -> dict[str, Any]:
    """config.json, from which `timm.create_model("local-dir:FOLDER", pretrained=True)` builds the model."""
    return {
        "architecture": name,
        "num_classes": 0,
        "num_features": features,
        "global_pool": pool,
        "model_args": arguments,
        "pretrained_cfg": {
            "tag": "ssljax",
            "custom_load": False,
            "input_size": [3, inputs.size, inputs.size],
            "fixed_input_size": "img_size" in arguments,
            "interpolation": "bicubic",
            "crop_pct": inputs.crop,
            "crop_mode": "center",
            "mean": list(inputs.mean),
            "std": list(inputs.std),
            "num_classes": 0,
            "pool_size": None,
        },
    }


def side_of(size: Any) -> Any:
    """Of a square's size as both libraries write it: a number, two, or one or two by their names; None of None."""
    if isinstance(size, Mapping):
        return size.get("shortest_edge") or size.get("height")
    return size[0] if isinstance(size, (list, tuple)) else size
