"""NPID's noise-contrastive loss and MoCo v3's symmetric one, values and gradients, from PyTorch's own operations.

NPID's is computed from probabilities, once with the 1e-7 that the authors' code adds to its denominators and once
without; Z is estimated from the same batch. MoCo v3's is a cross-entropy times 2 T, summed over both directions.
"""

import numpy as np
import torch
import torch.nn.functional as F
from seeded import save

BATCH, DIM, NOISE, EXAMPLES, TEMPERATURE = 8, 12, 20, 500, 0.2


def npid(positive, noise, z, epsilon):
    chance = NOISE / EXAMPLES
    data = torch.exp(positive) / z
    other = torch.exp(noise) / z
    found = torch.log(data / (data + chance + epsilon)).sum()
    rejected = torch.log(chance / (other + chance + epsilon)).sum()
    return -(found + rejected) / BATCH


def moco_v3(q1, q2, k1, k2):
    def direction(q, k):
        logits = F.normalize(q, dim=1) @ F.normalize(k, dim=1).T / TEMPERATURE
        return 2 * TEMPERATURE * F.cross_entropy(logits, torch.arange(BATCH))

    return direction(q1, k2) + direction(q2, k1)


def main():
    random = np.random.RandomState(0)
    arrays = {
        "positive": random.uniform(0, 1, BATCH) / TEMPERATURE,
        "noise": random.uniform(-0.5, 1, (BATCH, NOISE)) / TEMPERATURE,
        "examples": EXAMPLES,
        "temperature": TEMPERATURE,
    }
    arrays |= {name: random.standard_normal((BATCH, DIM)) for name in ("q1", "q2", "k1", "k2")}
    arrays = {k: x if np.ndim(x) == 0 else x.astype(np.float32) for k, x in arrays.items()}
    inputs = {k: torch.tensor(x, dtype=torch.float64) for k, x in arrays.items()}

    similarities = [inputs[name].requires_grad_() for name in ("positive", "noise")]
    z = torch.exp(torch.cat([similarities[0][:, None], similarities[1]], 1)).mean().item() * EXAMPLES
    arrays["z"] = z
    for name, epsilon in (("nce", 0.0), ("nce_authors", 1e-7)):
        value = npid(*similarities, z, epsilon)
        gradients = torch.autograd.grad(value, similarities)
        arrays |= {
            name: value.item(),
            f"{name}_dpositive": gradients[0].numpy(),
            f"{name}_dnoise": gradients[1].numpy(),
        }

    queries = [inputs[name].requires_grad_() for name in ("q1", "q2")]
    value = moco_v3(*queries, inputs["k1"], inputs["k2"])
    dq1, dq2 = torch.autograd.grad(value, queries)
    arrays |= {"moco_v3": value.item(), "moco_v3_dq1": dq1.numpy(), "moco_v3_dq2": dq2.numpy()}

    save("nce", f"torch {torch.__version__}, in float64", **arrays)


if __name__ == "__main__":
    main()
