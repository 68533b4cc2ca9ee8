"""Vision Transformers as transformers has them: ViT, ViTMAE, DINOv2 (with registers too), I-JEPA."""

from collections.abc import Iterator
from typing import Any

from ssljax.models.clip import CLIPViT
from ssljax.models.vit import ViT
from ssljax.weights.architecture import HALF, IMAGENET, POOL, Architecture, Config, Described, can_be_written, must_be
from ssljax.weights.layout import leading, patches
from ssljax.weights.rows import Row, affine, attention, dense, gated
from ssljax.weights.vision import huggingface_inputs, huggingface_preprocessing, images_of, prefix_rows, ratio

DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 16,
}
"""What a config.json may leave out, here and below, as transformers does with defaults of its own."""
OF_KIND: dict[str, dict[str, Any]] = {
    "vit": {"intermediate_size": 3072, "layer_norm_eps": 1e-12},
    "vit_mae": {"intermediate_size": 3072, "layer_norm_eps": 1e-12},
    "ijepa": {"intermediate_size": 3072, "layer_norm_eps": 1e-12},
    "dinov2": {"mlp_ratio": 4, "layer_norm_eps": 1e-6, "use_swiglu_ffn": False, "layerscale_value": 1.0},
    "dinov2_with_registers": {
        "mlp_ratio": 4,
        "layer_norm_eps": 1e-6,
        "use_swiglu_ffn": False,
        "layerscale_value": 1.0,
        "num_register_tokens": 4,
    },
}
CLASSES = {
    "vit": "ViTModel",
    "ijepa": "IJepaModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
}


def describe(config: Config, preprocessing: Config) -> Described:
    kind = config["model_type"]
    c = {**DEFAULTS, **OF_KIND[kind], **config}
    must_be(c, hidden_act="gelu", qkv_bias=True, num_channels=3, pooler_act="tanh")
    width = c["hidden_size"]
    fields: dict[str, Any] = {
        "patch": c["patch_size"],
        "width": width,
        "depth": c["num_hidden_layers"],
        "heads": c["num_attention_heads"],
        "positions": "learned",
        "epsilon": c["layer_norm_eps"],
    }
    if kind.startswith("dinov2"):
        fields |= {
            "mlp_ratio": c["mlp_ratio"],
            "ffn": "swiglu" if c["use_swiglu_ffn"] else "mlp",
            "layer_scale": c["layerscale_value"],
            "mask_token": c.get("use_mask_token", True),
            "registers": c.get("num_register_tokens", 0),
            "position_antialias": kind == "dinov2_with_registers",
        }
    else:
        fields |= {"mlp_ratio": ratio(c["intermediate_size"], width)}
    if kind == "ijepa":
        fields |= {"cls_token": False}
    fields |= {"pool": c.get(POOL, "mean" if kind == "ijepa" else "cls")}
    inputs = huggingface_inputs(c["image_size"], preprocessing, HALF if kind == "vit" else IMAGENET)
    return Described(ViT(**fields), images_of(c["image_size"]), inputs)


def configure(described: Described) -> tuple[dict[str, Any], dict[str, Any]]:
    vit, inputs = described.encoder, described.inputs
    if isinstance(vit, CLIPViT):
        raise ValueError("CLIP's image tower is another architecture there.")
    kind = kind_of(vit)
    width = vit.width
    config: dict[str, Any] = {
        "model_type": kind,
        "architectures": [CLASSES[kind]],
        "hidden_size": width,
        "num_hidden_layers": vit.depth,
        "num_attention_heads": vit.heads,
        "image_size": described.example.shape[1],
        "patch_size": vit.patch,
        "num_channels": 3,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": vit.epsilon,
        POOL: vit.pool,
    }
    if kind.startswith("dinov2"):
        if vit.layer_scale is None:
            can_be_written(vit, f"'{kind}' of transformers", layer_scale=1.0)
        if int(vit.mlp_ratio) != vit.mlp_ratio:
            raise ValueError(f"mlp_ratio {vit.mlp_ratio} must be a whole number in '{kind}' of transformers.")
        config |= {
            "mlp_ratio": int(vit.mlp_ratio),
            "use_swiglu_ffn": vit.ffn == "swiglu",
            "layerscale_value": vit.layer_scale,
            "use_mask_token": vit.mask_token,
        }
        config |= {"num_register_tokens": vit.registers} if vit.registers else {}
    else:
        can_be_written(vit, f"'{kind}' of transformers", layer_scale=None, ffn="mlp", registers=0, mask_token=False)
        config |= {"intermediate_size": int(width * vit.mlp_ratio)}
    return config, huggingface_preprocessing(inputs)


