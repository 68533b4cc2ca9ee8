"""A graph from a file to a batch: edges, rows of features, labels of a split; what is wrong is said."""

import numpy as np
import pytest

from ssljax.data import DataError, eval_batches, train_dataset
from ssljax.data.nodes import open_nodes

GRAPH = {
    "edge_index": np.array([[0, 1, 1, 3, 0], [1, 0, 2, 3, 2]]),
    "x": np.array([[1.0, 3.0], [0.0, 0.0], [2.0, 0.0], [1.0, 1.0], [0.5, 0.5]]),
    "label": np.array([0, 1, 1, 0, -1]),
    "train_mask": np.array([True, True, False, False, True]),
    "test_mask": np.array([False, False, True, True, False]),
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
    unlabelled = open_nodes(graph(label=None), "train")
    assert not unlabelled.has_labels and "label" not in unlabelled[0]


def test_without_masks_a_tenth_is_to_learn_from(graph):
    rng = np.random.RandomState(0)
    many = {"x": rng.rand(400, 3), "label": rng.randint(0, 2, 400), "train_mask": None, "test_mask": None}
    train, test = (open_nodes(graph(**many), split)[0]["label"] for split in ("train", "test"))
    assert 20 < (train >= 0).sum() < 70 and ((train >= 0) ^ (test >= 0)).all()


def test_features_may_be_given_by_their_entries(graph):
    rows, columns = np.nonzero(GRAPH["x"])
    entries = {"feature_row": rows, "feature_col": columns, "feature_value": GRAPH["x"][rows, columns]}
    sparse = open_nodes(graph(x=None, feature_shape=np.array([5, 2]), **entries), "train")
    np.testing.assert_array_equal(sparse[0]["features"], open_nodes(graph(), "train")[0]["features"])


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
        ({"x": np.ones(5)}, r"The features of .* are \(5,\): give \(nodes, dim\)"),
        ({"x": np.array([[1.0, np.nan]] * 5)}, "The features of 5 nodes of .* are not finite"),
        ({"label": np.zeros(4, int)}, r"The labels of .* are \(4,\), but there are 5 nodes"),
        ({"test_mask": None}, "needs both train_mask and test_mask"),
        ({"test_mask": np.ones(4, bool)}, "needs both train_mask and test_mask"),
        ({"x": np.array([{"a": 1}], object)}, "write plain arrays with numpy.savez"),
    ],
)
def test_graphs_that_cannot_be_used_are_explained(changes, sentence, graph):
    with pytest.raises(DataError, match=sentence):
        open_nodes(graph(**changes), "train")


def test_isolated_nodes_and_loops_are_no_trouble(graph):
    source = open_nodes(graph(edge_index=np.array([[3], [3]])), "train")
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


# Text -----------------------------------------------------------------------------------------------------------------

CONTENT = "".join(f"n{i} {i} 1 {'ab'[i % 2]}\n" for i in range(20))


def test_text(tmp_path, caplog):
    (tmp_path / "x.content").write_text(CONTENT)
    (tmp_path / "x.cites").write_text("n1\tn0\nn0 n2\nn9 nobody\n")
    source = open_nodes(f"text:{tmp_path}", "train")
    np.testing.assert_array_equal(source[0]["edges"], [[0, 0, 1, 2], [1, 2, 0, 0]])
    np.testing.assert_allclose(source[0]["features"][3], [0.75, 0.25])
    assert "1 edges to nodes that are not listed are left out" in caplog.text
    labels = np.maximum(source[0]["label"], open_nodes(f"text:{tmp_path}", "test")[0]["label"])
    np.testing.assert_array_equal(labels, np.arange(20) % 2)


@pytest.mark.parametrize(
    "content, cites, sentence",
    [
        (None, "", "has 0 files NAME.content"),
        (CONTENT, None, "cannot be read"),
        (CONTENT + "n20 1 a\n", "n0 n1", "Line 21 of .*x.content' must have 4 words"),
        (CONTENT, "n0 n1 n2", "Line 1 of .*x.cites' must have 2 words"),
        (CONTENT + "n0 1 1 a\n", "n0 n1", "has nodes of one name"),
        (CONTENT + "n20 1 ? a\n", "n0 n1", "features that are no numbers"),
    ],
)
def test_what_is_wrong_with_text_is_said(content, cites, sentence, tmp_path):
    for name, text in (("x.content", content), ("x.cites", cites)):
        if text is not None:
            (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=sentence):
        open_nodes(f"text:{tmp_path}", "train")
