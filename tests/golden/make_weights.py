"""Tiny models of timm and Hugging Face as their own libraries save them: config.json, names and shapes of the tensors
in the file, and what the models give. Encoders of images also at another size, for which positions are resized.

The tensors themselves are not stored: `seeded.weight` draws them by their names in the file. The same way from files to
outputs serves `benchmarks/roundtrip.py` at published sizes.
"""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import timm
import torch
import transformers
from safetensors.numpy import load_file, save_file
from seeded import normal, save, weight
from timm.models import save_for_hf

T = transformers
MADE_BY = f"timm {timm.__version__}, transformers {transformers.__version__}, torch {torch.__version__}, in float64"
LIST, LENGTH = "tensors", 11
"""Under which name the file's tensors are listed, and how many tokens a text has."""


def from_timm(name: str, **fields) -> Callable[[], torch.nn.Module]:
    return lambda: timm.create_model(name, num_classes=0, **fields)


def from_huggingface(kind: str, **fields) -> Callable[[], torch.nn.Module]:
    """kind: the name of a model's class before "Model", such as "Bert" (CLIP's towers have longer ones)."""
    of = {"CLIPVision": ("CLIPVisionModel", "CLIPVisionConfig")}
    model, config = of.get(kind, (f"{kind}Model", f"{kind}Config"))
    return lambda: getattr(T, model)(getattr(T, config)(**fields))


def save_model(model: torch.nn.Module, folder: Path) -> None:
    """As its library saves it, but with weights that are drawn by their names in the file."""
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder)
    else:
        save_for_hf(model, folder, safe_serialization=True)
    tensors = load_file(folder / "model.safetensors")
    drawn = {k: weight(k, x.shape) if x.dtype == np.float32 else x for k, x in tensors.items()}
    save_file(drawn, folder / "model.safetensors", metadata={"format": "pt"})


def load_model(folder: Path) -> torch.nn.Module:
    """By its library. Raises AssertionError unless every parameter comes from the file (poolers that stand beside the
    encoder may be new, and counters of batches)."""
    config = json.loads((folder / "config.json").read_text())
    if "architecture" in config:
        vit = {"dynamic_img_size": True} if config["architecture"].startswith("vit") else {}
        return timm.create_model(f"local-dir:{folder}", pretrained=True, **vit).eval()
    model, report = getattr(T, config["architectures"][0]).from_pretrained(folder, output_loading_info=True)
    new = [k for k in report["missing_keys"] if not (k.startswith("pooler.") or k.endswith("num_batches_tracked"))]
    assert not new and not report["unexpected_keys"] and not report["mismatched_keys"], report
    return model.eval()


def inputs_for(model: torch.nn.Module, size: int) -> dict[str, np.ndarray]:
    """size: of images, whose second shape is another one; elsewhere samples or tokens."""
    kind = getattr(getattr(model, "config", None), "model_type", "timm")
    if kind in ("bert", "gpt2", "clip_text_model"):
        ids = np.random.RandomState(0).randint(1, model.config.vocab_size - 1, (2, LENGTH))
        if kind == "clip_text_model":
            ids[0, 5] = ids[1, -1] = model.config.vocab_size - 1
        return {"ids": ids}
    if kind in ("wav2vec2", "hubert"):
        return {"audio": normal("audio", (2, size))}
    images = {"square": normal("square", (2, size, size, 3))}
    if "resnet" not in type(model).__name__.lower():
        patch = model.config.patch_size if kind != "timm" else model.patch_embed.patch_size[0]
        images["wide"] = normal("wide", (2, size - patch, size + patch, 3))
    return images


def outputs(model: torch.nn.Module, name: str, x: np.ndarray) -> np.ndarray:
    """All tokens after the last norm; of ResNets and of CLIP's towers what they are pooled to."""
    given: Any = torch.tensor(x)
    if given.is_floating_point():
        given = given.to(next(model.parameters()).dtype)
    with torch.no_grad():
        if name in ("ids", "audio"):
            out = model(given)
            return (out.text_embeds if "text_embeds" in out else out.last_hidden_state).numpy()
        given = given.permute(0, 3, 1, 2)
        if not hasattr(model, "save_pretrained"):
            features = model.forward_features(given)
            return (model(given) if features.ndim == 4 else features).numpy()
        interpolates = model.config.model_type in ("vit", "vit_mae", "ijepa", "clip_vision_model")
        out = model(given, **({"interpolate_pos_encoding": True} if interpolates else {}))
        if model.config.model_type in ("resnet", "clip_vision_model"):
            return out.pooler_output.flatten(1).numpy()
        return out.last_hidden_state.numpy()


