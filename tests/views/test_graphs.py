"""GraphCL's augmentations: what is dropped, how often, and that neither padding nor the rest of the batch has a say."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ssljax.collectives import example_keys
from ssljax.views.graphs import Graphs, any_augmentation, drop_edges, drop_nodes, mask_attributes, subgraph

N = 3000
VIEWS = {
    "drop_nodes": partial(drop_nodes, share=0.4),
    "drop_edges": partial(drop_edges, share=0.4),
    "mask_attributes": partial(mask_attributes, share=0.4),
    "subgraph": partial(subgraph, share=0.4),
    "any_augmentation": partial(any_augmentation, share=0.4, kept=0.4),
}
# A ring of 0, 1, 2, 3 with a tail 3 - 5 - 6; node 4 is isolated, 2 has a loop.
EDGES = [(0, 1), (1, 2), (2, 3), (3, 0), (3, 5), (5, 6)]
EDGES = EDGES + [(b, a) for a, b in EDGES] + [(2, 2)]


def make(edges, nodes, more_nodes=0, more_edges=0, copies=1):
    """A batch of copies of one graph. Features are the node's number and its square; those of padding are nonsense."""
    features = np.stack([np.arange(nodes), np.arange(nodes) ** 2], axis=1).astype(np.float32)
    arrays = (
        np.pad(features, [(0, more_nodes), (0, 0)], constant_values=-1.0),
        np.pad(np.array(edges, np.int32).T, [(0, 0), (0, more_edges)], constant_values=-1),
        np.arange(nodes + more_nodes) < nodes,
    )
    return Graphs(*(jnp.asarray(np.repeat(x[None], copies, axis=0)) for x in arrays))


def keys(n=N):
    return example_keys(jax.random.key(0), n)


def run(view, graphs):
    """The views, and which of their edges are there."""
    found = Graphs(*map(np.asarray, jax.jit(view)(keys(len(graphs.features)), graphs)))
    there = found.edges[:, 0] >= 0
    kept = np.where(there[:, None], np.asarray(graphs.edges), -1)
    np.testing.assert_array_equal(found.edges, kept)  # no edge becomes another one
    return found, there


def frequency_is(counts, expected, total=N):
    """Within five standard errors."""
    expected = np.asarray(expected, np.float64)
    assert (np.abs(counts / total - expected) < 5 * np.sqrt(expected * (1 - expected) / total) + 1e-9).all()


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_depends_neither_on_the_padding_nor_on_the_rest_of_the_batch(name):
    view = VIEWS[name]
    (plain, _), (padded, there) = (run(view, make(EDGES, 7, *more, copies=12)) for more in ((0, 0), (4, 6)))
    np.testing.assert_array_equal(padded.features[:, :7], plain.features)
    np.testing.assert_array_equal(padded.real[:, :7], plain.real)
    np.testing.assert_array_equal(padded.edges[:, :, :13], plain.edges)
    assert not padded.real[:, 7:].any() and not there[:, 13:].any()
    np.testing.assert_array_equal(padded.features[:, 7:], -1.0)
    backwards = jax.jit(view)(keys(12)[::-1], make(EDGES, 7, copies=12))
    jax.tree.map(lambda found, expected: np.testing.assert_array_equal(found[::-1], expected), backwards, plain)
    drawn = np.concatenate([plain.real, plain.edges[:, 0], plain.features[..., 0]], axis=1)
    assert len(np.unique(drawn, axis=0)) > 3
    # And what a view has no part in stays as it was.
    changed = {n for n, a, b in zip(Graphs._fields, make(EDGES, 7), plain, strict=True) if (a != b).any()}
    dropped = {"edges"} if name == "drop_edges" else {"edges", "real"}
    assert changed == {"mask_attributes": {"features"}, "any_augmentation": {*Graphs._fields}}.get(name, dropped)


def test_dropped_nodes_take_their_edges_with_them():
    view, there = run(partial(drop_nodes, share=0.3), make(EDGES, 7, 3, 2, copies=N))
    np.testing.assert_array_equal(view.real.sum(axis=1), 7 - 2)
    frequency_is(view.real[:, :7].sum(axis=0), 5 / 7)
    for kept, edges in zip(view.real[:20], there[:20], strict=True):
        np.testing.assert_array_equal(edges[:13], [kept[a] and kept[b] for a, b in EDGES])


