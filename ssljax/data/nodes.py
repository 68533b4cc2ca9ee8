"""One graph, of which some nodes have labels.

    npz:PATH         arrays in one file (below)
    planetoid:PATH   a folder with the text of a citation network (`ssljax.data.citations`)
    demo             Cora with its public split, which ships with ssljax

An ``.npz`` file holds ``edge_index`` (2, edges); the features of the nodes, as ``x`` (nodes, dim) or as the entries
that are not zero, ``feature_row``, ``feature_col``, ``feature_value`` and ``feature_shape``; maybe ``label`` (nodes,),
-1 where there is none, ``class_name`` (classes,), and ``train_mask`` and ``test_mask`` (nodes,), which have no node in
common. Without masks a tenth of the nodes of each class, one at least, by a hash of their places, are for the probes to
learn from, and the others to test.
"""

from pathlib import Path

import numpy as np

from ssljax.data.citations import read_citations
from ssljax.data.graph_arrays import edge_pairs, finite_rows, one_each
from ssljax.data.sources import (
    NO_LABEL,
    TEST_FRACTION,
    DataError,
    Example,
    Shapes,
    Source,
    key_hashes,
    read_npz,
    split_spec,
)

FORMS = {"demo": "demo", "npz": "npz:PATH", "planetoid": "planetoid:PATH"}
DEMO = Path(__file__).parent / "demo" / "nodes" / "cora.npz"
SPLITS = ("train", "test")


class NodeSource(Source):
    """One example, the graph: `features` (nodes, dim), each row divided by its sum, and `edges` (2, edges), in both
    directions and each once. Its label is an array (nodes,) with -1 for nodes that have none in this split."""

    in_memory, things = True, "nodes"

    def __init__(
        self,
        name: str,
        features: np.ndarray,
        edges: np.ndarray,
        labels: np.ndarray | None,
        names: tuple[str, ...] | None,
    ):
        shapes: Shapes = {"features": (features.shape, np.float32), "edges": (edges.shape, np.int32)}
        super().__init__(name, has_labels=labels is not None, class_names=names, shapes=shapes)
        self._example: Example = {"features": features, "edges": edges}
        self._labels = labels

    def labels(self) -> np.ndarray:
        """Of the nodes of this split that have one."""
        self.require_labels("this")
        return np.empty(0, np.int32) if self._labels is None else self._labels[self._labels != NO_LABEL]

    def gap(self) -> Example:
        nothing = {} if self._labels is None else {"label": np.full_like(self._labels, NO_LABEL)}
        return super().gap() | nothing

    def __len__(self) -> int:
        return 1

    @property
    def count(self) -> int:
        return len(self._example["features"])

    def _where(self, index: int) -> str:
        return self.name

    def _load(self, index: int) -> Example:
        return self._example if self._labels is None else self._example | {"label": self._labels}


def open_nodes(spec: str, split: str) -> NodeSource:
    """The graph, with the labels of a split: "train" or "test". The nodes and edges are the same in both.

    Raises DataError, which says what to change, for a kind or file that is not there, arrays that are missing or do
    not fit, and features that are not finite.
    """
    kind, where = split_spec(spec, FORMS)
    if split not in SPLITS:
        raise DataError(f"{spec} has no split {split!r}: choose one of {', '.join(SPLITS)}.")
    path = DEMO if kind == "demo" else Path(where).expanduser()
    arrays, left_out = read_citations(path) if kind == "planetoid" else (read_npz(path), ())
    features = scaled_rows(_features(arrays, spec), spec)
    edges = edge_pairs(arrays.get("edge_index"), len(features), spec)
    labels = _labels(arrays, len(features), split, spec)
    source = NodeSource(f"{spec} ({split})", features, edges, labels, _class_names(arrays, labels, spec))
    source.left_out = left_out
    return source


