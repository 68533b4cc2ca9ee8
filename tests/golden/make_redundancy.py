"""Barlow Twins and VICReg, values and gradients: lightly's losses, and both in the conventions that lightly has not.

Those are the authors' Barlow Twins, a BatchNorm module shared by both views and weight 0.0051, and VICReg with the sum
of both views' variance terms, as in the paper's equation 6 and in solo-learn.
"""

import lightly
import numpy as np
import torch
from lightly.loss import BarlowTwinsLoss, VICRegLoss
from seeded import save

BATCH, DIM = 8, 10


def authors_barlow_twins(z1, z2):
    norm = torch.nn.BatchNorm1d(DIM, affine=False, dtype=torch.float64)
    error = norm(z1).T @ norm(z2) / BATCH - torch.eye(DIM)
    weights = torch.full((DIM, DIM), 0.0051, dtype=torch.float64).fill_diagonal_(1.0)
    return (weights * error**2).sum()


def summed_vicreg(z1, z2):
    loss = 10.0 * torch.nn.functional.mse_loss(z1, z2)
    for z in (z1, z2):
        covariance = torch.cov(z.T)
        deviation = torch.sqrt(covariance.diagonal() + 1e-4)
        loss = loss + 5.0 * torch.clamp(1 - deviation, min=0).mean()
        loss = loss + 2.0 * (covariance**2).fill_diagonal_(0.0).sum() / DIM
    return loss


def main():
    random = np.random.RandomState(0)
    # Spread so that some dimensions are inside VICReg's hinge and some outside, and some are correlated.
    mixing = random.standard_normal((DIM, DIM)) * np.linspace(0.05, 0.6, DIM)
    z1 = random.standard_normal((BATCH, DIM)) @ mixing + random.standard_normal(DIM)
    z2 = z1 + 0.2 * random.standard_normal((BATCH, DIM))
    arrays = {"z1": z1.astype(np.float32), "z2": z2.astype(np.float32)}

    losses = {
        "barlow_twins": BarlowTwinsLoss(),
        "barlow_twins_authors": authors_barlow_twins,
        "vicreg": VICRegLoss(),
        "vicreg_sum": summed_vicreg,
    }
    for name, loss in losses.items():
        inputs = [torch.tensor(arrays[z], dtype=torch.float64, requires_grad=True) for z in ("z1", "z2")]
        value = loss(*inputs)
        dz1, dz2 = torch.autograd.grad(value, inputs)
        arrays |= {name: value.item(), f"{name}_dz1": dz1.numpy(), f"{name}_dz2": dz2.numpy()}

    save("redundancy", f"lightly {lightly.__version__}, torch {torch.__version__}, in float64", **arrays)


if __name__ == "__main__":
    main()
