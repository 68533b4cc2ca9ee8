"""Numbers of parameters without classification heads: torchvision's ResNets and timm's Vision Transformers.

And the epsilon of the latter's norms, which no trained output would betray.
"""

import json
from pathlib import Path

import timm
import torch
import torchvision

VITS = {
    "vit_ti": "vit_tiny_patch16_224",
    "vit_s": "vit_small_patch16_224",
    "vit_b": "vit_base_patch16_224",
    "vit_l": "vit_large_patch16_224",
    "vit_h": "vit_huge_patch14_224",
}


def size(parameters) -> int:
    return sum(p.numel() for p in parameters)


def main():
    counts = {"made_by": f"torchvision {torchvision.__version__}, timm {timm.__version__}, torch {torch.__version__}"}
    with torch.device("meta"):
        for name in ("resnet18", "resnet34", "resnet50"):
            model = getattr(torchvision.models, name)()
            counts[name] = {"parameters": size(model.parameters()) - size(model.fc.parameters())}
        for name, timm_name in VITS.items():
            model = timm.create_model(timm_name, num_classes=0)
            counts[name] = {"parameters": size(model.parameters()), "positions": model.pos_embed.numel()}
            counts[name]["epsilon"] = model.norm.eps
    Path(__file__).with_name("parameter_counts.json").write_text(json.dumps(counts, indent=2) + "\n")


if __name__ == "__main__":
    main()
