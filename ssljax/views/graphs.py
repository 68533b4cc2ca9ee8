"""Views of graphs: Deep Graph Infomax's corruption of one, and GraphCL's augmentations of many, at fixed shapes.

Of many graphs, nothing is taken out of the arrays: what is dropped becomes padding. Each graph's draws come from its
own key and are made for every node or edge from its place in the graph, so they depend neither on the rest of the batch
nor on the amount of padding. Counts are shares of what is there, rounded down.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ssljax.typing import Array


class Graphs(NamedTuple):
    """features (batch, nodes, dim); edges (batch, 2, edges), from the first row's nodes to the second's, in both
    directions, each edge beside its way back, -1 where there is none; real (batch, nodes), the nodes that are there."""

    features: Array
    edges: Array
    real: Array


def permute_nodes(keys: Array, features: Array) -> Array:
    """Deep Graph Infomax's corruption: the rows of features (batch, nodes, dim) change places. One key for a graph."""
    return jax.vmap(lambda key, rows: jax.random.permutation(key, rows))(keys, features)


# GraphCL --------------------------------------------------------------------------------------------------------------
# You et al., "Graph Contrastive Learning with Augmentations", 2020. One key for a graph; ValueError for a share outside
# of [0, 1].


def drop_nodes(keys: Array, graphs: Graphs, share: float = 0.1) -> Graphs:
    """`share` of the nodes, chosen uniformly, go with all their edges."""
    return _keep(graphs, graphs.real & ~_choose(keys, graphs.real, share))


def drop_edges(keys: Array, graphs: Graphs, share: float = 0.1) -> Graphs:
    """`share` of the edges, chosen uniformly, go.

    As in the authors' code none is added, though the paper speaks of it, and each direction of an edge is one by
    itself, of which the other may stay.
    """
    there = graphs.edges[:, 0] >= 0
    kept = there & ~_choose(keys, there, share)
    return graphs._replace(edges=jnp.where(kept[:, None], graphs.edges, -1))


def mask_attributes(keys: Array, graphs: Graphs, share: float = 0.1) -> Graphs:
    """The features of `share` of the nodes, chosen uniformly, become noise with mean and standard deviation 0.5."""
    of_choice, of_noise = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    masked = _choose(of_choice, graphs.real, share)

    def noise(key: Array, features: Array) -> Array:
        draws = jax.vmap(lambda key: jax.random.normal(key, features.shape[1:]))(_keys(key, len(features)))
        return 0.5 + 0.5 * draws

    other = jax.vmap(noise)(of_noise, graphs.features)
    return graphs._replace(features=jnp.where(masked[..., None], other, graphs.features))


def subgraph(keys: Array, graphs: Graphs, share: float = 0.2) -> Graphs:
    """One node, chosen uniformly, and `share` of the graph's nodes, added one after the other: each time one that an
    edge leads to from those that are in, chosen uniformly. It stays smaller where none is left to add.

    The authors' code throws away the neighbours of all nodes but the first (`idx_neigh.union(…)` returns what it makes,
    and nothing takes it), so that theirs is a star; they keep it for their numbers and say to mend it, as here. Theirs
    also counts a draw of a node that is already in as a try, of which there are as many as nodes.
    """
    nodes = graphs.real.shape[1]
    steps = _count(share, nodes)

    def one(key: Array, edges: Array, real: Array) -> Array:
        draws = jax.vmap(jax.random.uniform)(_keys(key, steps + 1))
        wanted = _count(share, real.sum())
        source, target = edges

        def grow(kept, step_and_draw):
            step, draw = step_and_draw
            leads = (kept[source] & (source >= 0)).astype(jnp.int32)  # padding is of the last node, and leads nowhere
            reached = jax.ops.segment_max(leads, target, num_segments=nodes) > 0
            new = _pick(reached & real & ~kept, draw)
            return kept | (new & (step < wanted)), None

        return jax.lax.scan(grow, _pick(real, draws[0]), (jnp.arange(steps), draws[1:]))[0]

    return _keep(graphs, jax.vmap(one)(keys, graphs.edges, graphs.real))


def any_augmentation(keys: Array, graphs: Graphs, share: float = 0.1, kept: float = 0.2) -> Graphs:
    """For each graph one of the four, chosen uniformly (the authors' `random4`). kept: the share of `subgraph`."""
    of_choice, of_view = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    chosen = jax.vmap(lambda key: jax.random.randint(key, (), 0, 4))(of_choice)
    views = [view(of_view, graphs, share) for view in (drop_nodes, drop_edges, mask_attributes)]
    views.append(subgraph(of_view, graphs, kept))

    def select(*arrays: Array) -> Array:
        stacked = jnp.stack(arrays)
        return jax.vmap(lambda which, row: row[which], in_axes=(0, 1))(chosen, stacked)

    return jax.tree.map(select, *views)


def _keep(graphs: Graphs, kept: Array) -> Graphs:
    """The graphs of the kept nodes and of the edges between them."""
    source, target = graphs.edges[:, 0], graphs.edges[:, 1]
    ends = (jnp.take_along_axis(kept, jnp.maximum(end, 0), axis=1) for end in (source, target))
    both = jnp.logical_and(*ends) & (source >= 0)
    return graphs._replace(edges=jnp.where(both[:, None], graphs.edges, -1), real=kept)


def _choose(keys: Array, there: Array, share: float) -> Array:
    """(batch, n) bool: `share` of what is there, chosen uniformly."""
    count = _count(share, there.sum(axis=1))
    noise = jax.vmap(lambda key: jax.vmap(jax.random.uniform)(_keys(key, there.shape[1])))(keys)
    order = jnp.argsort(jnp.where(there, noise, jnp.inf), axis=1)
    return jnp.argsort(order, axis=1) < count[:, None]


def _count(share: float, n):
    """share * n, rounded down, but for a hair: 0.57 of 100 are 57, though their product is less in binary."""
    if not 0 <= share <= 1:
        raise ValueError(f"the share {share} of a graph must be in [0, 1].")
    return math.floor(share * n + 1e-4) if isinstance(n, int) else jnp.floor(share * n + 1e-4).astype(jnp.int32)


def _pick(candidates: Array, draw: Array) -> Array:
    """One of the candidates (n,), by a draw in [0, 1), as a mask; none where there is none."""
    place = jnp.cumsum(candidates)
    chosen = jnp.minimum(jnp.floor(draw * place[-1]), place[-1] - 1) + 1
    return candidates & (place == chosen)


def _keys(key: Array, n: int) -> Array:
    """A key for each place, whatever their number."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(n))
