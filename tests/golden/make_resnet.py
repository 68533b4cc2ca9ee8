"""Pooled features of torchvision's ResNets with weights from `seeded.weight`: running statistics, and the batch's.

The features are computed in float64; `…_rounding` is how far from them PyTorch is in float32, which through fifty
layers of batch statistics is much further than one would guess.
"""

import torch
import torchvision
from seeded import normal, save, weight


def seeded_model(name: str) -> torch.nn.Module:
    model = getattr(torchvision.models, name)()
    model.fc = torch.nn.Identity()
    state = {k: torch.tensor(weight(k, tuple(v.shape))) for k, v in model.state_dict().items() if v.ndim}
    model.load_state_dict(state, strict=False)
    return model


def main():
    images = torch.tensor(normal("images", (4, 64, 64, 3))).permute(0, 3, 1, 2)
    arrays = {}
    for name in ("resnet18", "resnet50"):
        exact, single = seeded_model(name).double(), seeded_model(name)
        for mode in (False, True):
            with torch.no_grad():
                features = exact.train(mode)(images.double())
                rounding = (single.train(mode)(images) - features).abs().max()
            label = f"{name}_{'train' if mode else 'eval'}"
            arrays |= {label: features.numpy(), f"{label}_rounding": rounding.numpy()}
        # After one step in train mode, of the first norm and of the last shortcut's.
        for norm in ("bn1", "layer4.0.downsample.1"):
            for statistic in ("running_mean", "running_var"):
                arrays[f"{name}.{norm}.{statistic}"] = exact.state_dict()[f"{norm}.{statistic}"].numpy()
    save("resnet", f"torchvision {torchvision.__version__}, torch {torch.__version__}, in float64", **arrays)


if __name__ == "__main__":
    main()