def test_dropped_edges_are_a_share_of_those_that_are_there():
    """Three of thirteen, each as likely as any other."""
    _, there = run(partial(drop_edges, share=0.25), make(EDGES, 7, 3, 2, copies=N))
    np.testing.assert_array_equal(there.sum(axis=1), 13 - 3)
    frequency_is(there[:, :13].sum(axis=0), 10 / 13)


def test_masked_attributes_are_noise_around_a_half():
    graphs = make(EDGES, 7, 3, 2, copies=N)
    view, _ = run(partial(mask_attributes, share=0.3), graphs)
    masked = (view.features != graphs.features).all(axis=-1)
    np.testing.assert_array_equal(masked.sum(axis=1), 2)
    np.testing.assert_array_equal(view.features[~masked], np.asarray(graphs.features)[~masked])
    frequency_is(masked[:, :7].sum(axis=0), 2 / 7)
    noise = view.features[masked]
    assert abs(noise.mean() - 0.5) < 5 * 0.5 / np.sqrt(noise.size)
    assert abs(noise.std() - 0.5) < 5 * 0.5 / np.sqrt(2 * noise.size)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 5 / np.sqrt(len(noise))


def walks(nodes, edges, wanted):
    """The probability of each set that a walk can end with, by following every choice."""
    ends = {}

    def follow(kept, probability, left):
        frontier = sorted({b for a, b in edges if a in kept} - kept)
        if not left or not frontier:
            ends[frozenset(kept)] = ends.get(frozenset(kept), 0.0) + probability
            return
        for node in frontier:
            follow(kept | {node}, probability / len(frontier), left - 1)

    for start in range(nodes):
        follow({start}, 1 / nodes, wanted)
    return ends


def test_a_subgraph_grows_by_uniform_choices_from_all_its_neighbours():
    """A share of 0.3 of seven nodes: a start and two more, but the isolated node stays alone."""
    view, there = run(partial(subgraph, share=0.3), make(EDGES, 7, 3, 2, copies=N))
    expected = walks(7, EDGES, 2)
    found, counts = np.unique(view.real, axis=0, return_counts=True)
    sets = [frozenset(np.flatnonzero(kept).tolist()) for kept in found]
    assert set(sets) == set(expected) and frozenset({4}) in sets and frozenset({3, 5, 6}) in sets
    frequency_is(counts, [expected[s] for s in sets])
    for kept, edges in zip(view.real[:20], there[:20], strict=True):
        np.testing.assert_array_equal(edges[:13], [kept[a] and kept[b] for a, b in EDGES])


def test_a_subgraph_grows_alike_on_four_devices(spread):
    """Its loop carries what differs from device to device."""
    view, graphs = VIEWS["subgraph"], make(EDGES, 7, copies=12)
    found = spread(lambda keys, *graphs: tuple(view(keys, Graphs(*graphs))), 4, P("data"))(keys(12), *graphs)
    jax.tree.map(np.testing.assert_array_equal, Graphs(*found), run(view, graphs)[0])


def test_one_of_the_four_is_chosen_for_each_graph():
    view, there = run(VIEWS["any_augmentation"], make(EDGES, 7, copies=N))
    graphs = make(EDGES, 7)
    features, nodes = (view.features != graphs.features).any(axis=(1, 2)), view.real.sum(axis=1)
    edges = ~features & (nodes == 7) & ~there.all(axis=1)
    frequency_is(np.array([features.sum(), edges.sum(), (nodes == 5).sum(), (nodes <= 3).sum()]), 1 / 4)


def test_the_count_is_of_each_graphs_own_nodes():
    real = jnp.arange(30) < jnp.array([[10], [30]])
    graphs = Graphs(jnp.zeros((2, 30, 1)), jnp.full((2, 2, 1), -1), real)

    @jax.jit
    def dropped(keys, graphs):
        return [jnp.sum(real & ~drop_nodes(keys, graphs, share).real, axis=1) for share in (0.1, 0.0, 1.0)]

    np.testing.assert_array_equal(dropped(keys(2), graphs), [[1, 3], [0, 0], [10, 30]])


@pytest.mark.parametrize("view", [drop_nodes, drop_edges, mask_attributes, subgraph])
def test_a_share_that_is_none_is_refused(view):
    with pytest.raises(ValueError, match=r"the share -0.1 of a graph must be in \[0, 1\]"):
        view(keys(1), make(EDGES, 7), share=-0.1)
