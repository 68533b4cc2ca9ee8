"""Pooled features of torchvision's ResNets with weights from `seeded.weight`: running statistics, and the batch's.

They are computed in float64; `….rounding` is how far from them PyTorch is in float32, which through fifty layers of
batch statistics is further than one would guess.
"""

import torch
import torchvision
from seeded import normal, save, weight

NORMS = ("bn1", "layer4.0.downsample.1")  # the first, and the last on a shortcut


def seeded_model(name: str) -> torch.nn.Module:
    model = getattr(torchvision.models, name)()
    model.fc = torch.nn.Identity()
    state = {k: torch.tensor(weight(k, tuple(v.shape))) for k, v in model.state_dict().items() if v.ndim}
    model.load_state_dict(state, strict=False)
    return model


def outputs(model: torch.nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Features in both modes and, of the two norms, the running statistics after a step in train mode."""
    with torch.no_grad():
        made = {"eval": model.eval()(images), "train": model.train()(images)}
    state = model.state_dict()
    return made | {f"{n}.{s}": state[f"{n}.{s}"] for n in NORMS for s in ("running_mean", "running_var")}


def main():
    images = torch.tensor(normal("images", (4, 64, 64, 3))).permute(0, 3, 1, 2)
    arrays = {}
    for name in ("resnet18", "resnet50"):
        exact = outputs(seeded_model(name).double(), images.double())
        single = outputs(seeded_model(name), images)
        for key, value in exact.items():
            arrays[f"{name}.{key}"] = value.numpy()
            arrays[f"{name}.{key}.rounding"] = (single[key] - value).abs().max().numpy()
    save("resnet", f"torchvision {torchvision.__version__}, torch {torch.__version__}, in float64", **arrays)


if __name__ == "__main__":
    main()
