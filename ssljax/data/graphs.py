"""Many graphs, each with a class.

    tu:PATH      a folder NAME in TU Dortmund's text format: NAME_A.txt (a line "i, j" for each edge), NAME_graph_
                 indicator.txt (whose graph each node is), NAME_graph_labels.txt, and maybe NAME_node_labels.txt and
                 NAME_node_attributes.txt
    npz:PATH     arrays in one file: edge_index (2, edges) with nodes numbered from 0 in each graph, node_offset and
                 edge_offset (graphs + 1,), and maybe node_tag (nodes,), x (nodes, dim), label (graphs,); tags and
                 labels are whole numbers or strings
    demo         IMDB-BINARY, which ships with ssljax
    demo_mutag   MUTAG, likewise

Features of a node are its labels (one-hot), its attributes, both, or where there is neither a 1. Each edge is taken
once in both directions; loops are left out, for an encoder sees each node's own features anyway. A node without edges
stays; a graph without nodes is left out, and counted in the log and the report.

Every graph is padded to the largest one, so that a step costs as if all were as large: what is many times larger than
the rest can be left out, too (`most_nodes`), and the log says where that would help.
"""

import functools
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssljax.data.graph_arrays import edge_index, edge_pairs, finite_rows, one_each
from ssljax.data.sources import (
    DataError,
    Example,
    Shapes,
    Source,
    hashed_splits,
    note_left_out,
    read_npz,
    resolve_split,
    split_spec,
)
from ssljax.wording import counted

logger = logging.getLogger(__name__)

FORMS = {"demo": "demo", "demo_mutag": "demo_mutag", "tu": "tu:FOLDER", "npz": "npz:PATH"}
FOLDER = Path(__file__).parent / "demo" / "graphs"
DEMOS = {"demo": FOLDER / "imdb_binary.npz", "demo_mutag": FOLDER / "mutag.npz"}
WHOLE = "all"
IN_TEXT = {"label": "graph_labels", "node_tag": "node_labels", "x": "node_attributes"}
IN_ARCHIVE = {name: f"values in {name}" for name in IN_TEXT}
"""What messages call the arrays of text files, which is also the files' names, and of an archive."""
SPARSE = 16
"""How many times as many nodes with padding as without it are worth a word."""


@dataclass(frozen=True)
class Found:
    """Of each graph: features (nodes, dim) float32 and edges (2, edges) int32 in both directions; their labels; the
    places of those that are not too large, ascending; and what is left out, in sentences."""

    features: list[np.ndarray]
    edges: list[np.ndarray]
    labels: np.ndarray | None
    kept: np.ndarray
    left_out: tuple[str, ...]


class GraphSource(Source):
    """`features` (nodes, dim), `edges` (2, edges) with -1 behind the last one, and `real` (nodes,), padded to the
    largest graph of all splits that is not left out."""

    in_memory, things = True, "graphs"

    def __init__(self, name: str, found: Found, rows: np.ndarray):
        names, self._labels = None, None
        if found.labels is not None:
            classes, places = np.unique(found.labels, return_inverse=True)
            names, self._labels = tuple(map(str, classes.tolist())), places[rows].astype(np.int32)
        nodes = max(len(found.features[i]) for i in found.kept)
        edges = max(1, max(found.edges[i].shape[1] for i in found.kept))
        shapes: Shapes = {
            "features": ((nodes, found.features[0].shape[1]), np.float32),
            "edges": ((2, edges), np.int32),
            "real": ((nodes,), np.bool_),
        }
        super().__init__(name, has_labels=names is not None, class_names=names, shapes=shapes)
        self._found, self._rows = found, rows

    def labels(self) -> np.ndarray:
        return super().labels() if self._labels is None else self._labels

    def gap(self) -> Example:
        empty = super().gap()
        return empty | {"edges": np.full_like(empty["edges"], -1)}

    def __len__(self) -> int:
        return len(self._rows)

    def _where(self, index: int) -> str:
        return f"{self.name}[{index}]"

    def _load(self, index: int) -> Example:
        row = self._rows[index]
        example = pad(self._found.features[row], self._found.edges[row], *self._sizes())
        return example if self._labels is None else example | {"label": self._labels[index]}

    def _sizes(self) -> tuple[int, int]:
        shapes = self.shapes or {}
        return shapes["features"][0][0], shapes["edges"][0][1]


def pad(features: np.ndarray, edges: np.ndarray, most_nodes: int, most_edges: int) -> Example:
    more = most_nodes - len(features)
    return {
        "features": np.pad(features, [(0, more), (0, 0)]).astype(np.float32),
        "edges": np.pad(edges, [(0, 0), (0, most_edges - edges.shape[1])], constant_values=-1).astype(np.int32),
        "real": np.arange(most_nodes) < len(features),
    }


