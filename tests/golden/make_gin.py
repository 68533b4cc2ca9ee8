"""GIN by PyTorch Geometric, with sums over nodes as readout, in train mode and in evaluation mode.

The arrays hold padded graphs, of which PyTorch Geometric is given the real part. Parameters come from `seeded.weight`,
the weights of the sum whose gradients are taken from `seeded.normal`.
"""

import numpy as np
import torch
import torch.nn.functional as F
import torch_geometric
from seeded import normal, save, weight
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GINConv, global_add_pool

DIM, WIDTH, NODES, EDGES = 5, 4, 8, 10
# In the first graph node 4 is isolated, the edge (0, 1) is there twice, and some edges have no way back; in the second
# and the last some nodes have a loop, which is all that one of them has.
GRAPHS = (
    (7, [(0, 1), (1, 0), (0, 1), (1, 2), (2, 1), (2, 3), (5, 6), (6, 5), (3, 6)]),
    (5, [(0, 0), (0, 2), (2, 0), (3, 1), (4, 4)]),
    (2, [(0, 1), (1, 0)]),
    (3, [(0, 1), (1, 0), (1, 2), (2, 1), (2, 2)]),
)


class GIN(torch.nn.Module):
    def __init__(self, depth):
        super().__init__()
        mlps = [
            torch.nn.Sequential(
                torch.nn.Linear(WIDTH if i else DIM, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, WIDTH)
            )
            for i in range(depth)
        ]
        self.convs = torch.nn.ModuleList(map(GINConv, mlps))
        self.norms = torch.nn.ModuleList(torch.nn.BatchNorm1d(WIDTH) for _ in mlps)

    def forward(self, data):
        x, sums = data.x, []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(F.relu(conv(x, data.edge_index)))
            sums.append(global_add_pool(x, data.batch))
        return torch.cat(sums, dim=1)


def main():
    shape = len(GRAPHS), NODES
    arrays = {"features": 7.0 * normal("padding", (*shape, DIM)), "real": np.zeros(shape, bool)}
    arrays["edges"], graphs = np.full((len(GRAPHS), 2, EDGES), -1, np.int32), []
    for i, (nodes, edges) in enumerate(GRAPHS):
        features = normal(f"features{i}", (nodes, DIM))
        arrays["features"][i, :nodes], arrays["real"][i, :nodes] = features, True
        arrays["edges"][i, :, : len(edges)] = np.array(edges).T
        x = torch.tensor(features, dtype=torch.float64)
        graphs.append(Data(x=x, edge_index=torch.tensor(edges).T, num_nodes=nodes))
    gin, batch = GIN(2), Batch.from_data_list(graphs)
    weights = {name: torch.tensor(weight(name, tuple(p.shape))) for name, p in gin.named_parameters()}
    gin.load_state_dict(weights, strict=False)
    gin = gin.double().train()
    output = gin(batch)
    total = (output * torch.tensor(normal("gin", tuple(output.shape)))).sum()
    names, parameters = zip(*gin.named_parameters(), strict=True)
    found = torch.autograd.grad(total, parameters)
    arrays |= {"graphs": output.detach().numpy()} | {f"d{n}": g.numpy() for n, g in zip(names, found, strict=True)}
    arrays |= {name: x.numpy() for name, x in gin.named_buffers() if "running" in name}
    arrays["inference"] = gin.eval()(batch).detach().numpy()
    save("gin", f"torch_geometric {torch_geometric.__version__}, torch {torch.__version__}, in float64", **arrays)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    main()
