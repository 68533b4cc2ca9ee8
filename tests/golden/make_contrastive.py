"""NT-Xent and InfoNCE, values and gradients: lightly's NTXentLoss, also with a memory bank, and a cross-entropy."""

import lightly
import numpy as np
import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from seeded import save

BATCH, DIM, QUEUE = 8, 16, 24


def value_and_gradients(loss, *inputs):
    inputs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in inputs]
    value = loss(*inputs)
    return [value.item(), *(g.numpy() for g in torch.autograd.grad(value, inputs))]


def main():
    random = np.random.RandomState(0)
    z1 = random.standard_normal((BATCH, DIM)).astype(np.float32)
    z2 = (z1 + random.standard_normal((BATCH, DIM))).astype(np.float32)
    queue = random.standard_normal((QUEUE, DIM))
    queue = (queue / np.linalg.norm(queue, axis=1, keepdims=True)).astype(np.float32)
    arrays = {"z1": z1, "z2": z2, "queue": queue}

    for temperature in (0.1, 0.5):
        names = [f"nt_xent_{temperature}", f"nt_xent_{temperature}_dz1", f"nt_xent_{temperature}_dz2"]
        arrays |= zip(names, value_and_gradients(NTXentLoss(temperature), z1, z2), strict=True)

    for temperature in (0.07, 0.2):
        with_bank = NTXentLoss(temperature, memory_bank_size=(QUEUE, DIM))
        with_bank.memory_bank.bank = torch.tensor(queue, dtype=torch.float64)
        key = torch.tensor(z2, dtype=torch.float64)
        value, gradient = value_and_gradients(lambda query, loss=with_bank, key=key: loss(query, key), z1)
        arrays |= {f"info_nce_queue_{temperature}": value, f"info_nce_queue_{temperature}_dquery": gradient}

        def in_batch(query, key=key, temperature=temperature):
            return F.cross_entropy(F.normalize(query) @ F.normalize(key).T / temperature, torch.arange(BATCH))

        value, gradient = value_and_gradients(in_batch, z1)
        arrays |= {f"info_nce_batch_{temperature}": value, f"info_nce_batch_{temperature}_dquery": gradient}

    save("contrastive", f"lightly {lightly.__version__}, torch {torch.__version__}, in float64", **arrays)


if __name__ == "__main__":
    main()
