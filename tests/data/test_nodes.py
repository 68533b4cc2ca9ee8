"""A graph from a file to a batch: edges, rows of features, labels of a split; what is wrong is said."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from ssljax.data import DataError, eval_batches, train_dataset
from ssljax.data.nodes import open_nodes
from ssljax.modalities.nodes import Nodes

GRAPH = {
    "edge_index": np.array([[0, 1, 1, 3, 0], [1, 0, 2, 3, 2]]),
    "x": np.array([[1.0, 3.0], [0.0, 0.0], [2.0, 0.0], [1.0, 1.0], [0.5, 0.5]]),
    "label": np.array([0, 1, 1, 0, -1]),
    "train_mask": np.array([True, True, False, False, True]),
    "test_mask": np.array([False, False, True, True, False]),
}
ENTRIES = {
    "x": None,
    "feature_row": np.array([0]),
    "feature_col": np.array([0]),
    "feature_value": np.ones(1),
    "feature_shape": np.array([5, 2]),
}


@pytest.fixture
def graph(tmp_path):
    """`graph(**changes)`: the graph above as a source is spelt, with other arrays (None: without one)."""

    def write(**changes):
        arrays = {name: array for name, array in (GRAPH | changes).items() if array is not None}
        np.savez(tmp_path / "graph.npz", **arrays)
        return f"npz:{tmp_path / 'graph.npz'}"

    return write


def test_edges_go_both_ways_once_and_without_loops_and_rows_of_features_sum_to_one(graph):
    source = open_nodes(graph(), "train")
    example = source[0]
    pairs = set(map(tuple, example["edges"].T.tolist()))
    assert pairs == {(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)} and example["edges"].shape == (2, 6)
    expected = [[0.25, 0.75], [0, 0], [1, 0], [0.5, 0.5], [0.5, 0.5]]
    np.testing.assert_allclose(example["features"], expected, rtol=1e-6)
    assert source.shapes == {"features": ((5, 2), np.float32), "edges": ((2, 6), np.int32)} and len(source) == 1


def test_labels_are_those_of_the_split(graph):
    train, test = (open_nodes(graph(), split) for split in ("train", "test"))
    assert train[0]["label"].tolist() == [0, 1, -1, -1, -1] and test[0]["label"].tolist() == [-1, -1, 1, 0, -1]
    assert train.labels().tolist() == [0, 1] and train.class_names == test.class_names
    for none in (None, np.full(5, -1), np.array([0, 1, 2, -1, -1])):  # of classes with one node none is left to test
        unlabelled = open_nodes(graph(label=none, train_mask=None, test_mask=None), "train")
        assert not unlabelled.has_labels and "label" not in unlabelled[0]


@pytest.mark.parametrize("sizes, learnt", [((300, 100), (30, 10)), ((25, 25), (2, 2)), ((40, 2, 1), (4, 1, 1))])
def test_without_masks_a_tenth_of_each_class_is_to_learn_from(sizes, learnt, graph):
    labels = np.random.RandomState(0).permutation(np.repeat(np.arange(len(sizes) + 1) - 1, (5, *sizes)))
    many = {"x": np.ones((len(labels), 3)), "label": labels, "train_mask": None, "test_mask": None}
    train, test = (open_nodes(graph(**many), split)[0]["label"] for split in ("train", "test"))
    assert tuple(np.bincount(train[train >= 0])) == learnt
    np.testing.assert_array_equal((train >= 0).astype(int) + (test >= 0), labels >= 0)
    np.testing.assert_array_equal(np.maximum(train, test), labels)
    np.testing.assert_array_equal(open_nodes(graph(**many), "train")[0]["label"], train)


def test_the_tenth_is_the_same_everywhere(graph):
    """Of the even and of the odd places the two of the lowest SHA-256."""
    many = {"x": np.ones((30, 3)), "label": np.arange(30) % 2, "train_mask": None, "test_mask": None}
    chosen = open_nodes(graph(**many), "train")[0]["label"]
    assert np.flatnonzero(chosen >= 0).tolist() == [8, 9, 10, 29]


def test_features_may_be_given_by_their_entries(graph):
    rows, columns = np.nonzero(GRAPH["x"])
    entries = {"feature_row": rows, "feature_col": columns, "feature_value": GRAPH["x"][rows, columns]}
    sparse = open_nodes(graph(x=None, feature_shape=np.array([5, 2]), **entries), "train")
    np.testing.assert_array_equal(sparse[0]["features"], open_nodes(graph(), "train")[0]["features"])


def test_an_encoder_is_given_a_graph_as_a_source_makes_it(graph):
    nodes, source = Nodes(ConfigDict({"data": {"shape": (5, 2, 6)}})), open_nodes(graph(), "train")
    batch = nodes.as_batch({"features": GRAPH["x"], "edges": GRAPH["edge_index"]})
    for name, array in batch.items():
        np.testing.assert_array_equal(array[0], source[0][name])
    assert nodes.as_batch({"features": GRAPH["x"], "edges": np.zeros((2, 0))})["edges"].shape == (1, 2, 0)
    for changes, sentence in (
        ({"edges": np.array([[0], [9]])}, "between nodes 0 to 9, but there are 5"),
        ({"features": np.ones((5, 3))}, r"features \(nodes, 2\) and edges \(2, edges\), not of \(5, 3\)"),
        ({"features": np.full((5, 2), np.inf)}, "features of 5 nodes of this graph are not finite"),
    ):
        with pytest.raises(ValueError, match=sentence):
            nodes.as_batch({"features": GRAPH["x"], "edges": GRAPH["edge_index"]} | changes)
    for wrong, sentence in (
        ((GRAPH["x"], GRAPH["edge_index"]), r"must be a dictionary of features \(nodes, 2\) .*, not tuple"),
        (GRAPH["x"], "not ndarray"),
        ({"x": GRAPH["x"], "edge_index": GRAPH["edge_index"]}, "but has x, edge_index, and no features"),
        ({}, "but has nothing, and no features"),
    ):
        with pytest.raises(ValueError, match=sentence):
            nodes.as_batch(wrong)


def test_the_demo_is_cora_with_its_public_split():
    train, test = (open_nodes("demo", split) for split in ("train", "test"))
    assert train.shapes["features"][0] == (2708, 1433) and train.shapes["edges"][0] == (2, 10556)
    assert len(train.labels()) == 140 and len(test.labels()) == 1000
    assert np.bincount(train.labels()).tolist() == [20] * 7


def test_batches_hold_the_graph_again_and_again(graph):
    source = open_nodes(graph(), "train")
    batch = train_dataset(source, batch_size=3, seed=0)[7]
    assert set(batch) == {"features", "edges", "index"} and batch["features"].shape == (3, 5, 2)
    (whole,) = eval_batches(source, 2)
    assert whole["mask"].tolist() == [True, False]
    assert whole["label"].tolist() == [[0, 1, -1, -1, -1], [-1] * 5]


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"edge_index": None}, r"has no edges: give edge_index \(2, edges\)"),
        ({"edge_index": np.zeros((3, 2), int)}, r"has edges \(3, 2\) of int64"),
        ({"edge_index": np.array([[0], [5]])}, "between nodes 0 to 5, but there are 5: number them from 0"),
        ({"x": None}, "has no features: it has edge_index, label"),
        ({"x": np.ones(5)}, r"The features of .* are \(5,\) of float64: give numbers \(nodes, dim\)"),
        ({"x": np.array([[1.0, np.nan]] * 5)}, "The features of 5 nodes of .* are not finite"),
        ({"x": np.array([["a"]] * 5)}, r"The features of .* are \(5, 1\) of <U1: give numbers"),
        (
            ENTRIES | {"feature_row": np.array([7])},
            "feature_row of .* goes from 7 to 7, .*: number from 0 to 4",
        ),
        (ENTRIES | {"feature_col": np.array([-1])}, "feature_col of .* goes from -1 to -1"),
        (ENTRIES | {"feature_value": np.ones(3)}, "do not fit: give a row, a column and a number for each entry"),
        ({"label": np.array(list("abcde"))}, r"label of .* is of <U1 and begins \['a', .*: give whole numbers from 0"),
        ({"label": np.array([0, 1, np.nan, 0, 1])}, "label of .* is of float64"),
        ({"label": np.array([0, 1, -5, 0, 1])}, "begins .0, 1, -5, .*, and -1 where there is none"),
        ({"label": np.zeros(4, int)}, r"The labels of .* are \(4,\), but there are 5 nodes"),
        ({"class_name": np.array(["one"])}, "names 1 classes, but labels go up to 1"),
        ({"test_mask": None}, "needs both train_mask and test_mask"),
        ({"test_mask": np.ones(4, bool)}, "needs both train_mask and test_mask"),
        ({"train_mask": np.arange(5) == 4}, "train_mask of .* holds no node that has a label: put some of the 4 that"),
        ({"test_mask": np.zeros(5, bool)}, "test_mask of .* holds no node that has a label"),
        ({"test_mask": np.ones(5, bool)}, "2 nodes of .* are in both train_mask and test_mask: take each out of one"),
        ({"x": np.array([{"a": 1}], object)}, "write plain arrays with numpy.savez"),
    ],
)
def test_graphs_that_cannot_be_used_are_explained(changes, sentence, graph):
    with pytest.raises(DataError, match=sentence):
        open_nodes(graph(**changes), "train")


@pytest.mark.parametrize("edges", [np.array([[3], [3]]), np.zeros((2, 0))])
def test_isolated_nodes_and_loops_are_no_trouble(edges, graph):
    source = open_nodes(graph(edge_index=edges), "train")
    assert source[0]["edges"].shape == (2, 0) and len(source[0]["features"]) == 5


@pytest.mark.parametrize(
    "spec, split, sentence",
    [
        ("npz:nowhere.npz", "train", "There is no file 'nowhere.npz'"),
        ("planet:cora", "train", "no data source 'planet:cora': write one of demo, npz:PATH"),
        ("demo", "validation", "demo has no split 'validation': choose one of train, test"),
    ],
)
def test_sources_that_are_not_there(spec, split, sentence):
    with pytest.raises(DataError, match=sentence):
        open_nodes(spec, split)
