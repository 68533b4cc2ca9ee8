"""Sinkhorn's assignments and SwAV's loss with multi-crop and a queue: lightly's, and plain scaling to the marginals."""

import lightly
import numpy as np
import torch
from lightly.loss import SwaVLoss
from lightly.loss.swav_loss import sinkhorn
from seeded import save

BATCH, QUEUE, PROTOTYPES, ASSIGNED, CROPS = 8, 12, 6, 2, 4


def to_marginals(scores, epsilon, iterations):
    """As in SwAV's own code: in turn, prototypes are scaled to a sum of 1 / prototypes, examples to 1 / batch."""
    q = torch.exp(scores / epsilon)
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(dim=0) / scores.shape[1]
        q = q / q.sum(dim=1, keepdim=True) / scores.shape[0]
    return q / q.sum(dim=1, keepdim=True)


def main():
    random = np.random.RandomState(0)
    scores = random.uniform(-0.4, 0.4, (CROPS, BATCH, PROTOTYPES)).astype(np.float32)
    queue = random.uniform(-0.4, 0.4, (ASSIGNED, QUEUE, PROTOTYPES)).astype(np.float32)
    arrays = {"scores": scores, "queue": queue}
    crops = [torch.tensor(s, dtype=torch.float64, requires_grad=True) for s in scores]
    queues = [torch.tensor(q, dtype=torch.float64) for q in queue]

    for epsilon, iterations in ((0.05, 3), (0.05, 1), (0.03, 10)):
        q = sinkhorn(crops[0].detach(), iterations=iterations, epsilon=epsilon)
        arrays[f"sinkhorn_{epsilon}_{iterations}"] = q.numpy()
        q = to_marginals(crops[0].detach(), epsilon, iterations)
        arrays[f"to_marginals_{epsilon}_{iterations}"] = q.numpy()

    for name, crops_used, queue_used in (("two", 2, None), ("multi", CROPS, None), ("queue", CROPS, queues)):
        used = crops[:crops_used]
        loss = SwaVLoss()(used[:ASSIGNED], used[ASSIGNED:], queue_used)
        arrays[f"swav_{name}"] = loss.detach().numpy()
        arrays[f"swav_{name}_gradient"] = torch.stack(torch.autograd.grad(loss, used)).numpy()

    save("clustering", f"lightly {lightly.__version__}, torch {torch.__version__}, in float64", **arrays)


if __name__ == "__main__":
    main()
