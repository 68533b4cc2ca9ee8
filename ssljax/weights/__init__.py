"""Weights of timm and Hugging Face, in and out: which architectures there are, and which is an encoder's."""

from typing import Any

import flax.linen as nn

from ssljax.models.clip import CLIPText, CLIPViT
from ssljax.models.language import BERT, GPT
from ssljax.models.resnet import ResNet
from ssljax.models.vit import ViT
from ssljax.models.wav2vec import Wav2Vec2
from ssljax.weights import clip, language, own, resnet, speech, vit_huggingface, vit_timm
from ssljax.weights.architecture import Architecture, Config

ARCHITECTURES: dict[str, Architecture] = {
    "timm_resnet": resnet.TIMM,
    "timm_vit": vit_timm.VIT,
    "resnet": resnet.HUGGINGFACE,
    "vit": vit_huggingface.LIKE_VIT,
    "vit_mae": vit_huggingface.LIKE_VIT,
    "ijepa": vit_huggingface.LIKE_VIT,
    "dinov2": vit_huggingface.LIKE_DINOV2,
    "dinov2_with_registers": vit_huggingface.LIKE_DINOV2,
    "clip": clip.CLIP_IMAGE,
    "clip_vision_model": clip.CLIP_IMAGE,
    "clip_text_model": clip.CLIP_TEXT,
    "wav2vec2": speech.WAV2VEC2,
    "hubert": speech.WAV2VEC2,
    "bert": language.BERT_LIKE,
    "gpt2": language.GPT2,
}
"""By the model_type of Hugging Face's config.json, and of timm by ours."""


def architecture_of(config: Config) -> Architecture:
    """Of the model that a config.json tells of. Raises ValueError that lists what there is."""
    if "ssljax" in config:
        return own.OWN
    if "architecture" in config:
        return ARCHITECTURES["timm_vit" if config["architecture"].startswith("vit_") else "timm_resnet"]
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise ValueError(
            f"config.json tells of '{kind}', which is not among the architectures that can be read: "
            f"{', '.join(ARCHITECTURES)}."
        )
    return ARCHITECTURES[kind]


def architecture_for(encoder: nn.Module, library: str) -> Architecture:
    """As which an encoder of ours is written for "timm", "huggingface" or, in files of our own, "ssljax".

    Raises ValueError where a library has no such model.
    """
    if library == "ssljax":
        return own.OWN
    found: Any = None
    if library == "timm":
        found = "timm_vit" if isinstance(encoder, ViT) else "timm_resnet" if isinstance(encoder, ResNet) else None
    elif isinstance(encoder, ViT):
        found = "clip_vision_model" if isinstance(encoder, CLIPViT) else vit_huggingface.kind_of(encoder)
    else:
        kinds = {CLIPText: "clip_text_model", Wav2Vec2: "wav2vec2", BERT: "bert", GPT: "gpt2", ResNet: "resnet"}
        found = kinds.get(type(encoder))
    if found is None:
        raise ValueError(f"{library} has no model like {type(encoder).__name__}: use --format=safetensors.")
    return ARCHITECTURES[found]
