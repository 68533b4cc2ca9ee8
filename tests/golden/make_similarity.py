"""BYOL's and SimSiam's losses, values and gradients: lightly's NegativeCosineSimilarity, and squared distances."""

import lightly
import numpy as np
import torch
import torch.nn.functional as F
from lightly.loss import NegativeCosineSimilarity
from seeded import save

BATCH, DIM = 8, 12


def main():
    random = np.random.RandomState(0)
    arrays = {name: random.standard_normal((BATCH, DIM)).astype(np.float32) for name in ("p1", "p2", "z1", "z2")}
    inputs = {name: torch.tensor(x, dtype=torch.float64) for name, x in arrays.items()}
    p1, p2 = inputs["p1"].requires_grad_(), inputs["p2"].requires_grad_()
    z1, z2 = inputs["z1"], inputs["z2"]

    cosine = NegativeCosineSimilarity()

    def distance(p, z):
        return ((F.normalize(p, dim=1) - F.normalize(z, dim=1)) ** 2).sum(1)

    losses = {
        "negative_cosine": cosine(p1, z2),
        "simsiam": 0.5 * (cosine(p1, z2) + cosine(p2, z1)),
        "cosine_regression": distance(p1, z2).mean(),
        "byol": (distance(p1, z2) + distance(p2, z1)).mean(),
    }
    for name, loss in losses.items():
        dp1, dp2 = torch.autograd.grad(loss, (p1, p2), allow_unused=True)
        arrays |= {name: loss.item(), f"{name}_dp1": dp1.numpy()}
        if dp2 is not None:
            arrays[f"{name}_dp2"] = dp2.numpy()

    save("similarity", f"lightly {lightly.__version__}, torch {torch.__version__}, in float64", **arrays)


if __name__ == "__main__":
    main()
