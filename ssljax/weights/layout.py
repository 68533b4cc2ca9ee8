"""How tensors of ours lie in another library, and back: each layout is a pair of functions that undo each other."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Arrays = tuple[np.ndarray, ...]


class Layout(NamedTuple):
    """`ours(*theirs)` and `theirs(*ours)`, each of which gives a tuple; `ours(*theirs(*x))` is x."""

    ours: Callable[..., Arrays]
    theirs: Callable[..., Arrays]


def one(ours: Callable[[np.ndarray], np.ndarray], theirs: Callable[[np.ndarray], np.ndarray]) -> Layout:
    """The layout of one tensor that is one of theirs."""
    return Layout(lambda x: (ours(x),), lambda x: (theirs(x),))


SAME = one(np.asarray, np.asarray)
TRANSPOSED = one(np.transpose, np.transpose)
"""A dense kernel, (in, out) and (out, in), or that of a convolution over time, (time, in, out) and (out, in, time)."""
CONVOLUTION = one(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
"""(height, width, in, out) and (out, in, height, width)."""


def leading(ones: int) -> Layout:
    """Theirs begins with so many dimensions of 1 that ours has not."""
    return one(lambda x: x.reshape(x.shape[ones:]), lambda x: x.reshape((1,) * ones + x.shape))


def patches(side: int) -> Layout:
    """A projection of patches: (side · side · channels, width) and a convolution's (width, channels, side, side)."""
    return one(
        lambda x: x.transpose(2, 3, 1, 0).reshape(-1, len(x)),
        lambda x: x.reshape(side, side, -1, x.shape[1]).transpose(3, 2, 0, 1),
    )


def to_heads(heads: int) -> Layout:
    """A projection to queries, keys or values: (in, heads, dim) and (in, heads · dim)."""
    return one(lambda x: x.reshape(len(x), heads, -1), lambda x: x.reshape(len(x), -1))


def from_heads(heads: int) -> Layout:
    """The projection after attention: (heads, dim, out) and (heads · dim, out)."""
    return one(lambda x: x.reshape(heads, -1, x.shape[1]), lambda x: x.reshape(-1, x.shape[2]))


def by_heads(heads: int) -> Layout:
    """A bias of queries, keys or values: (heads, dim) and (heads · dim,)."""
    return one(lambda x: x.reshape(heads, -1), np.ravel)


def then(first: Layout, second: Layout) -> Layout:
    """From theirs to ours by `first` and then by `second`, each of one tensor; back in the other order."""
    return Layout(lambda *x: second.ours(*first.ours(*x)), lambda *x: first.theirs(*second.theirs(*x)))


def packed(layout: Layout, count: int, axis: int) -> Layout:
    """So many tensors of ours, each in `layout`, that are one of theirs, side by side along its `axis`."""

    def ours(x: np.ndarray) -> Arrays:
        return tuple(layout.ours(part)[0] for part in np.split(x, count, axis))

    def theirs(*parts: np.ndarray) -> Arrays:
        return (np.concatenate([layout.theirs(part)[0] for part in parts], axis),)

    return Layout(ours, theirs)


def _with_class(token: np.ndarray, places: np.ndarray) -> Arrays:
    return token[0] + places[0, :1], places[0, 1:]


def _with_registers(token: np.ndarray, registers: np.ndarray, places: np.ndarray) -> Arrays:
    return np.concatenate([token[0] + places[0, :1], registers[0]]), places[0, 1:]


def _apart(token: np.ndarray, registers: np.ndarray, places: np.ndarray) -> Arrays:
    return np.concatenate([token[0], registers[0]]), places[0]


def _first_zero(positions: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros_like(positions[:1]), positions])


CLASS_AND_POSITIONS = Layout(_with_class, lambda prefix, x: (prefix[None], _first_zero(x)[None]))
"""prefix (1, width) and positions (patches, width); the class token (1, 1, width) and positions (1, 1 + patches,
width), of which the first is the token's. Our prefix is the sum of both; what is written has zeros for that one."""
REGISTERS_AND_POSITIONS = Layout(_with_registers, lambda p, x: (p[None, :1], p[None, 1:], _first_zero(x)[None]))
"""The same with registers (1, registers, width), which have no positions, between them (Hugging Face)."""
PREFIX_AND_POSITIONS = Layout(_apart, lambda p, x: (p[None, :1], p[None, 1:], x[None]))
"""The same where the class token has no position either (timm)."""
CLIP_AND_POSITIONS = Layout(
    lambda token, places: (token[None] + places[:1], places[1:]), lambda prefix, x: (prefix[0], _first_zero(x))
)
"""The same as `CLASS_AND_POSITIONS` without dimensions of 1."""
