"""A tiny encoder of I-JEPA by Hugging Face's IJepaModel with random parameters, at two sizes of images."""

import numpy as np
import torch
import transformers
from seeded import normal, save, weight
from transformers import IJepaConfig, IJepaModel

TINY = dict(image_size=16, patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)


def main():
    model = IJepaModel(IJepaConfig(**TINY, intermediate_size=64)).double().eval()
    weights = {k: weight(k, tuple(v.shape)) for k, v in model.state_dict().items()}
    model.load_state_dict({k: torch.tensor(v) for k, v in weights.items()})
    arrays = {"epsilon": model.config.layer_norm_eps, **weights}
    for name, shape in (("square", (2, 16, 16, 3)), ("wide", (2, 12, 24, 3))):
        arrays[f"{name}.images"] = normal(name, shape)
        pixels = torch.tensor(arrays[f"{name}.images"], dtype=torch.float64).permute(0, 3, 1, 2)
        with torch.no_grad():
            arrays[f"{name}.tokens"] = np.asarray(model(pixels, interpolate_pos_encoding=True).last_hidden_state)
    save("ijepa", f"transformers {transformers.__version__}, torch {torch.__version__}, in float64", **arrays)


if __name__ == "__main__":
    main()