def open_graphs(spec: str, split: str, most_nodes: int = 0) -> GraphSource:
    """The graphs of a split: "all", or by a hash of their places "test" (one in ten) or "train" (the others), without
    those that have more than `most_nodes` nodes (0: with all), which are counted in the log.

    Raises DataError, which says what to change, for a kind, file or split that is not there, and for what does not fit;
    ValueError for a limit below 0.
    """
    if most_nodes < 0:
        raise ValueError(f"--config.data.most_nodes={most_nodes} must be a number of nodes, or 0 for no limit.")
    kind, where = ("npz", str(DEMOS[spec])) if spec in DEMOS else split_spec(spec, FORMS)
    path = Path(where).expanduser()
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    found = _read(kind, path, tuple(file.stat().st_mtime_ns for file in files), most_nodes)
    parts = hashed_splits([str(index) for index in range(len(found.features))])
    splits = {name: np.array(rows) for name, rows in parts.items()} | {WHOLE: np.arange(len(found.features))}
    rows = np.intersect1d(splits[resolve_split(split, splits, spec)], found.kept)
    if not len(rows):
        raise DataError(f"{spec} ({split}) has no graph of at most {most_nodes} nodes: raise --config.data.most_nodes.")
    source = GraphSource(f"{spec} ({split})", found, rows)
    source.left_out = found.left_out
    return source


@functools.lru_cache(maxsize=4)
def _read(kind: str, path: Path, changed: tuple[int, ...], most_nodes: int) -> Found:
    """Read again if the files have changed."""
    arrays, called = (_tu(path), IN_TEXT) if kind == "tu" else (_npz(path), IN_ARCHIVE)
    name, offsets, bounds = str(path), arrays["node_offset"], arrays["edge_offset"]
    counts = np.diff(offsets)
    kept = np.flatnonzero(counts).tolist()
    if not len(kept):
        raise DataError(f"{name} has no graph with a node: check that it is whole.")
    features = _features(arrays, int(offsets[-1]), called, name)
    edges = [
        edge_pairs(arrays["edge_index"][:, bounds[i] : bounds[i + 1]], nodes, f"graph {i + 1} of {name}")
        for i, nodes in enumerate(counts)
    ]
    labels = arrays.get("label")
    if labels is not None:
        _require_classes(one_each(labels, len(counts), "graphs", called["label"], name), called["label"], name)
    small = _small(counts[kept], most_nodes, name)
    left_out = {
        "without nodes": len(counts) - len(kept),
        f"with more than {most_nodes} nodes": len(kept) - len(small),
    }
    return Found(
        [features[offsets[i] : offsets[i + 1]] for i in kept],
        [edges[i] for i in kept],
        None if labels is None else labels[kept],
        small,
        tuple(
            note_left_out(name, f"left out {counted(count, 'graphs')} {what}")
            for what, count in left_out.items()
            if count
        ),
    )


def _small(sizes: np.ndarray, most_nodes: int, name: str) -> np.ndarray:
    """Places of the graphs that are not too large, ascending."""
    kept = np.flatnonzero(sizes <= (most_nodes or sizes.max()))
    left = sizes[kept]
    if len(left) and left.max() > SPARSE * left.mean():
        limit = int(SPARSE * left.mean())
        logger.warning(
            "%s: graphs have %.0f nodes on average, but each is padded to the %d of the largest; "
            "--config.data.most_nodes=%d would leave out %d of them, and make steps much cheaper",
            name,
            left.mean(),
            left.max(),
            limit,
            (left > limit).sum(),
        )
    return kept


def _features(arrays: dict[str, np.ndarray], nodes: int, called: dict[str, str], name: str) -> np.ndarray:
    """(nodes, dim) float32."""
    parts = []
    if "node_tag" in arrays:
        tags = one_each(arrays["node_tag"], nodes, "nodes", called["node_tag"], name, most_axes=2)
        _require_classes(tags, called["node_tag"], name)
        columns = np.atleast_2d(tags.T)
        parts += [(column[:, None] == np.unique(column)).astype(np.float32) for column in columns]
    if "x" in arrays:
        x = finite_rows(arrays["x"], called["x"], name)
        parts.append(one_each(x, nodes, "nodes", called["x"], name, most_axes=2))
    return np.concatenate(parts, axis=1) if parts else np.ones((nodes, 1), np.float32)


def _require_classes(classes: np.ndarray, what: str, name: str) -> None:
    """Raises DataError if the array is not of whole numbers or strings."""
    if classes.dtype.kind not in "iubUS":
        raise DataError(f"The {what} of {name} are of {classes.dtype}: give whole numbers or strings, without gaps.")


