"""Deep Graph Infomax by PyTorch Geometric: a graph convolution, and the loss with its gradients.

The graph has a node without neighbours, and one with a loop. PyTorch Geometric's loss is the sum of two means of
-log(σ + 1e-15), and its discriminator has no bias.
"""

import numpy as np
import torch
import torch_geometric
from seeded import normal, save
from torch_geometric.nn import DeepGraphInfomax, GCNConv

NODES, DIM, WIDTH = 9, 5, 4
EDGES = np.array([[0, 1], [1, 2], [2, 3], [3, 0], [0, 2], [4, 5], [5, 6], [6, 0], [7, 7]]).T  # nobody knows node 8


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = GCNConv(DIM, WIDTH)
        self.activation = torch.nn.PReLU(WIDTH)

    def forward(self, x, edges):
        return self.activation(self.convolution(x, edges))


def main():
    edges = np.unique(np.concatenate([EDGES, EDGES[::-1]], axis=1), axis=1)
    features, order = normal("graph features", (NODES, DIM)), np.random.RandomState(0).permutation(NODES)
    model = DeepGraphInfomax(
        WIDTH,
        Encoder(),
        summary=lambda z, *args: z.mean(dim=0).sigmoid(),
        corruption=lambda x, edges: (x[order], edges),
    ).double()
    weights = {
        "kernel": normal("graph kernel", (DIM, WIDTH)),
        "bias": normal("graph bias", (WIDTH,)),
        "slope": np.full(WIDTH, 0.3, np.float32),
        "discriminator": normal("graph discriminator", (WIDTH, WIDTH)),
    }
    with torch.no_grad():
        model.encoder.convolution.lin.weight.copy_(torch.tensor(weights["kernel"].T))
        model.encoder.convolution.bias.copy_(torch.tensor(weights["bias"]))
        model.encoder.activation.weight.copy_(torch.tensor(weights["slope"]))
        model.weight.copy_(torch.tensor(weights["discriminator"]))
    x, e = torch.tensor(features, dtype=torch.float64), torch.tensor(edges)
    positive, negative, summary = model(x, e)
    logits = [model.discriminate(z, summary, sigmoid=False) for z in (positive, negative)]
    for z in logits:
        z.retain_grad()
    loss = model.loss(positive, negative, summary)
    loss.backward()
    of_logits = [z.detach().clone().requires_grad_() for z in logits]
    again = -torch.log(torch.sigmoid(of_logits[0])).mean() - torch.log(1 - torch.sigmoid(of_logits[1])).mean()
    again.backward()
    convolution, activation = model.encoder.convolution, model.encoder.activation
    save(
        "graphs",
        f"torch_geometric {torch_geometric.__version__}, torch {torch.__version__}, in float64",
        features=features,
        edges=edges,
        order=order,
        convolved=convolution(x, e).detach().numpy(),
        nodes=positive.detach().numpy(),
        corrupted=negative.detach().numpy(),
        positive=logits[0].detach().numpy(),
        negative=logits[1].detach().numpy(),
        positive_gradient=of_logits[0].grad.numpy(),
        negative_gradient=of_logits[1].grad.numpy(),
        loss=loss.item(),
        kernel_gradient=convolution.lin.weight.grad.numpy().T,
        bias_gradient=convolution.bias.grad.numpy(),
        slope_gradient=activation.weight.grad.numpy(),
        discriminator_gradient=model.weight.grad.numpy(),
        **weights,
    )


if __name__ == "__main__":
    main()
