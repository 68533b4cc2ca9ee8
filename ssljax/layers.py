"""Which layer of an encoder a parameter is in, by its name."""

import re
from typing import Any

import jax
import numpy as np

from ssljax.typing import PyTree

BELOW = ("stem", "patch_embed", "pre", "position", "mask", "embed", "types", "features", "feature_norm", "project")
"""How names begin of what comes before an encoder's stages or blocks."""


def layer_numbers(params: PyTree) -> tuple[PyTree, int]:
    """(the layer of each parameter, how many there are).

    Layers are numbered from what comes first, an encoder's stem, embedding or convolutions (0), through its stages,
    blocks or layers; whatever comes after them has the number that follows. An array if layers are stacked.
    """
    numbers = jax.tree_util.tree_map_with_path(
        lambda path, x: _layer(names_of(path), x.ndim, len(x) if x.ndim else 0), params
    )
    top = 1 + max(int(np.max(number)) for number in jax.tree.leaves(numbers))
    return jax.tree.map(lambda number: np.where(number < 0, top, number), numbers), top


def _layer(names: list[str], ndim: int, length: int) -> np.ndarray:
    """Number of the encoder's layer that a parameter is in, -1 for above them all; an array if layers are stacked."""
    if names[0] != "encoder":
        return np.array(-1)
    if names[1].startswith(BELOW):
        return np.array(0)
    if "blocks" in names:  # scanned: the leading axis counts the layers
        return 1 + np.arange(length).reshape(-1, *(1,) * (ndim - 1))
    for part in names[1:]:
        if found := re.match(r"stage(\d+)|block(\d+)", part):
            return np.array(int(found[1]) if found[1] else int(found[2]) + 1)
    if found := re.match(r"(?:conv|norm|layer|dense|bias|slope)(\d+)", names[1]):  # neither stages nor blocks
        return np.array(int(found[1]))
    return np.array(-1)


def names_of(path: tuple[Any, ...]) -> list[str]:
    """The keys that lead to a parameter in its tree."""
    return [str(getattr(entry, "key", entry)) for entry in path]
