"""What the losses ask of their arguments; each raises ValueError that names what it was given."""

import jax

from ssljax.typing import Array


def check_pair(name_a: str, a: Array, name_b: str, b: Array) -> None:
    if a.ndim != 2 or a.shape != b.shape or not a.size:
        raise ValueError(f"{name_a} {a.shape} and {name_b} {b.shape} must both be (batch, dim), equal and not empty.")


def check_positive(name: str, value) -> None:
    if not isinstance(value, jax.core.Tracer) and not value > 0:
        raise ValueError(f"{name} must be positive, but is {value}.")


def check_weights(name: str, rows: Array, weights: Array) -> None:
    if rows.ndim < 2 or weights.shape != rows.shape[:-1]:
        raise ValueError(f"{name} {rows.shape} must be (…, K) and weights {weights.shape} one for each of its rows.")
