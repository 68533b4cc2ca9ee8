"""Memory of compiled programs, and of refusals."""

import jax
import jax.numpy as jnp
import pytest

from ssljax.cost.memory import Memory, memory_of, memory_of_refusal
from ssljax.cost.units import GIB, readable


def test_donated_arguments_are_counted_once():
    def f(state, batch):
        return state + 1.0, (batch * 2.0).sum()

    shapes = jax.ShapeDtypeStruct((2**20,), jnp.float32), jax.ShapeDtypeStruct((2**20,), jnp.float32)
    kept, donated = (memory_of(jax.jit(f, donate_argnums=d).lower(*shapes).compile(), None) for d in ((), (0,)))
    assert donated.arguments == kept.arguments == 2 * 2**22
    assert kept.temporaries - donated.temporaries == pytest.approx(2**22, rel=0.01)
    assert donated.arguments < donated.peak <= donated.arguments + donated.temporaries


REFUSALS = [
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (30.18G) exceeds "
    "available HBM (15.75G).",
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 30.18G of 15.75G "
    "hbm. Exceeded hbm capacity by 14.43G.",
]


@pytest.mark.parametrize("message", REFUSALS)
def test_a_refusal_says_what_was_needed(message):
    memory = memory_of_refusal(message, arguments=2 * GIB)
    assert memory == Memory(2 * GIB, pytest.approx(28.18 * GIB), 30.18 * GIB, 15.75 * GIB, compiled=False)
    assert not memory.fits


def test_units_of_a_refusal():
    memory = memory_of_refusal("HLO temporaries (2.00T) exceeds available HBM (512.00M).", 0.0)
    assert (memory.peak, memory.limit) == (2 * 2**40, 512 * 2**20)


def test_another_error_is_no_refusal():
    assert memory_of_refusal("INTERNAL: something else", 0.0) is None


def test_what_the_peak_holds_besides_is_named():
    assert Memory(4.0, 6.0, 13.0, None).program == 3.0
    assert Memory(4.0, 6.0, 9.0, None).program == 0.0


@pytest.mark.parametrize("limit, fits", [(10.0, True), (9.0, False), (None, True)])
def test_what_fits(limit, fits):
    assert Memory(4.0, 6.0, 10.0, limit).fits is fits


def test_numbers_are_readable():
    assert [readable(n, "B", 1024) for n in (0, 1023, 1536, 15.75 * GIB)] == ["0 B", "1023 B", "1.5 KiB", "15.75 GiB"]
    assert readable(2.5e12, "FLOP") == "2.5 TFLOP"
