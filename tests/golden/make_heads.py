"""Heads by lightly in train mode: outputs, and gradients of their weighted sum by inputs and parameters.

Where lightly's head of a name is not the paper's, its `ProjectionHead` is given the paper's layers. Parameters come
from `seeded.weight`, the weights of the sum from `seeded.normal` by the head's name.
"""

import lightly
import numpy as np
import torch
from lightly.models.modules import heads
from lightly.models.modules.heads import ProjectionHead
from seeded import normal, save, weight
from torch.nn import BatchNorm1d, ReLU

BATCH, DIM, HIDDEN, OUT, COUNT = 8, 6, 5, 4, 7


def hidden(dim: int, bias: bool) -> tuple:
    return dim, HIDDEN, BatchNorm1d(HIDDEN), ReLU(), bias


def last(bias: bool) -> tuple:
    return HIDDEN, OUT, None, None, bias


HEADS = {
    "byol": ProjectionHead([hidden(DIM, True), last(False)]),
    "vicreg": ProjectionHead([hidden(DIM, True), hidden(HIDDEN, True), last(False)]),
    "swav": ProjectionHead([hidden(DIM, True), last(True)]),
    "barlow_twins": ProjectionHead([hidden(DIM, False), hidden(HIDDEN, False), last(False)]),
    "moco_v2": heads.MoCoProjectionHead(DIM, HIDDEN, OUT),
    "moco_v3": ProjectionHead([hidden(DIM, False), (HIDDEN, OUT, BatchNorm1d(OUT, affine=False), None, False)]),
    "moco_v3_predictor": ProjectionHead([hidden(DIM, False), last(False)]),
    "simsiam": heads.SimSiamProjectionHead(DIM, HIDDEN, OUT),
    "simsiam_predictor": heads.SimSiamPredictionHead(DIM, HIDDEN, OUT),
    "dino": heads.DINOProjectionHead(DIM, HIDDEN, OUT, COUNT),
    "dino_resnet": heads.DINOProjectionHead(DIM, HIDDEN, OUT, COUNT, batch_norm=True),
    "dinov2": heads.DINOv2ProjectionHead(DIM, HIDDEN, OUT, COUNT),
    "prototypes": heads.SwaVPrototypes(DIM, COUNT),
}


def numbers(name: str, head: torch.nn.Module, x: np.ndarray) -> dict[str, np.ndarray]:
    for key, parameter in head.named_parameters():
        if parameter.requires_grad:  # all but a g of weight normalisation that is fixed at 1
            parameter.data = torch.tensor(weight(key, tuple(parameter.shape)), dtype=torch.float64)
    if name == "prototypes":
        torch.nn.init.zeros_(head.heads[0].bias)  # the paper's have none
        head.normalize()
    x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = head.double().train()(x)
    learnt = {k: p for k, p in head.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(y, [x, *learnt.values()], torch.tensor(normal(name, tuple(y.shape))).double())
    arrays = {"output": y, **dict(zip(["dx", *learnt], gradients, strict=True))}
    return {f"{name}.{k}": v.detach().numpy() for k, v in arrays.items()}


def main():
    arrays = {"x": 1 + 2 * normal("x", (BATCH, DIM))}
    for name, head in HEADS.items():
        arrays |= numbers(name, head, arrays["x"])
    save("heads", f"lightly {lightly.__version__}, torch {torch.__version__}, in float64", **arrays)


if __name__ == "__main__":
    main()
