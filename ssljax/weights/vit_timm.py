"""Vision Transformers as timm has them: augreg, MAE, DINO, DINOv2 (with registers too), I-JEPA, CLIP's image tower."""

import math
import re
from collections.abc import Iterator
from typing import Any

from ssljax.models.clip import CLIPViT
from ssljax.models.vit import ViT
from ssljax.weights.architecture import Architecture, Config, Described, can_be_written, must_be, only
from ssljax.weights.layout import TRANSPOSED, by_heads, from_heads, packed, patches, then, to_heads
from ssljax.weights.rows import Row, affine, dense, gated
from ssljax.weights.vision import images_of, prefix_rows, ratio, side_of, timm_config, timm_inputs

SIZES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
    "giant": (1536, 40, 24),
}
"""Width, depth and heads."""
NAME = re.compile(
    rf"vit_(?P<size>{'|'.join(SIZES)})_patch(?P<patch>\d+)"
    r"(?P<registers>_reg4)?(?P<gap>_gap)?(?P<clip>_clip_quickgelu)?(?P<dinov2>_dinov2)?(_\d{3})?(\.\w+)?"
)
BASES = {"mlp": "vit_base_patch16_224", "swiglu": "vit_giant_patch14_dinov2"}
CLIP_BASE = "vit_base_patch32_clip_quickgelu_224"
WITHOUT_EFFECT = "num_classes", "dynamic_img_size", "dynamic_img_pad", "strict_img_size"
LAYER_SCALE = 1e-5
"""Its initial value, which trained weights replace."""


def describe(config: Config, _: Config) -> Described:
    name = config["architecture"]
    said = NAME.fullmatch(name)
    if said is None or (said["gap"] and said["registers"]):
        raise ValueError(f"timm's '{name}' is not among the Vision Transformers that can be read; see docs/weights.md.")
    width, depth, heads = SIZES[said["size"]]
    gap, giant = bool(said["gap"]), said["size"] == "giant"
    presets = {
        "patch_size": int(said["patch"]),
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
        "mlp_ratio": 2.66667 * 2 if giant else 4.0,
        "class_token": not gap,
        "reg_tokens": 4 if said["registers"] else 0,
        "init_values": LAYER_SCALE if said["dinov2"] else None,
        "fc_norm": False if gap else None,
        "global_pool": config.get("global_pool", "avg" if gap else "token"),
    }
    arguments = {**presets, **config.get("model_args", {})}
    only(arguments, (*presets, *WITHOUT_EFFECT, "img_size", "in_chans", "no_embed_class"))
    must_be(arguments, in_chans=3, no_embed_class=arguments["reg_tokens"] > 0)
    if arguments["global_pool"] not in ("token", "avg") or (
        arguments["global_pool"] == "avg" and arguments["fc_norm"] is not False
    ):
        raise ValueError(
            f"timm's global_pool='{arguments['global_pool']}' with fc_norm={arguments['fc_norm']} has no counterpart "
            "here; 'token' has, and 'avg' with fc_norm=False."
        )
    inputs = timm_inputs(config, name)
    dim, hidden = arguments["embed_dim"], int(arguments["embed_dim"] * arguments["mlp_ratio"])
    swiglu = {"ffn": "swiglu", "mlp_ratio": 1.5 * (hidden // 2) / dim} if giant else {"mlp_ratio": ratio(hidden, dim)}
    fields = {
        "patch": arguments["patch_size"],
        "width": dim,
        "depth": arguments["depth"],
        "heads": arguments["num_heads"],
        "positions": "learned",
        "position_antialias": True,
        "pool": "mean" if arguments["global_pool"] == "avg" else "cls",
        "cls_token": arguments["class_token"],
        "registers": arguments["reg_tokens"],
        "layer_scale": arguments["init_values"],
        **swiglu,
    }
    encoder = CLIPViT(**fields) if said["clip"] else ViT(**fields)
    return Described(encoder, images_of(side_of(arguments.get("img_size", inputs.size))), inputs)


def configure(described: Described) -> tuple[dict[str, Any], dict[str, Any]]:
    vit, inputs = described.encoder, described.inputs
    clip = isinstance(vit, CLIPViT)
    can_be_written(vit, "timm's model", epsilon=1e-5 if clip else 1e-6, mask_token=False)
    arguments = {
        "img_size": described.example.shape[1],
        "patch_size": vit.patch,
        "embed_dim": vit.width,
        "depth": vit.depth,
        "num_heads": vit.heads,
        "mlp_ratio": ratio(_hidden(vit), vit.width),
        "class_token": vit.cls_token,
        "reg_tokens": vit.registers,
        "no_embed_class": vit.registers > 0,
        "init_values": vit.layer_scale,
        "global_pool": "avg" if vit.pool == "mean" else "token",
        "fc_norm": False,
    }
    base = CLIP_BASE if clip else BASES[vit.ffn]
    return timm_config(base, vit.width, arguments["global_pool"], arguments, inputs), {}


def rows(vit: ViT) -> list[Row]:
    return list(_rows(vit))


def _rows(vit: ViT) -> Iterator[Row]:
    yield Row(("params/patch_embed/kernel",), ("patch_embed.proj.weight",), patches(vit.patch))
    if vit.patch_bias:
        yield Row(("params/patch_embed/bias",), ("patch_embed.proj.bias",))
    yield from prefix_rows(vit, "cls_token", "reg_token", "pos_embed", apart=True)
    if vit.pre_norm:
        yield from affine("params/pre_norm", "norm_pre")
    for i in range(vit.depth):
        yield from _block(vit, f"params/encoder/block{i}", f"blocks.{i}")
    yield from affine("params/norm", "norm")


def _block(vit: ViT, ours: str, theirs: str) -> Iterator[Row]:
    yield from affine(f"{ours}/norm1", f"{theirs}.norm1")
    qkv = [f"{ours}/attention/{name}" for name in ("query", "key", "value")]
    kernels = packed(then(TRANSPOSED, to_heads(vit.heads)), 3, axis=0)
    yield Row(tuple(f"{name}/kernel" for name in qkv), (f"{theirs}.attn.qkv.weight",), kernels)
    biases = packed(by_heads(vit.heads), 3, axis=0)
    yield Row(tuple(f"{name}/bias" for name in qkv), (f"{theirs}.attn.qkv.bias",), biases)
    yield from dense(f"{ours}/attention/out", f"{theirs}.attn.proj", then(TRANSPOSED, from_heads(vit.heads)))
    yield from affine(f"{ours}/norm2", f"{theirs}.norm2")
    first = f"{theirs}.mlp.fc1"
    yield from gated(ours, first) if vit.ffn == "swiglu" else dense(f"{ours}/mlp1", first)
    yield from dense(f"{ours}/mlp2", f"{theirs}.mlp.fc2")
    if vit.layer_scale is not None:
        yield Row((f"{ours}/layer_scale1",), (f"{theirs}.ls1.gamma",))
        yield Row((f"{ours}/layer_scale2",), (f"{theirs}.ls2.gamma",))


def _hidden(vit: ViT) -> int:
    """Units of the first layer there, where SwiGLU's gate is a part of it."""
    hidden = int(vit.width * vit.mlp_ratio)
    return 2 * (math.ceil(int(hidden * 2 / 3) / 8) * 8) if vit.ffn == "swiglu" else hidden


VIT = Architecture("timm", describe, configure, rows, left_out=(r"head\..*", r"head_drop\..*"))
