"""Citation networks as text: what the sets named after Planetoid (Cora, CiteSeer, PubMed) are made from.

A folder holds two files. Each line of ``NAME.content`` is a paper, its name, the numbers that are its features, and its
class, with tabs or blanks between; each line of ``NAME.cites`` is two names, the paper cited and the one that cites.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ssljax.data.sources import DataError, note_left_out
from ssljax.wording import counted

PER_CLASS, TESTED = 20, 1000
"""Papers of each class to learn from, and papers to test, as in Yang et al., "Revisiting Semi-Supervised Learning with
Graph Embeddings", 2016 (Planetoid)."""


def read_citations(folder: Path) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Arrays as `ssljax.data.nodes` has them, and what is left out, in sentences. Which papers are learnt from and
    tested is drawn, always the same: the public split is not in these files. A set that is too small for that has no
    masks.

    Citations of papers that are not in the set are left out, and counted. Raises DataError for files that
    are missing, and names the line that cannot be read.
    """
    content, cites = (_only(folder, ending) for ending in ("content", "cites"))
    rows = list(_lines(content))
    width = len(rows[0][1]) if rows else 0
    if width < 3:
        raise DataError(f"{content} has no papers: each line must be a name, features, and a class.")
    for number, row in rows:
        if len(row) != width:
            raise DataError(f"{content}, line {number}: {len(row)} fields, where the first line has {width}.")
    names = {row[0]: place for place, (_, row) in enumerate(rows)}
    if len(names) < len(rows):
        raise DataError(f"{content} has {len(rows) - len(names)} papers twice: keep one line of each.")
    try:
        features = np.array([row[1:-1] for _, row in rows], np.float32)
    except ValueError as error:
        raise DataError(f"{content}: the features of a paper must be numbers ({error}).") from error
    classes, label = np.unique([row[-1] for _, row in rows], return_inverse=True)
    edges, left_out = _citations(cites, names)
    train, test = _split(label, len(classes))
    arrays: dict[str, np.ndarray] = {
        "x": features,
        "edge_index": np.array(edges, np.int64).reshape(-1, 2).T,
        "label": label,
        "class_name": np.asarray(classes),
    }
    if test.any():
        arrays |= {"train_mask": train, "test_mask": test}
    return arrays, left_out


def _only(folder: Path, ending: str) -> Path:
    found = sorted(folder.glob(f"*.{ending}"))
    if len(found) == 1:
        return found[0]
    if not found and any(folder.glob("ind.*")):
        raise DataError(
            f"{folder} holds Planetoid's ind.* files, which are pickles and never loaded: take the set's .content and "
            ".cites files, or write an .npz (npz:PATH)."
        )
    raise DataError(f"{folder} has {len(found)} files *.{ending}: there must be one .content and one .cites file.")


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Fields of each line that is not empty, and its number."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}).") from error
    return ((number, line.split()) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def _citations(path: Path, names: dict[str, int]) -> tuple[list[tuple[int, int]], tuple[str, ...]]:
    inside, outside = [], 0
    for number, fields in _lines(path):
        if len(fields) != 2:
            raise DataError(f"{path}, line {number}: {len(fields)} fields, where there must be two names.")
        if fields[0] in names and fields[1] in names:
            inside.append((names[fields[0]], names[fields[1]]))
        else:
            outside += 1
    told = f"left out {counted(outside, 'citations')} of papers that have no features"
    return inside, (note_left_out(str(path), told),) if outside else ()


def _split(label: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(nodes,) each: the first of each class in an order that is drawn, and the first of those that are left."""
    order = np.random.RandomState(0).permutation(len(label))
    train = np.zeros(len(label), bool)
    for k in range(classes):
        train[order[label[order] == k][:PER_CLASS]] = True
    test = np.zeros(len(label), bool)
    test[order[~train[order]][:TESTED]] = True
    return train, test
