"""Tiny DINOv2 models by Hugging Face, without and with registers, and PyTorch's bicubic resizing of positions.

All parameters are random, those too that a new model has as zeros or ones. Images are of the size that the model was
made for, or larger one way and smaller the other, so that its positions are resized; some patches are masked.
"""

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from seeded import normal, save, weight
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

TINY = dict(image_size=16, patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
MODELS = {
    "mlp": (Dinov2Model, Dinov2Config(**TINY)),
    "swiglu": (Dinov2Model, Dinov2Config(**TINY, use_swiglu_ffn=True)),
    "registers": (Dinov2WithRegistersModel, Dinov2WithRegistersConfig(**TINY, num_register_tokens=3)),
}
GIANT = Dinov2Config(hidden_size=1536, num_hidden_layers=40, num_attention_heads=24, use_swiglu_ffn=True)


def model_numbers(name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    kind, config = MODELS[name]
    model = kind(config).double().eval()
    weights = {k: weight(k, tuple(v.shape)) for k, v in model.state_dict().items()}
    model.load_state_dict({k: torch.tensor(v) for k, v in weights.items()})

    def tokens(images, **options):
        pixels = torch.tensor(inputs[images], dtype=torch.float64).permute(0, 3, 1, 2)
        with torch.no_grad():
            return model(pixels, **options)

    made = {
        "square": tokens("square").last_hidden_state,
        "wide": tokens("wide").last_hidden_state,
        "masked": tokens("wide", bool_masked_pos=torch.tensor(inputs["mask"])).last_hidden_state,
    }
    blocks = tokens("square", output_hidden_states=True).hidden_states[1:]
    made |= {f"block{i}": x for i, x in enumerate(blocks)}
    return {f"{name}.{k}": np.asarray(v) for k, v in (made | weights).items()}


def resized(positions: np.ndarray) -> dict[str, np.ndarray]:
    """As DINO and DINOv2 without registers have it, with `scale_factor`; and with registers, with `size`."""
    grid = torch.tensor(positions, dtype=torch.float64).permute(2, 0, 1)[None]
    arrays = {}
    for rows, columns in ((3, 5), (10, 16), (7, 4)):
        scale = tuple((n + 0.1) / side for n, side in zip((rows, columns), positions.shape, strict=False))
        offset = F.interpolate(grid, scale_factor=scale, mode="bicubic", antialias=False)
        plain = F.interpolate(grid, size=(rows, columns), mode="bicubic", antialias=False)
        antialias = F.interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True)
        for key, value in (("offset", offset), ("plain", plain), ("antialias", antialias)):
            arrays[f"resized.{key}.{rows}x{columns}"] = value[0].permute(1, 2, 0).numpy()
    return arrays


def main():
    random = np.random.RandomState(3)
    inputs = {
        "square": normal("square", (2, 16, 16, 3)),
        "wide": normal("wide", (2, 12, 24, 3)),
        "mask": random.uniform(size=(2, 3 * 6)) < 0.4,
        "positions": normal("positions", (7, 7, 2)),
    }
    arrays = inputs | resized(inputs["positions"])
    for name in MODELS:
        arrays |= model_numbers(name, inputs)
    with torch.device("meta"):
        giant = dict(Dinov2Model(GIANT).named_parameters())
    arrays["giant.parameters"] = sum(p.numel() for p in giant.values())
    arrays["giant.positions"] = giant["embeddings.position_embeddings"].numel()
    save("dinov2", f"transformers {transformers.__version__}, torch {torch.__version__}, in float64", **arrays)


if __name__ == "__main__":
    main()
