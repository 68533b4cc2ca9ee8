"""A map between our parameters and another library's is a table of rows, through which one reads and writes."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from flax import traverse_util

from ssljax.typing import PyTree
from ssljax.weights.layout import SAME, TRANSPOSED, Layout, by_heads, from_heads, packed, then, to_heads

SHOWN = 5
"""So many names are given in an error."""


class Row(NamedTuple):
    """Tensors of ours that are tensors of theirs: one of each, or several that are packed or summed."""

    ours: tuple[str, ...]
    """Paths in a module's variables, such as "params/norm/scale"."""
    theirs: tuple[str, ...]
    layout: Layout = SAME
    optional: bool = False
    """Whether files may lack it: an encoder that gives features does not use it, and it is read as zeros."""


def affine(ours: str, theirs: str) -> Iterator[Row]:
    """Scale and bias of a norm."""
    yield Row((f"{ours}/scale",), (f"{theirs}.weight",))
    yield Row((f"{ours}/bias",), (f"{theirs}.bias",))


def dense(ours: str, theirs: str, layout: Layout = TRANSPOSED) -> Iterator[Row]:
    """Kernel and bias of a linear layer, or of a convolution with its layout."""
    yield Row((f"{ours}/kernel",), (f"{theirs}.weight",), layout)
    yield Row((f"{ours}/bias",), (f"{theirs}.bias",))


def gated(ours: str, theirs: str) -> Iterator[Row]:
    """The first layer of SwiGLU, whose gate is packed before its other half there."""
    pair = f"{ours}/gate", f"{ours}/mlp1"
    yield Row(tuple(f"{name}/kernel" for name in pair), (f"{theirs}.weight",), packed(TRANSPOSED, 2, axis=0))
    yield Row(tuple(f"{name}/bias" for name in pair), (f"{theirs}.bias",), packed(SAME, 2, axis=0))


def attention(ours: str, names: Iterable[str], heads: int) -> Iterator[Row]:
    """Four linear layers by their names there, for queries, keys, values and the output; ours are by heads."""
    *projections, out = names
    for name, theirs in zip(("query", "key", "value"), projections, strict=True):
        yield Row((f"{ours}/{name}/kernel",), (f"{theirs}.weight",), then(TRANSPOSED, to_heads(heads)))
        yield Row((f"{ours}/{name}/bias",), (f"{theirs}.bias",), by_heads(heads))
    yield from dense(f"{ours}/out", out, then(TRANSPOSED, from_heads(heads)))


def read(
    tensors: Mapping[str, np.ndarray], rows: Sequence[Row], shapes: PyTree, left_out: Sequence[str] = ()
) -> PyTree:
    """A module's variables, float32, out of another library's tensors.

    shapes: of the variables. left_out: patterns of the names that have no place in our module, such as heads'.

    Raises ValueError that names tensors which are missing, have another shape, or are in no row.
    """
    expected = traverse_util.flatten_dict(shapes, sep="/")
    if apart := set(expected) ^ {path for row in rows for path in row.ours}:
        raise AssertionError(f"the map and the module differ in {sorted(apart)[:SHOWN]}")
    wanted: dict[str, tuple[int, ...]] = {}
    for row in rows:
        blank = (np.broadcast_to(np.float32(0), expected[path].shape) for path in row.ours)
        if not row.optional or any(name in tensors for name in row.theirs):
            wanted |= {name: x.shape for name, x in zip(row.theirs, row.layout.theirs(*blank), strict=True)}
    if missing := [name for name in wanted if name not in tensors]:
        raise ValueError(f"the weights lack {_some(missing)}: these are of another architecture, or of a part of it.")
    known = re.compile("|".join(left_out) or "(?!)")
    if unknown := [name for name in tensors if name not in wanted and not known.fullmatch(name)]:
        raise ValueError(
            f"the weights have {_some(unknown)}, which this architecture has no place for: name the architecture that "
            "they are of."
        )
    if wrong := [f"{k} {tensors[k].shape}, not {shape}" for k, shape in wanted.items() if tensors[k].shape != shape]:
        raise ValueError(f"the weights have {_some(wrong)}: config.json tells of another size.")
    found: dict[str, np.ndarray] = {}
    for row in rows:
        if all(name in wanted for name in row.theirs):
            arrays = row.layout.ours(*(np.asarray(tensors[name], np.float32) for name in row.theirs))
        else:
            arrays = tuple(np.zeros(expected[path].shape, np.float32) for path in row.ours)
        found |= zip(row.ours, arrays, strict=True)
    return traverse_util.unflatten_dict(found, sep="/")


def write(variables: PyTree, rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Another library's tensors, float32, out of a module's variables."""
    arrays = {k: np.asarray(x, np.float32) for k, x in traverse_util.flatten_dict(variables, sep="/").items()}
    tensors: dict[str, np.ndarray] = {}
    for row in rows:
        tensors |= zip(row.theirs, row.layout.theirs(*(arrays.pop(path) for path in row.ours)), strict=True)
    if arrays:
        raise AssertionError(f"the map has no row for {sorted(arrays)[:SHOWN]}")
    return tensors


def own(shapes: PyTree) -> list[Row]:
    """Rows of our own files: every variable by its path."""
    return [Row((path,), (path,)) for path in traverse_util.flatten_dict(shapes, sep="/")]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
