"""Multiply-adds of a program, counted from its jaxpr, where loops still say how often they run."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.interpreters import partial_eval


@dataclass(frozen=True)
class Work:
    """What a program does on all devices together.

    flops: two for each multiply-add of its matrix products and convolutions; all else is left out, as in published
        counts (a few per cent, and it runs beside the matrix unit).
    bytes: every operand and result of those products once, in the type that they have there. What comes between two
        products is taken to be fused into them, so this is a floor of the memory traffic.
    unknown_loops: loops whose length only the running program knows; their bodies are counted once.
    """

    flops: float = 0.0
    bytes: float = 0.0
    unknown_loops: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.bytes + other.bytes, self.unknown_loops + other.unknown_loops)

    def times(self, n: int) -> "Work":
        return Work(n * self.flops, n * self.bytes, self.unknown_loops)


def count_work(jaxpr: ClosedJaxpr) -> Work:
    """The work of a program: `count_work(jax.make_jaxpr(f)(*arguments))`, or of `jax.jit(f).trace(…).jaxpr`.

    The body of a scan counts `length` times, that of a `shard_map` once for each of its shards (so that the sum is the
    same on any mesh), a `cond` as its dearest branch; what a program computes but does not use counts nothing. What
    `jax.checkpoint` computes a second time is counted a second time.
    """
    used, _ = partial_eval.dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars), instantiate=True)
    return _of_jaxpr(used)


def _of_jaxpr(jaxpr: Jaxpr) -> Work:
    return sum((_of_equation(equation) for equation in jaxpr.eqns), Work())


def _of_equation(equation: Any) -> Work:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return Work(_dot_flops(equation), _bytes(equation))
    if name == "conv_general_dilated":
        return Work(_conv_flops(equation), _bytes(equation))
    bodies = [_of_jaxpr(body) for body in _bodies(params)]
    if name == "cond":
        return max(bodies, key=lambda work: work.flops)
    inside = sum(bodies, Work())
    if name == "scan":
        return inside.times(params["length"])
    if name == "shard_map":
        manual = params["newly_manual_axes"] if "newly_manual_axes" in params else params["manual_axes"]
        return inside.times(math.prod(params["mesh"].shape[axis] for axis in manual))
    if name == "while" and inside.bytes:
        return Work(inside.flops, inside.bytes, inside.unknown_loops + 1)
    return inside


def _bodies(params: dict) -> Iterator[Jaxpr]:
    """The programs that an equation runs: of pjit, remat, custom_vjp, scan, cond and whatever else holds some."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def _dot_flops(equation: Any) -> float:
    """2 x batch x rows x columns x contracted."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    return 2.0 * _size(equation.outvars[0]) * math.prod(equation.invars[0].aval.shape[d] for d in contracted)


def _conv_flops(equation: Any) -> float:
    """2 x batch x out channels x in channels of a group x, for each spatial dimension, products of one output line.

    A spatial dimension relates three lengths, input, output and kernel, of which differentiation only changes the
    roles; the number of (input, tap) pairs is the product of the two smaller ones. So the gradients cost exactly what
    the forward pass does, and nothing is counted for the zeros that a transposed convolution puts between and around
    its inputs. Taps that fall on the border of a `SAME` convolution do count, as in published numbers.
    """
    numbers = equation.params["dimension_numbers"]
    lhs, rhs = (v.aval.shape for v in equation.invars)
    out = equation.outvars[0].aval.shape
    pairs = 1.0
    for i, k, o in zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True):
        a, b, _ = sorted((lhs[i], rhs[k], out[o]))
        pairs *= a * b
    batch, features = (out[d] for d in numbers.out_spec[:2])
    return 2.0 * batch * features * rhs[numbers.rhs_spec[1]] * pairs


def _bytes(equation: Any) -> float:
    arrays = [*equation.invars, *equation.outvars]
    return float(sum(_size(v) * v.aval.dtype.itemsize for v in arrays))


def _size(variable: Any) -> int:
    return math.prod(variable.aval.shape)
