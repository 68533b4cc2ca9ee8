"""Many graphs from text files and archives, and a sentence for what cannot be used."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from ssljax.data.graphs import DEMOS, open_graphs
from ssljax.data.sources import DataError
from ssljax.modalities.graphs import Graphs

# Of three graphs the second has no nodes, and the third a loop, a double edge and a node without edges.
FILES = {
    "A": "4, 5\n5, 4\n3, 3\n4, 5\n1, 2\n2, 1\n",
    "graph_indicator": "1\n1\n3\n3\n3\n3\n",
    "graph_labels": "1\n1\n-1\n",
    "node_labels": "2\n5\n5\n2\n2\n2\n",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / f"X_{name}.txt").write_text(text)
    return tmp_path


def test_networks():
    source = open_graphs("demo", "all")
    assert len(source) == 1000 and source.labels().sum() == 500
    assert source.shapes["features"][0] == (136, 1) and source.shapes["edges"][0] == (2, 2498)
    edges = [source[i]["edges"] for i in range(20)]
    assert all({(b, a) for a, b in e.T} == {(a, b) for a, b in e.T} for e in edges)


def test_molecules():
    source = open_graphs("demo_mutag", "all")
    assert len(source) == 188 and source.class_names == ("0", "1") and source.labels().sum() == 125
    assert source.shapes["features"][0] == (28, 7) and source.shapes["edges"][0] == (2, 66)
    examples = [source[i] for i in range(188)]
    assert sum(x["real"].sum() for x in examples) == 3371
    assert sum((x["edges"][0] >= 0).sum() for x in examples) == 7442
    for x in examples:
        np.testing.assert_array_equal(x["features"].sum(axis=1), x["real"])
        pairs = {tuple(pair) for pair in x["edges"].T}
        assert {(b, a) for a, b in pairs} == pairs
    sizes = [len(open_graphs("demo_mutag", split)) for split in ("train", "val")]
    assert sum(sizes) == 188 and 5 < sizes[1] < 40


def test_text_files(folder, caplog):
    source = open_graphs(f"tu:{folder}", "all")
    assert len(source) == 2 and source.class_names == ("-1", "1") and list(source.labels()) == [1, 0]
    assert source.left_out == (f"{folder}: left out 1 graph without nodes",) == tuple(caplog.messages)
    first, second = source[0], source[1]
    np.testing.assert_array_equal(first["edges"], [[0, 1], [1, 0]])
    np.testing.assert_array_equal(second["edges"], [[1, 2], [2, 1]])
    np.testing.assert_array_equal(first["real"], [True, True, False, False])
    np.testing.assert_array_equal(first["features"], [[1, 0], [0, 1], [0, 0], [0, 0]])
    np.testing.assert_array_equal(source.gap()["edges"], -1)
    (folder / "X_node_labels.txt").write_text("2, 0\n5, 0\n5, 1\n2, 0\n2, 0\n2, 0\n")
    np.testing.assert_array_equal(open_graphs(f"tu:{folder}", "all")[0]["features"][:2], [[1, 0, 1, 0], [0, 1, 1, 0]])
    (folder / "X_node_labels.txt").write_text(FILES["node_labels"])
    (folder / "X_node_attributes.txt").write_text("1.5, 2\n" * 6)
    assert open_graphs(f"tu:{folder}", "all")[0]["features"].shape == (4, 4)
    for name in ("node_labels", "node_attributes", "graph_labels"):
        (folder / f"X_{name}.txt").unlink()
    (folder / "X_A.txt").write_text("")
    bare = open_graphs(f"tu:{folder}", "all")
    np.testing.assert_array_equal(bare[0]["features"], [[1], [1], [0], [0]])
    assert (bare[0]["edges"] == -1).all()
    assert not bare.has_labels


def test_graphs_that_are_too_large_are_left_out_and_counted(tmp_path, caplog):
    """Of 60 graphs of two nodes and one of 99, wherever they are; the splits of the others stay."""
    sizes = np.array([2] * 30 + [99] + [2] * 30)
    arrays = {
        "node_offset": np.r_[0, sizes.cumsum()],
        "edge_offset": np.arange(62),
        "edge_index": np.tile([[0], [1]], 61),
        "x": np.repeat(np.arange(61.0), sizes)[:, None],
    }
    np.savez(tmp_path / "a.npz", **arrays)
    spec = f"npz:{tmp_path / 'a.npz'}"
    whole = open_graphs(spec, "train")
    assert whole.shapes["features"][0] == (99, 1)
    assert "4 nodes on average" in caplog.text and "most_nodes=57 would leave out 1 of them" in caplog.text
    caplog.clear()
    some = {split: open_graphs(spec, split, 2) for split in ("train", "test")}
    assert {source.shapes["features"][0] for source in some.values()} == {(2, 1)}
    assert "left out 1 graph with more than 2 nodes" in caplog.text and "on average" not in caplog.text
    left = {
        split: {x["features"][0, 0] for x in map(source.__getitem__, range(len(source)))}
        for split, source in some.items()
    }
    assert left["train"] | left["test"] == set(range(61)) - {30}
    assert left["train"] == {whole[i]["features"][0, 0] for i in range(len(whole))} - {30}
    with pytest.raises(DataError, match="no graph of at most 1 nodes"):
        open_graphs(spec, "all", 1)


@pytest.mark.parametrize(
    "name, text, sentence",
    [
        ("A", "1, 2\n1; 2\n", "X_A.txt' holds what is no whole number, or lines of different lengths"),
        ("A", "1, 2, 3\n", "has 3 numbers a line, where 2 are expected"),
        ("A", "1, 7\n", "edges between nodes 1 to 7 of 6"),
        ("A", "1, 2\n2, 4\n", "Line 2 of X_A.txt joins nodes of two graphs"),
        ("graph_indicator", "1\n2\n1\n", "must name the graphs 1, 2, …, in this order"),
        ("graph_labels", "1\n1\n", r"The graph_labels of .* are \(2,\), but there are 3 graphs: give one for each"),
        ("graph_labels", "0.5\n1\n2\n", "graph_labels.txt' must hold .*, a whole number: real numbers are no classes"),
        ("node_attributes", "1\nx\n", "attributes.txt' holds what is no number, or"),
        ("node_labels", "1\n1\n", r"The node_labels of .* are \(2, 1\), but there are 6 nodes"),
        ("node_attributes", "1\n1\n1\n1\n1\nnan\n", "The node_attributes of 1 nodes of .* are not finite: fill in"),
        ("node_attributes", "1\n1\n", r"The node_attributes of .* are \(2, 1\), but there are 6 nodes"),
        ("graph_indicator", None, "X_graph_indicator.txt', which the format needs"),
        ("A", None, "has 0 files NAME_A.txt"),
    ],
)
def test_what_is_wrong_with_text_files_is_said(name, text, sentence, folder):
    file = folder / f"X_{name}.txt"
    file.unlink(missing_ok=True)
    if text is not None:
        file.write_text(text)
    with pytest.raises(DataError, match=sentence):
        open_graphs(f"tu:{folder}", "all")


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"edge_offset": None}, "has no edge_offset"),
        ({"edge_offset": np.arange(3)}, "do not fit edge_offset"),
        ({"edge_index": np.zeros((2, 7442), int) + 40}, "edges of graph 1 of .* are between nodes 40 to 40"),
        ({"edge_index": np.full((2, 7442), np.nan)}, r"has edges \(2, 7442\) of float64: give edge_index \(2, edges\)"),
        ({"edge_index": np.full((2, 7442), 0.5)}, r"has edges \(2, 7442\) of float64"),
        ({"edge_index": np.zeros((3, 7442), int)}, r"has edges \(3, 7442\) of int64"),
        ({"edge_offset": np.arange(189.0)}, r"The edge_offset of .*a.npz' is of float64: give whole numbers"),
        ({"node_offset": np.arange(189.0)}, "The node_offset of .* is of float64"),
        ({"node_offset": np.arange(189, dtype=np.uint8)[::-1]}, "do not fit edge_offset"),
        (
            {"x": np.array([["a"]] * 3371)},
            r"The values in x of .*a.npz are \(3371, 1\) of <U1: give numbers \(nodes, dim\)",
        ),
        ({"x": np.full((3371, 2), np.inf)}, "The values in x of 3371 nodes of .*a.npz are not finite"),
        ({"x": np.ones((2, 2))}, r"The values in x of .* are \(2, 2\), but there are 3371 nodes"),
        (
            {"node_tag": np.full(3371, np.nan)},
            "The values in node_tag of .*a.npz are of float64: give whole numbers or strings",
        ),
        ({"label": np.zeros(3)}, r"The values in label of .* are \(3,\), but there are 188 graphs"),
        (
            {"label": np.full(188, np.nan)},
            "The values in label of .*a.npz are of float64: give whole numbers or strings",
        ),
        ({"label": np.array([{}])}, "cannot be read"),
    ],
)
def test_what_is_wrong_with_an_archive_is_said(change, sentence, tmp_path):
    arrays = {name: x for name, x in (dict(np.load(DEMOS["demo_mutag"])) | change).items() if x is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=sentence):
        open_graphs(f"npz:{tmp_path / 'a.npz'}", "all")


def test_graphs_without_any_edge(tmp_path):
    """Whatever type an empty array has."""
    offsets = {"node_offset": np.array([0, 2, 3]), "edge_offset": np.zeros(3, int)}
    np.savez(tmp_path / "a.npz", edge_index=np.zeros((2, 0)), label=np.array(["a", "b"]), **offsets)
    source = open_graphs(f"npz:{tmp_path / 'a.npz'}", "all")
    assert len(source) == 2 and (source[0]["edges"] == -1).all() and source.class_names == ("a", "b")


def test_nothing_there():
    for spec, sentence in (
        ("csv:x", "There is no data source 'csv:x': write one of demo, demo_mutag, tu:FOLDER, npz:PATH"),
        ("tu:missing", "There is no folder 'missing'"),
        ("npz:missing", "There is no file 'missing'"),
    ):
        with pytest.raises(DataError, match=sentence):
            open_graphs(spec, "all")
    with pytest.raises(DataError, match="no split 'extra': choose one of all, test, train"):
        open_graphs("demo", "extra")


def test_an_encoder_is_given_a_list_of_dictionaries():
    graphs, x, edges = Graphs(ConfigDict({"data": {"shape": (3, 2, 4)}})), np.ones((3, 2)), np.array([[0], [1]])
    assert graphs.as_batch([{"features": x, "edges": edges}])["real"].all()
    for wrong, sentence in (
        ([(x, edges)], r"must be a dictionary of features \(nodes, 2\) and edges \(2, edges\), not tuple"),
        ([{"x": x, "edge_index": edges}], "but has x, edge_index, and no features"),
        ({"features": x, "edges": edges}, "graphs must be a list of one graph at least"),
        ([{"features": x[:, :1], "edges": edges}], r"not of \(3, 1\) and \(2, 1\)"),
    ):
        with pytest.raises(ValueError, match=sentence):
            graphs.as_batch(wrong)
