"""Graph isomorphism networks on padded graphs. Shapes as in `ssljax.views.graphs.Graphs`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax import collectives
from ssljax.typing import Array


class GIN(nn.Module):
    """Graphs with features (batch, nodes, dim) -> (batch, depth * width), float32.

        h'_i = BatchNorm( ReLU( MLP( h_i + Σ_{j -> i} h_j ) ) ),   MLP = Dense, ReLU, Dense;   ε = 0, not learnt

    and a graph's features are the sums over its nodes of every layer's h, side by side. An edge counts where both of
    its ends are there; so a view that drops nodes need only say so, and nothing depends on the padding. A node without
    edges has its own features alone; a loop in the data is an edge like others. (GraphCL's script adds loops to all
    nodes of a graph but the last.) Kernels are Glorot-uniform, biases zero.

    norm: "batch", over the nodes of all graphs of the global batch, or "none".

    Xu et al., "How Powerful are Graph Neural Networks?", 2019; 3 layers of 32, with BatchNorm after ReLU: You et al.,
    "Graph Contrastive Learning with Augmentations", 2020.
    """

    width: int = 32
    depth: int = 3
    norm: str = "batch"
    chunks: int = 1
    dtype: DTypeLike = jnp.float32

    modality = "graphs"

    def __post_init__(self):
        super().__post_init__()
        if self.norm not in ("batch", "none"):
            raise ValueError(f"norm '{self.norm}' is unknown; use 'batch' or 'none'.")

    @property
    def num_features(self) -> int:
        return self.depth * self.width

    @nn.compact
    def __call__(self, features, edges, real, *, train: bool = False, axis: str | None = None, keys=None):
        """`keys` are accepted, as for every encoder, and not used."""
        x, sums = jnp.where(real[..., None], features, 0), []
        for i in range(1, self.depth + 1):
            x = (x + _neighbours(x, edges, real)).astype(self.dtype)
            for j in (1, 2):
                init, name = nn.initializers.xavier_uniform(), f"layer{i}_dense{j}"
                x = nn.relu(nn.Dense(self.width, kernel_init=init, dtype=self.dtype, name=name)(x))
            if self.norm == "batch":
                x = NodeBatchNorm(name=f"layer{i}_norm")(x, real, train=train, axis=axis)
            x = jnp.where(real[..., None], x, 0).astype(jnp.float32)
            sums.append(x.sum(axis=1))
        return jnp.concatenate(sums, axis=-1)


def _neighbours(x: Array, edges: Array, real: Array) -> Array:
    """The sum over each node's neighbours: (batch, nodes, dim) -> the same shape."""

    def one(x: Array, edges: Array, real: Array) -> Array:
        source, target = edges
        # Padding is of the last node, with weight 0: no index is out of range.
        counts = (source >= 0) & real[source] & real[target]
        sent = jnp.where(counts[:, None], x[source], 0)
        return jax.ops.segment_sum(sent, jnp.where(counts, target, 0), num_segments=len(x))

    return jax.vmap(one)(x, edges, real)


class NodeBatchNorm(nn.Module):
    """BatchNorm whose mean and (biased) variance are over the nodes of all graphs of the global batch.

    As `ssljax.models.norm.BatchNorm` with one group, but padding is in neither the sums nor the count: a large graph
    weighs as many times a small one as it has nodes.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x, real, *, train: bool, axis: str | None = None):
        """x (batch, nodes, channels), real (batch, nodes) -> the shape of x, float32."""
        channels = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        x, real = x.astype(jnp.float32), real[..., None]
        mean, var = running_mean.value, running_var.value
        if train:
            count = jnp.maximum(collectives.mean(real.sum(dtype=jnp.float32), axis), 1e-6)
            mean = collectives.mean(jnp.where(real, x, 0.0).sum((0, 1)), axis) / count
            var = collectives.mean(jnp.where(real, jnp.square(x - mean), 0.0).sum((0, 1)), axis) / count
            if not self.is_initializing():
                for running, batch in ((running_mean, mean), (running_var, var)):
                    running.value = self.momentum * running.value + (1 - self.momentum) * batch
        x = (x - mean) * jax.lax.rsqrt(var + self.epsilon)
        x = x * self.param("scale", nn.initializers.ones, (channels,))
        return x + self.param("bias", nn.initializers.zeros, (channels,))
