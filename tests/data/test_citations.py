"""Citation networks as text, to the arrays of a graph."""

import logging

import numpy as np
import pytest

from ssljax.data import DataError
from ssljax.data.nodes import open_nodes

PAPERS = "ten\t1\t0\t2\tTheory\nnine 0\u20281 1 Theory\n\neight\t0\t0\t0\tAgents\n"


@pytest.fixture
def network(tmp_path):
    def write(content=PAPERS, cites="ten nine\neight\tten\nten ten\nten missing\n"):
        (tmp_path / "small.content").write_text(content)
        (tmp_path / "small.cites").write_text(cites)
        return f"planetoid:{tmp_path}"

    return write


def test_papers_are_nodes_and_citations_edges(network, caplog):
    with caplog.at_level(logging.WARNING):
        source = open_nodes(network(), "train")
    assert "left out 1 citation of papers that have no features" in caplog.text
    assert source.left_out == tuple(caplog.messages)
    graph = source[0]
    np.testing.assert_allclose(graph["features"], [[1 / 3, 0, 2 / 3], [0, 0.5, 0.5], [0, 0, 0]], rtol=1e-6)
    assert set(map(tuple, graph["edges"].T.tolist())) == {(0, 1), (1, 0), (0, 2), (2, 0)}
    labels = [open_nodes(network(), split)[0]["label"] for split in ("train", "test")]
    assert source.class_names == ("Agents", "Theory") and np.maximum(*labels).tolist() == [1, 1, 0]
    assert [len(x[x >= 0]) for x in labels] == [2, 1]  # of a set too small for twenty of each class


def test_twenty_of_each_class_to_learn_from_and_a_thousand_others_to_test(network):
    lines = [f"paper{i} {i % 3} 1 class{i % 2}" for i in range(1200)]
    spec = network("\n".join(lines), "paper0 paper1")
    train, test = (open_nodes(spec, split) for split in ("train", "test"))
    assert np.bincount(train.labels()).tolist() == [20, 20] and len(test.labels()) == 1000
    assert not ((train[0]["label"] >= 0) & (test[0]["label"] >= 0)).any()
    np.testing.assert_array_equal(open_nodes(spec, "train")[0]["label"], train[0]["label"])


@pytest.mark.parametrize(
    "files, sentence",
    [
        ({"content": ""}, "has no papers: each line must be a name, features, and a class"),
        ({"content": PAPERS + "one 1 2 Theory"}, "line 5: 4 fields, where the first line has 5"),
        ({"content": PAPERS + "ten 1 2 3 Theory"}, "has 1 papers twice"),
        ({"content": PAPERS.replace("2", "two")}, "features of a paper must be numbers"),
        ({"cites": "ten nine eight"}, "line 1: 3 fields, where there must be two names"),
    ],
)
def test_lines_that_cannot_be_read_are_named(files, sentence, network):
    with pytest.raises(DataError, match=sentence):
        open_nodes(network(**files), "train")


def test_planetoids_pickles_are_not_loaded(tmp_path):
    with pytest.raises(DataError, match=r"has 0 files \*.content: there must be one"):
        open_nodes(f"planetoid:{tmp_path}", "train")
    (tmp_path / "ind.cora.x").write_bytes(b"")
    with pytest.raises(DataError, match="are pickles and never loaded"):
        open_nodes(f"planetoid:{tmp_path}", "train")
    (tmp_path / "a.content").write_bytes(b"\xff\xfe")
    (tmp_path / "a.cites").write_text("")
    with pytest.raises(DataError, match="cannot be read as text"):
        open_nodes(f"planetoid:{tmp_path}", "train")
