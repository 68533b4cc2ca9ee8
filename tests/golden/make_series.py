"""TS2Vec by the ts2vec package: its hierarchical loss with gradients, and its encoder, a tiny one on series with gaps.

Parameters of the encoder come from `seeded.weight`, the weights of the sum whose gradients are taken from
`seeded.normal`.
"""

import importlib.metadata

import numpy as np
import torch
from seeded import normal, save, weight
from ts2vec.models import TSEncoder
from ts2vec.models.losses import hierarchical_contrastive_loss

# (batch, time), alpha, temporal_unit: an odd number of steps and the defaults; late temporal terms; each term alone;
# one step; one series.
LOSSES = {
    "odd": ((4, 5), 0.5, 0),
    "late": ((4, 4), 0.3, 1),
    "instance": ((4, 3), 1.0, 0),
    "temporal": ((4, 3), 0.0, 0),
    "one_step": ((4, 1), 0.5, 0),
    "one_series": ((1, 4), 0.5, 0),
}


def losses():
    arrays = {}
    for name, (shape, alpha, unit) in LOSSES.items():
        views = [normal(f"{name}/{view}", (*shape, 3)) for view in ("z1", "z2")]
        z1, z2 = (torch.tensor(z, dtype=torch.float64, requires_grad=True) for z in views)
        # The package starts its sum in the default type.
        value = hierarchical_contrastive_loss(z1, z2, alpha=alpha, temporal_unit=unit)
        dz1, dz2 = torch.autograd.grad(value, [z1, z2])
        arrays |= {
            f"{name}/alpha": alpha,
            f"{name}/temporal_unit": unit,
            f"{name}/z1": views[0],
            f"{name}/z2": views[1],
            f"{name}/loss": value.item(),
            f"{name}/dz1": dz1.numpy(),
            f"{name}/dz2": dz2.numpy(),
        }
    return arrays


def encoder():
    model = TSEncoder(input_dims=2, output_dims=5, hidden_dims=4, depth=3).double().eval()
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    model.load_state_dict({name: torch.tensor(weight(name, shape)) for name, shape in shapes.items()})
    series = normal("series", (2, 20, 2))
    series[0, 4:6, 1] = np.nan
    series[1, 17:] = np.nan
    seen = normal("seen", (2, 20)) > 0
    arrays = {"encoder/series": series, "encoder/seen": seen}
    for name, mask in (("all", np.ones_like(seen)), ("some", seen)):
        # It writes zeros into what it is given.
        output = model(torch.tensor(series, dtype=torch.float64), torch.tensor(mask))
        total = (output * torch.tensor(normal("sum", tuple(output.shape)))).sum()
        gradients = torch.autograd.grad(total, list(model.parameters()))
        arrays[f"encoder/{name}"] = output.detach().numpy()
        arrays |= {f"encoder/{name}/d{p}": g.numpy() for p, g in zip(shapes, gradients, strict=True)}
    arrays["encoder/parameters"] = sum(p.numel() for p in TSEncoder(3, 320).parameters())
    return arrays


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("ts2vec", "torch"))
    save("series", f"{versions}, in float64", **losses(), **encoder())