def _features(arrays: dict[str, np.ndarray], spec: str) -> np.ndarray:
    if "x" in arrays:
        return arrays["x"]
    if not {"feature_row", "feature_col", "feature_value", "feature_shape"} <= set(arrays):
        raise DataError(f"{spec} has no features: it has {', '.join(arrays)}, and needs x (nodes, dim).")
    row, column, value, shape = (arrays[f"feature_{part}"] for part in ("row", "col", "value", "shape"))
    whole = all(x.dtype.kind in "iu" for x in (row, column, shape)) and shape.shape == (2,) and (shape > 0).all()
    if not whole or row.ndim != 1 or not row.shape == column.shape == value.shape or value.dtype.kind not in "fiub":
        raise DataError(
            f"feature_row {row.shape} of {row.dtype}, feature_col {column.shape} of {column.dtype}, feature_value "
            f"{value.shape} of {value.dtype} and feature_shape {shape.tolist()} of {spec} do not fit: give a row, a "
            "column and a number for each entry, and [nodes, dim]."
        )
    for name, places, most in (("feature_row", row, shape[0]), ("feature_col", column, shape[1])):
        if places.size and not (0 <= places.min() and places.max() < most):
            raise DataError(
                f"{name} of {spec} goes from {places.min()} to {places.max()}, but feature_shape is {shape.tolist()}: "
                f"number from 0 to {most - 1}."
            )
    features = np.zeros(tuple(shape), np.float32)
    features[row, column] = value
    return features


def scaled_rows(features: np.ndarray, spec: str) -> np.ndarray:
    """(nodes, dim) float32; each row divided by its sum of magnitudes, one of zeros as it is. Raises DataError."""
    features = finite_rows(features, "features", spec)
    return features / np.maximum(np.abs(features).sum(axis=1, keepdims=True), 1e-12)


def _class_names(arrays: dict[str, np.ndarray], labels: np.ndarray | None, spec: str) -> tuple[str, ...] | None:
    if labels is None:
        return None
    classes = int(arrays["label"].max()) + 1
    names = arrays.get("class_name", [f"class {k}" for k in range(classes)])
    if len(names) < classes:
        raise DataError(f"{spec} names {len(names)} classes, but labels go up to {classes - 1}: name each of them.")
    return tuple(str(name) for name in names)


def _labels(arrays: dict[str, np.ndarray], nodes: int, split: str, spec: str) -> np.ndarray | None:
    """(nodes,) int32, -1 outside of the split; None if no node has one, or none would be left to test."""
    if "label" not in arrays:
        return None
    labels = one_each(arrays["label"], nodes, "nodes", "labels", spec)
    if labels.dtype.kind not in "iub" or labels.min() < NO_LABEL:
        raise DataError(
            f"label of {spec} is of {labels.dtype} and begins {labels[:5].tolist()}: give whole numbers from 0, and "
            f"{NO_LABEL} where there is none."
        )
    labels = labels.astype(np.int32)
    if (labels == NO_LABEL).all():
        return None
    masks = {name: np.asarray(arrays[f"{name}_mask"], bool) for name in SPLITS if f"{name}_mask" in arrays}
    if set(masks) != set(SPLITS) or any(mask.shape != (nodes,) for mask in masks.values()):
        if masks:
            raise DataError(f"{spec} needs both train_mask and test_mask, ({nodes},) each, or none of them.")
        masks = _drawn(labels)
        if not masks["test"].any():
            return None
    _check_masks(masks, labels != NO_LABEL, spec)
    return np.where(masks[split], labels, NO_LABEL).astype(np.int32)


def _check_masks(masks: dict[str, np.ndarray], labelled: np.ndarray, spec: str) -> None:
    """Raises DataError if one holds no node with a label, or both hold the same one."""
    for name in SPLITS:
        if not (masks[name] & labelled).any():
            raise DataError(
                f"{name}_mask of {spec} holds no node that has a label: put some of the {labelled.sum()} that have one "
                "into it, or leave both masks out."
            )
    if both := (masks["train"] & masks["test"] & labelled).sum():
        raise DataError(f"{both} nodes of {spec} are in both train_mask and test_mask: take each out of one of them.")


def _drawn(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Masks (nodes,): of each class the tenth of the nodes that come first by the hash of their places is to learn
    from, one at least, and the others are to test, one at least of a class that has two."""
    train = np.zeros(len(labels), bool)
    for k in np.unique(labels[labels != NO_LABEL]):
        of_class = np.flatnonzero(labels == k)
        order = np.argsort(np.array(key_hashes([str(node) for node in of_class]), np.uint64))
        train[of_class[order[: max(1, round(TEST_FRACTION * len(of_class)))]]] = True
    return {"train": train, "test": ~train & (labels != NO_LABEL)}
