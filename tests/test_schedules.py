"""Schedules at the steps that papers name, and between them."""

import math

import jax
import numpy as np
import pytest

from ssljax.schedules import ema_decay, warmup_cosine, warmup_linear


@pytest.mark.parametrize(
    "step, rate",
    [(0, 0.0), (5, 1.0), (10, 2.0), (35, 1.05 + 0.95 * math.cos(math.pi / 4)), (60, 1.05), (110, 0.1), (500, 0.1)],
)
def test_warmup_cosine(step, rate):
    """From 0 linearly to the peak at step 10, half a cosine down to the final rate at step 110, and then no further."""
    schedule = jax.jit(lambda s: warmup_cosine(s, peak=2.0, total=110, warmup=10, final=0.1))
    np.testing.assert_allclose(schedule(step), rate, rtol=1e-6)


@pytest.mark.parametrize("step, rate", [(0, 0.0), (5, 1.0), (10, 2.0), (60, 1.05), (85, 0.575), (110, 0.1), (500, 0.1)])
def test_warmup_linear(step, rate):
    schedule = jax.jit(lambda s: warmup_linear(s, peak=2.0, total=110, warmup=10, final=0.1))
    np.testing.assert_allclose(schedule(step), rate, rtol=1e-6)


def test_without_warmup_the_first_step_has_the_peak():
    np.testing.assert_allclose(warmup_cosine(0, peak=2.0, total=100), 2.0)


def test_warmup_as_long_as_the_run_ends_at_the_peak():
    np.testing.assert_allclose([warmup_cosine(s, peak=2.0, total=4, warmup=4) for s in (0, 2, 4)], [0.0, 1.0, 2.0])


@pytest.mark.parametrize(
    "kind, values",
    [
        ("constant", (0.99, 0.99, 0.99, 0.99)),
        ("cosine", (0.99, 1 - 0.01 * (1 + math.cos(math.pi / 4)) / 2, 1.0, 1.0)),
        ("linear", (0.99, 0.9925, 1.0, 1.0)),
    ],
)
def test_ema_decay(kind, values):
    """At the start, after a quarter, at the end, and after it."""
    decay = jax.jit(lambda s: ema_decay(s, 100, start=0.99, kind=kind))
    np.testing.assert_allclose([decay(s) for s in (0, 25, 100, 200)], values, rtol=1e-6)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_a_decay_that_changes_over_the_run_needs_its_length(kind):
    with pytest.raises(ValueError, match="goes to 1 by the end of the run: give the method its total_steps"):
        ema_decay(0, 0, start=0.9, kind=kind)


def test_ema_decay_of_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'step' is unknown; use one of constant, cosine, linear"):
        ema_decay(0, 1, start=0.9, kind="step")
