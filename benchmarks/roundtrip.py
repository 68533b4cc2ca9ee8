"""Models of timm and Hugging Face at published sizes, read into our encoders, and written by us for the same library.

    PYTHONPATH=. golden-env/bin/python benchmarks/roundtrip.py [--write] [NAME …]

In the environment of tests/golden/README.md with `pip install jax flax optax einops ml_collections` added. Weights are
random (`tests/golden/seeded.py`). With --write the table goes into docs/weights.md. What is compared are all tokens (of
ResNets and CLIP's towers what they are pooled to), in float32 on both sides; a difference is the largest one of any
number, as a part of the largest output. NAME: only some of the models; of the others the table keeps its rows.
"""

import gc
import os
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
from sections import ROOT, measured, paragraph, publish, table

sys.path.insert(0, str(ROOT / "tests" / "golden"))
from make_weights import LENGTH, T, from_huggingface, from_timm, inputs_for, load_model, outputs, save_model

from ssljax.weights import architecture_for
from ssljax.weights.architecture import Described
from ssljax.weights.files import Weights, load, save

LARGE_SPEECH = dict(
    hidden_size=1024,
    num_hidden_layers=24,
    num_attention_heads=16,
    intermediate_size=4096,
    feat_extract_norm="layer",
    do_stable_layer_norm=True,
    conv_bias=True,
)
SMALL = dict(hidden_size=384, num_hidden_layers=12, num_attention_heads=6)
HUGE = dict(hidden_size=1280, num_attention_heads=16, intermediate_size=5120, patch_size=14)
CASES = {
    "timm resnet50": (from_timm("resnet50"), 224),
    "timm vit_base_patch16_224 (augreg, MAE, DINO, MoCo v3)": (from_timm("vit_base_patch16_224"), 224),
    "timm vit_small_patch16_224": (from_timm("vit_small_patch16_224"), 224),
    "timm vit_base_patch14_dinov2": (from_timm("vit_base_patch14_dinov2", img_size=224), 224),
    "timm vit_base_patch14_reg4_dinov2": (from_timm("vit_base_patch14_reg4_dinov2", img_size=224), 224),
    "timm vit_giant_patch14_dinov2, 2 of 40 blocks": (
        from_timm("vit_giant_patch14_dinov2", img_size=224, depth=2),
        224,
    ),
    "timm vit_huge_patch14_gap_224 (I-JEPA), 4 of 32 blocks": (from_timm("vit_huge_patch14_gap_224", depth=4), 224),
    "timm vit_base_patch32_clip_quickgelu_224": (from_timm("vit_base_patch32_clip_quickgelu_224"), 224),
    "ResNetModel, ResNet-50": (from_huggingface("ResNet"), 224),
    "ViTModel, ViT-B/16 (ViTMAE and DINO too)": (from_huggingface("ViT"), 224),
    "Dinov2Model, ViT-S/14": (from_huggingface("Dinov2", **SMALL, patch_size=14, image_size=518), 224),
    "Dinov2WithRegistersModel, ViT-S/14": (
        from_huggingface("Dinov2WithRegisters", **SMALL, patch_size=14, image_size=518),
        224,
    ),
    "IJepaModel, ViT-H/14, 4 of 32 blocks": (from_huggingface("IJepa", **HUGE, num_hidden_layers=4), 224),
    "CLIPVisionModel, ViT-B/32": (from_huggingface("CLIPVision"), 224),
    "CLIPTextModelWithProjection": (lambda: T.CLIPTextModelWithProjection(T.CLIPTextConfig()), LENGTH),
    "Wav2Vec2Model, Base": (from_huggingface("Wav2Vec2"), 16000),
    "Wav2Vec2Model, Large": (from_huggingface("Wav2Vec2", **LARGE_SPEECH), 16000),
    "HubertModel, Base": (from_huggingface("Hubert"), 16000),
    "BertModel, Base": (from_huggingface("Bert"), LENGTH),
    "GPT2Model": (from_huggingface("GPT2"), LENGTH),
}


def ours(weights: Weights, x: np.ndarray, like: np.ndarray) -> np.ndarray:
    tokens = hasattr(weights.encoder, "tokens") and like.ndim == 3
    y = jax.jit(partial(weights.encoder.apply, method="tokens" if tokens else "__call__"))(weights.variables, x)
    return np.asarray(getattr(y, "context", y))


def apart(x: np.ndarray, y: np.ndarray) -> float:
    assert x.shape == y.shape, (x.shape, y.shape)
    return float(np.abs(x - y).max() / np.abs(y).max())


def row(name: str, place: Path) -> list:
    make, size = CASES[name]
    save_model(make(), place / "theirs")
    model = load_model(place / "theirs")
    count = sum(p.numel() for p in model.parameters())
    inputs = inputs_for(model, size)
    expected = {key: outputs(model, key, x) for key, x in inputs.items()}
    del model
    gc.collect()
    weights = load(place / "theirs")
    read = {key: apart(ours(weights, x, expected[key]), expected[key]) for key, x in inputs.items()}
    library = "timm" if name.startswith("timm") else "huggingface"
    architecture = architecture_for(weights.encoder, library)
    # Positions are written as they are stored, for the size that the model was made for.
    stored = weights.variables["params"].get("positions")
    example = jax.ShapeDtypeStruct(next(iter(inputs.values())).shape, next(iter(inputs.values())).dtype)
    if stored is not None and example.shape[-1] == 3:
        side = round(len(stored) ** 0.5) * weights.encoder.patch
        example = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    save(place / "ours", architecture, Described(weights.encoder, example, weights.inputs), weights.variables, "")
    model = load_model(place / "ours")
    written = {key: apart(outputs(model, key, x), expected[key]) for key, x in inputs.items()}
    first, *other = inputs
    at_other = [read[other[0]], written[other[0]]] if other else ["", ""]
    return [name, count / 1e6, read[first], written[first], *at_other]


def main() -> None:
    import timm
    import torch

    names = [a for a in sys.argv[1:] if not a.startswith("--")] or list(CASES)
    head = """Made by `python benchmarks/roundtrip.py --write` with random weights, in float32 on a CPU: the largest
        difference, as a part of the largest output. Read: their file in our encoder. Written: our file in their
        model. At another size, images are a patch less high and a patch wider, so that positions are resized."""
    differences = [(name, ".1e") for name in ("read", "written", "read, another size", "written, another size")]
    rows = {row[0]: row for row in measured("weights.md", "Measured")}
    for name in names:
        with TemporaryDirectory() as place:
            for folder in ("theirs", "ours"):
                (Path(place) / folder).mkdir()
            rows[name] = row(name, Path(place))
            print(*rows[name], flush=True)
    versions = (
        f"timm {timm.__version__}, transformers {T.__version__}, torch {torch.__version__}, jax {jax.__version__}."
    )
    known = [rows[name] for name in CASES if name in rows]
    columns = "model", ("parameters, M", ".1f"), *differences
    blocks = [paragraph(head), table(columns, known), versions]
    publish("weights.md", "Measured", blocks)


if __name__ == "__main__":
    main()