VIT = dict(img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2)
TOWER = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
OF_VIT = TOWER | dict(image_size=16, patch_size=4)
SPEECH = TOWER | dict(
    conv_dim=(8, 8, 8),
    conv_kernel=(4, 3, 2),
    conv_stride=(3, 2, 1),
    intermediate_size=24,
    num_conv_pos_embeddings=6,
    num_conv_pos_embedding_groups=4,
)
LARGE = dict(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)
WORDS = TOWER | dict(vocab_size=24, max_position_embeddings=12, intermediate_size=32)
IDS = dict(bos_token_id=0, eos_token_id=23, pad_token_id=1)
CASES: dict[str, tuple[Callable[[], torch.nn.Module], int]] = {
    "timm_resnet18": (from_timm("resnet18"), 32),
    "timm_vit": (from_timm("vit_base_patch16_224", **VIT), 16),
    "timm_dinov2": (from_timm("vit_base_patch14_dinov2", **VIT), 16),
    "timm_dinov2_registers": (from_timm("vit_base_patch14_reg4_dinov2", **VIT), 16),
    "timm_dinov2_swiglu": (from_timm("vit_giant_patch14_dinov2", **VIT | dict(embed_dim=24)), 16),
    "timm_ijepa": (from_timm("vit_huge_patch14_gap_224", **VIT), 16),
    "timm_clip": (from_timm("vit_base_patch32_clip_quickgelu_224", **VIT), 16),
    "resnet": (
        from_huggingface("ResNet", embedding_size=4, hidden_sizes=[16, 32], depths=[1, 2], layer_type="bottleneck"),
        32,
    ),
    "vit": (from_huggingface("ViT", **OF_VIT, intermediate_size=64), 16),
    "dinov2": (from_huggingface("Dinov2", **OF_VIT), 16),
    "dinov2_swiglu": (from_huggingface("Dinov2", **OF_VIT, use_swiglu_ffn=True), 16),
    "dinov2_registers": (from_huggingface("Dinov2WithRegisters", **OF_VIT, num_register_tokens=3), 16),
    "ijepa": (from_huggingface("IJepa", **OF_VIT, intermediate_size=64), 16),
    "clip_vision": (from_huggingface("CLIPVision", **OF_VIT, intermediate_size=64), 16),
    "clip_text": (
        lambda: T.CLIPTextModelWithProjection(T.CLIPTextConfig(**WORDS, **IDS, projection_dim=6)),
        LENGTH,
    ),
    "wav2vec2_base": (from_huggingface("Wav2Vec2", **SPEECH), 90),
    "wav2vec2_large": (from_huggingface("Wav2Vec2", **SPEECH, **LARGE), 90),
    "hubert": (from_huggingface("Hubert", **SPEECH), 90),
    "bert": (from_huggingface("Bert", **WORDS), LENGTH),
    "gpt2": (
        from_huggingface("GPT2", vocab_size=24, n_positions=12, n_embd=16, n_layer=2, n_head=2),
        LENGTH,
    ),
}
"""How a model is made, and the size of its inputs."""


def main():
    arrays = {}
    for name, (make, size) in CASES.items():
        with TemporaryDirectory() as place:
            folder = Path(place)
            save_model(make(), folder)
            tensors = load_file(folder / "model.safetensors")
            listed = {k: [*x.shape] for k, x in tensors.items() if x.dtype == np.float32}
            config, model = (folder / "config.json").read_text(), load_model(folder).double()
            arrays |= {f"{name}.config": config, f"{name}.{LIST}": json.dumps(listed)}
            for key, x in inputs_for(model, size).items():
                arrays |= {f"{name}.{key}": x, f"{name}.{key}.outputs": outputs(model, key, x)}
    save("weights", MADE_BY, **arrays)


if __name__ == "__main__":
    main()
