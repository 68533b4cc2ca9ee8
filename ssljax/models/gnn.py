"""Graph neural networks, on graphs whose edges are lists of pairs of nodes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax.typing import Array


def propagate(x: Array, edges: Array) -> Array:
    """D^(-1/2) (A + I) D^(-1/2) x, with the degrees D of A + I: what a graph convolution does with its neighbours.

    x (batch, nodes, dim); edges (batch, 2, edges), from the first row's nodes to the second's, an undirected graph's in
    both directions; an edge of -1 and -1 is padding. A node has one loop, whether the edges have it or not, and one
    without neighbours keeps what it has.

    Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks", 2017.
    """

    def one(x: Array, edges: Array) -> Array:
        source, target = edges
        counts = ((source != target) & (source >= 0)).astype(x.dtype)
        degree = 1 + jax.ops.segment_sum(counts, target, num_segments=len(x))
        scale = jax.lax.rsqrt(degree)[:, None]
        scaled = x * scale
        # Padding is of the last node, with weight 0: no index is out of range.
        sent = scaled[source] * counts[:, None]
        return scale * (scaled + jax.ops.segment_sum(sent, target, num_segments=len(x)))

    return jax.vmap(one)(x, edges)


class GCN(nn.Module):
    """`depth` graph convolutions σ(D^(-1/2) (A + I) D^(-1/2) x W + b): features (batch, nodes, dim) and edges (batch,
    2, edges) as in `propagate` -> (batch, nodes, width), float32.

    σ is a ReLU whose slope below 0 is learnt, one number a layer (`slopes="channel"`: one a channel).
    """

    width: int = 512
    depth: int = 1
    slopes: str = "one"
    chunks: int = 1
    dtype: DTypeLike = jnp.float32

    modality = "nodes"

    def __post_init__(self):
        super().__post_init__()
        if self.slopes not in ("one", "channel"):
            raise ValueError(f"slopes '{self.slopes}' are unknown; use 'one' or 'channel'.")

    @property
    def num_features(self) -> int:
        return self.width

    @nn.compact
    def __call__(self, features, edges, *, train: bool = False, axis: str | None = None, keys=None):
        """`axis` and `keys` are accepted, as for every encoder, and not used."""
        x = features.astype(self.dtype)
        for i in range(1, self.depth + 1):
            dense = nn.Dense(
                self.width,
                use_bias=False,
                kernel_init=nn.initializers.xavier_uniform(),
                dtype=self.dtype,
                name=f"dense{i}",
            )
            bias = self.param(f"bias{i}", nn.initializers.zeros, (self.width,))
            slope = self.param(
                f"slope{i}", nn.initializers.constant(0.25), () if self.slopes == "one" else (self.width,)
            )
            x = propagate(dense(x), edges) + bias.astype(self.dtype)
            x = jnp.where(x >= 0, x, slope.astype(x.dtype) * x)
        return x.astype(jnp.float32)
