"""Names of slices, and the time that no step can beat."""

import importlib.util
import math

import jax
import pytest

from ssljax.cost.chips import CHIPS, parse_topology
from ssljax.cost.roofline import roofline
from ssljax.cost.topologies import open_slice

without_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
with_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_every_shape_that_is_named_can_be_written(chip):
    for shape in chip.shapes.split(", "):
        assert parse_topology(f"{chip.name}:{shape}") == (chip, tuple(map(int, shape.split("x"))))


@pytest.mark.parametrize(
    "name, said",
    [
        ("v9:2x2", "v5e:"),
        ("v5e", "there is 1x1, 2x2"),
        ("v5e:4x4x4", "there is 1x1, 2x2"),
        ("v5e:32x32", "16x16"),
        ("v5p:3x4x8", "multiples of 4, up to 6144"),
        ("v5p:32x32x32", "multiples of 4, up to 6144"),
        ("tpu", "v5e:"),
    ],
)
def test_topologies_that_do_not_exist(name, said):
    with pytest.raises(ValueError, match=said):
        parse_topology(name)


@without_libtpu
def test_without_libtpu_the_error_says_what_to_install():
    with pytest.raises(ValueError, match="requirements-preflight.txt"):
        open_slice("v5e:4x4")


@with_libtpu
@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_the_compiler_knows_every_chip(chip):
    for shape in chip.shapes.split(", "):
        where = open_slice(f"{chip.name}:{shape}")
        assert len(where.devices) == chip.devices * math.prod(map(int, shape.split("x")))
        assert where.devices[0].device_kind == chip.kind
        assert 0.9 < where.limit / (chip.hbm / chip.devices) < 1.02


def test_the_devices_that_there_are():
    where = open_slice("")
    assert where.devices == jax.devices() and where.chip is None and where.limit > 0


def test_a_roofline_is_the_longest_of_its_three():
    """v5e: 197 TFLOP/s, 819 GB/s, 200 GB/s."""
    v5e = CHIPS["v5e"]
    of = dict(flops=2 * 197e12, model_flops=197e12, memory_bytes=819e9, sent_bytes=100e9)
    roof = roofline(v5e, **of)
    assert (roof.compute, roof.memory, roof.network) == pytest.approx((2.0, 1.0, 0.5))
    assert roof.seconds == pytest.approx(2.0) and roof.mfu == pytest.approx(0.5) and roof.bound == "compute"
    assert roofline(v5e, **{**of, "sent_bytes": 800e9}).mfu == pytest.approx(0.25)


def test_half_a_chip_has_half_of_everything():
    of = dict(flops=1e15, model_flops=1e15, memory_bytes=1e12, sent_bytes=1e11)
    tpu7x = CHIPS["tpu7x"]
    assert roofline(tpu7x, **of).compute == pytest.approx(2 * 1e15 / tpu7x.flops)
    assert roofline(tpu7x, **of).network == pytest.approx(2 * 1e11 / tpu7x.ici)