def kind_of(vit: ViT) -> str:
    """The model_type that has what this encoder has."""
    if not vit.cls_token:
        return "ijepa"
    if vit.registers:
        return "dinov2_with_registers"
    return "vit" if vit.layer_scale is None and vit.ffn == "mlp" else "dinov2"


def rows_like_vit(vit: ViT) -> list[Row]:
    return [*_embeddings(vit), *(row for i in range(vit.depth) for row in _block(vit, i)), *_last(vit)]


def rows_like_dinov2(vit: ViT) -> list[Row]:
    return [*_embeddings(vit), *(row for i in range(vit.depth) for row in _dinov2_block(vit, i)), *_last(vit)]


def _embeddings(vit: ViT) -> Iterator[Row]:
    yield from dense("params/patch_embed", "embeddings.patch_embeddings.projection", patches(vit.patch))
    tokens = "embeddings.cls_token", "embeddings.register_tokens", "embeddings.position_embeddings"
    yield from prefix_rows(vit, *tokens)
    if vit.mask_token:
        yield Row(("params/mask_token",), ("embeddings.mask_token",), leading(1))


def _last(vit: ViT) -> Iterator[Row]:
    yield from affine("params/norm", "layernorm")


def _attention(vit: ViT, ours: str, theirs: str) -> Iterator[Row]:
    inner = f"{theirs}.attention.attention"
    names = f"{inner}.query", f"{inner}.key", f"{inner}.value", f"{theirs}.attention.output.dense"
    yield from attention(f"{ours}/attention", names, vit.heads)


def _block(vit: ViT, i: int) -> Iterator[Row]:
    ours, theirs = f"params/encoder/block{i}", f"encoder.layer.{i}"
    yield from affine(f"{ours}/norm1", f"{theirs}.layernorm_before")
    yield from _attention(vit, ours, theirs)
    yield from affine(f"{ours}/norm2", f"{theirs}.layernorm_after")
    yield from dense(f"{ours}/mlp1", f"{theirs}.intermediate.dense")
    yield from dense(f"{ours}/mlp2", f"{theirs}.output.dense")


def _dinov2_block(vit: ViT, i: int) -> Iterator[Row]:
    ours, theirs = f"params/encoder/block{i}", f"encoder.layer.{i}"
    yield from affine(f"{ours}/norm1", f"{theirs}.norm1")
    yield from _attention(vit, ours, theirs)
    yield from affine(f"{ours}/norm2", f"{theirs}.norm2")
    if vit.ffn == "swiglu":
        yield from gated(ours, f"{theirs}.mlp.weights_in")
        yield from dense(f"{ours}/mlp2", f"{theirs}.mlp.weights_out")
    else:
        yield from dense(f"{ours}/mlp1", f"{theirs}.mlp.fc1")
        yield from dense(f"{ours}/mlp2", f"{theirs}.mlp.fc2")
    for k in (1, 2):
        yield Row((f"{ours}/layer_scale{k}",), (f"{theirs}.layer_scale{k}.lambda1",))


PROJECTIONS = (
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
)
"""Names that transformers 5 has while a model is loaded; in files it has the older ones."""
LIKE_VIT = Architecture(
    "huggingface",
    describe,
    configure,
    rows_like_vit,
    aliases=(
        (r"^(vit|ijepa)\.", ""),
        (r"^layers\.", "encoder.layer."),
        *PROJECTIONS,
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    ),
    left_out=(r"pooler\..*", r"classifier\..*", r"decoder\..*", r"mask_token"),  # the last two are MAE's
)
LIKE_DINOV2 = Architecture(
    "huggingface",
    describe,
    configure,
    rows_like_dinov2,
    aliases=((r"^dinov2(_with_registers)?\.", ""), *PROJECTIONS),
    left_out=(r"classifier\..*",),
)