def _npz(path: Path) -> dict[str, np.ndarray]:
    """Its arrays, with offsets as int64. Raises DataError where edges and offsets do not fit."""
    arrays = read_npz(path)
    if missing := sorted({"node_offset", "edge_offset", "edge_index"} - set(arrays)):
        raise DataError(f"{str(path)!r} has no {missing[0]}: it has {', '.join(arrays)} (see ssljax/data/graphs.py).")
    arrays["edge_index"] = edges = edge_index(arrays["edge_index"], str(path))
    for name in ("edge_offset", "node_offset"):
        if arrays[name].dtype.kind not in "iu":
            raise DataError(f"The {name} of {str(path)!r} is of {arrays[name].dtype}: give whole numbers.")
        arrays[name] = arrays[name].astype(np.int64)
    bounds, offsets = arrays["edge_offset"], arrays["node_offset"]
    ordered = all(x.ndim == 1 and len(x) > 1 and x[0] == 0 and (np.diff(x) >= 0).all() for x in (bounds, offsets))
    if not ordered or len(bounds) != len(offsets) or bounds[-1] != edges.shape[1]:
        raise DataError(
            f"The edges {edges.shape} of {str(path)!r} do not fit edge_offset {bounds.shape} and node_offset "
            f"{offsets.shape}: give (2, edges), and where each graph begins, with the end last, for both."
        )
    return arrays


def _tu(folder: Path) -> dict[str, np.ndarray]:
    """The text files as the arrays of an archive."""
    if not folder.is_dir():
        raise DataError(f"There is no folder {str(folder)!r}: check the path after 'tu:'.")
    heads = [file.name[: -len("_A.txt")] for file in sorted(folder.glob("*_A.txt"))]
    if len(heads) != 1:
        raise DataError(f"The folder {str(folder)!r} has {len(heads)} files NAME_A.txt: name a folder that has one.")

    def numbers(name: str, columns: int | None, kind: type, needed: bool = True) -> np.ndarray | None:
        file = folder / f"{heads[0]}_{name}.txt"
        if not file.is_file():
            if needed:
                raise DataError(f"There is no file {str(file)!r}, which the format needs.")
            return None
        try:
            with warnings.catch_warnings():  # an empty file is told of below, where it may not be
                warnings.simplefilter("ignore", UserWarning)
                rows: np.ndarray = np.loadtxt(file, delimiter=",", dtype=kind, ndmin=2)
        except (ValueError, UnicodeDecodeError) as error:
            if name == IN_TEXT["label"]:
                told = "must hold a graph's class on each line, a whole number: real numbers are no classes"
            else:
                told = f"holds what is no {'whole ' * (kind is np.int64)}number, or lines of different lengths"
            raise DataError(f"{str(file)!r} {told} ({error}).") from error
        if columns is not None and rows.size and rows.shape[1] != columns:
            raise DataError(f"{str(file)!r} has {rows.shape[1]} numbers a line, where {columns} are expected.")
        return rows

    def needed(name: str, columns: int) -> np.ndarray:
        rows = numbers(name, columns, np.int64)
        assert rows is not None
        return rows.reshape(-1, columns)

    edges, whose = needed("A", 2).T - 1, needed("graph_indicator", 1)[:, 0] - 1
    if not len(whose) or (np.diff(whose) < 0).any() or whose[0] < 0:
        raise DataError(f"{heads[0]}_graph_indicator.txt must name the graphs 1, 2, …, in this order: sort the nodes.")
    if edges.size and not (0 <= edges.min() and edges.max() < len(whose)):
        raise DataError(
            f"{heads[0]}_A.txt has edges between nodes {edges.min() + 1} to {edges.max() + 1} of {len(whose)}."
        )
    labels = numbers(IN_TEXT["label"], 1, np.int64, needed=False)
    graphs = int(whose[-1]) + 1 if labels is None else max(len(labels), int(whose[-1]) + 1)
    offsets = np.searchsorted(whose, np.arange(graphs + 1))
    if (across := whose[edges[0]] != whose[edges[1]]).any():
        line = int(across.argmax()) + 1
        raise DataError(f"Line {line} of {heads[0]}_A.txt joins nodes of two graphs: correct the file.")
    order = np.argsort(whose[edges[0]], kind="stable")
    edges = edges[:, order]
    arrays = {
        "node_offset": offsets,
        "edge_offset": np.searchsorted(whose[edges[0]], np.arange(graphs + 1)),
        "edge_index": edges - offsets[whose[edges[0]]],
    }
    found = {
        "label": labels if labels is None else labels[:, 0],
        "node_tag": numbers(IN_TEXT["node_tag"], None, np.int64, needed=False),
        "x": numbers(IN_TEXT["x"], None, np.float64, needed=False),
    }
    return arrays | {name: array for name, array in found.items() if array is not None}
