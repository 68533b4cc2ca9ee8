"""Smooth L1, also of some rows only, LayerNorm and InstanceNorm without scale and offset, and the targets that data2vec
makes by either: PyTorch's functions."""

import numpy as np
import torch
import torch.nn.functional as F
from seeded import save

BATCH, TOKENS, DIM, LAYERS = 8, 5, 6, 3


def main():
    random = np.random.RandomState(0)
    prediction, target = (2 * random.standard_normal((2, BATCH, TOKENS, DIM))).astype(np.float32)
    mask = random.uniform(size=(BATCH, TOKENS)) < 0.5
    layers = random.standard_normal((LAYERS, BATCH, TOKENS, DIM)).astype(np.float32)
    layers = ((layers + 0.5) * [[[[1.0]]], [[[3.0]]], [[[0.01]]]]).astype(np.float32)
    arrays = {"prediction": prediction, "target": target, "mask": mask, "layers": layers}

    x = torch.tensor(prediction, dtype=torch.float64, requires_grad=True)
    y = torch.tensor(target, dtype=torch.float64)
    masked = torch.tensor(mask)
    for beta in (0.0, 1.0, 2.0):
        for name, loss in (
            ("all", F.smooth_l1_loss(x, y, beta=beta)),
            ("masked", F.smooth_l1_loss(x[masked], y[masked], beta=beta)),
        ):
            arrays[f"smooth_l1_{beta}_{name}"] = loss.item()
            arrays[f"smooth_l1_{beta}_{name}_gradient"] = torch.autograd.grad(loss, x)[0].numpy()

    blocks = torch.tensor(layers, dtype=torch.float64)
    arrays["layer_norm"] = F.layer_norm(blocks, (DIM,)).numpy()
    average = sum(F.layer_norm(block, (DIM,)) for block in blocks) / LAYERS
    arrays["data2vec_target"] = F.layer_norm(average, (DIM,)).numpy()
    instances = [F.instance_norm(block.mT).mT for block in blocks]
    arrays["instance_norm"] = torch.stack(instances).numpy()
    arrays["data2vec_instance_target"] = F.layer_norm(sum(instances) / LAYERS, (DIM,)).numpy()
    save("regression", f"torch {torch.__version__}, in float64", **arrays)


if __name__ == "__main__":
    main()
