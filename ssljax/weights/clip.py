"""CLIP's two towers as transformers has them."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from ssljax.models.clip import CLIPText, CLIPViT
from ssljax.weights.architecture import Architecture, Config, Described, TextInputs, can_be_written, must_be
from ssljax.weights.layout import CLIP_AND_POSITIONS, TRANSPOSED, patches
from ssljax.weights.rows import Row, affine, attention, dense
from ssljax.weights.vision import huggingface_inputs, huggingface_preprocessing, images_of, ratio

OPENAI = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of the pixels that CLIP learnt from."""
IMAGE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "layer_norm_eps": 1e-5,
    "hidden_act": "quick_gelu",
}
TEXT = {
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "layer_norm_eps": 1e-5,
    "hidden_act": "quick_gelu",
    "eos_token_id": 49407,
    "projection_dim": 512,
}
"""What a config.json may leave out, as transformers does with its defaults."""
OLD_END = 2
"""The eos_token_id of OpenAI's files, which is wrong: with it transformers takes the largest id of a text instead."""


def describe_image(config: Config, preprocessing: Config) -> Described:
    """Of a whole CLIP's config, or of its image tower's."""
    c = {**IMAGE, **config.get("vision_config", config)}
    must_be(c, hidden_act="quick_gelu", num_channels=3)
    vit = CLIPViT(
        c["patch_size"],
        c["hidden_size"],
        c["num_hidden_layers"],
        c["num_attention_heads"],
        ratio(c["intermediate_size"], c["hidden_size"]),
        epsilon=c["layer_norm_eps"],
    )
    return Described(vit, images_of(c["image_size"]), huggingface_inputs(c["image_size"], preprocessing, OPENAI))


def configure_image(described: Described) -> tuple[dict[str, Any], dict[str, Any]]:
    vit = described.encoder
    can_be_written(vit, "transformers' CLIPVisionModel", pool="cls")
    config = {
        "model_type": "clip_vision_model",
        "architectures": ["CLIPVisionModel"],
        "hidden_size": vit.width,
        "intermediate_size": int(vit.width * vit.mlp_ratio),
        "num_hidden_layers": vit.depth,
        "num_attention_heads": vit.heads,
        "image_size": described.example.shape[1],
        "patch_size": vit.patch,
        "layer_norm_eps": vit.epsilon,
        "hidden_act": vit.activation,
    }
    return config, huggingface_preprocessing(described.inputs)


def describe_text(config: Config, _: Config) -> Described:
    """Of a whole CLIP's config, or of its text tower's with projection."""
    of_text = {"projection_dim": config.get("projection_dim", 512), **config.get("text_config", config)}
    c = {**TEXT, **of_text, "projection_dim": config.get("projection_dim", of_text["projection_dim"])}
    activation = {"quick_gelu": "quick_gelu", "gelu": "gelu"}.get(c["hidden_act"])
    if activation is None:
        must_be(c, hidden_act="quick_gelu")
    text = CLIPText(
        c["vocab_size"],
        c["max_position_embeddings"],
        c["hidden_size"],
        c["num_hidden_layers"],
        c["num_attention_heads"],
        ratio(c["intermediate_size"], c["hidden_size"]),
        activation or "",
        c["projection_dim"],
        None if c["eos_token_id"] == OLD_END else c["eos_token_id"],
        c["layer_norm_eps"],
    )
    return Described(text, jax.ShapeDtypeStruct((1, 1), jnp.int32), TextInputs())


def configure_text(described: Described) -> tuple[dict[str, Any], dict[str, Any]]:
    text = described.encoder
    config = {
        "model_type": "clip_text_model",
        "architectures": ["CLIPTextModelWithProjection"],
        "vocab_size": text.vocabulary,
        "max_position_embeddings": text.positions,
        "hidden_size": text.width,
        "intermediate_size": int(text.width * text.mlp_ratio),
        "num_hidden_layers": text.depth,
        "num_attention_heads": text.heads,
        "layer_norm_eps": text.epsilon,
        "hidden_act": text.activation,
        "projection_dim": text.dim,
        "eos_token_id": OLD_END if text.eot is None else text.eot,
    }
    return config, {}


def image_rows(vit: CLIPViT) -> list[Row]:
    tower = "vision_model"
    positions = f"{tower}.embeddings.class_embedding", f"{tower}.embeddings.position_embedding.weight"
    patch = f"{tower}.embeddings.patch_embedding.weight"
    return [
        Row(("params/patch_embed/kernel",), (patch,), patches(vit.patch)),
        Row(("params/prefix", "params/positions"), positions, CLIP_AND_POSITIONS),
        *affine("params/pre_norm", f"{tower}.pre_layrnorm"),
        *(row for i in range(vit.depth) for row in _block(tower, i, vit.heads)),
        *affine("params/norm", f"{tower}.post_layernorm"),
    ]


def text_rows(text: CLIPText) -> list[Row]:
    tower = "text_model"
    return [
        Row(("params/embed/tokens",), (f"{tower}.embeddings.token_embedding.weight",)),
        Row(("params/embed/positions",), (f"{tower}.embeddings.position_embedding.weight",)),
        *(row for i in range(text.depth) for row in _block(tower, i, text.heads)),
        *affine("params/norm", f"{tower}.final_layer_norm"),
        Row(("params/project/kernel",), ("text_projection.weight",), TRANSPOSED),
    ]


def _block(tower: str, i: int, heads: int) -> Iterator[Row]:
    ours, theirs = f"params/encoder/block{i}", f"{tower}.encoder.layers.{i}"
    yield from affine(f"{ours}/norm1", f"{theirs}.layer_norm1")
    names = (f"{theirs}.self_attn.{name}_proj" for name in ("q", "k", "v", "out"))
    yield from attention(f"{ours}/attention", names, heads)
    yield from affine(f"{ours}/norm2", f"{theirs}.layer_norm2")
    yield from dense(f"{ours}/mlp1", f"{theirs}.mlp.fc1")
    yield from dense(f"{ours}/mlp2", f"{theirs}.mlp.fc2")


BUFFER = r".*\.position_ids"
"""Numbers from 0 on, which older files hold."""
CLIP_IMAGE = Architecture(
    "huggingface",
    describe_image,
    configure_image,
    image_rows,
    aliases=((r"^(embeddings|encoder|pre_layrnorm|post_layernorm)\.", r"vision_model.\1."),),
    left_out=(r"text_model\..*", r"(visual|text)_projection\.weight", "logit_scale", BUFFER),
)
CLIP_TEXT = Architecture(
    "huggingface",
    describe_text,
    configure_text,
    text_rows,
    aliases=((r"^(embeddings|encoder|final_layer_norm)\.", r"text_model.\1."),),
    left_out=(r"vision_model\..*", r"visual_projection\.weight", "logit_scale", BUFFER),
)
