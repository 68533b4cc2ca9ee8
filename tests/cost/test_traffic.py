"""Bytes on the wires, of small programs whose collectives are known by hand."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from ssljax.cost.topologies import open_slice
from ssljax.cost.traffic import KINDS, bytes_sent

ROWS, COLUMNS = 32, 16
LOCAL = ROWS // 4 * COLUMNS * 4
"""Bytes of one device's part of a float32 array that four devices share."""


SHARDED = P("data")


def sent(f, out=SHARDED, devices=None):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=(devices or jax.devices())[:4])
    spread = jax.jit(jax.shard_map(f, mesh=mesh, in_specs=P("data"), out_specs=out))
    array = jax.ShapeDtypeStruct((ROWS, COLUMNS), jnp.float32)
    traffic = bytes_sent(spread.lower(array).compile().as_text())
    return {kind: n for kind, n in traffic.sent.items() if n}, traffic.unknown_loops


RING = [1, 2, 3, 0]
EACH_KIND = {
    "psum": (lambda x: lax.psum(x, "data"), P(), {"all-reduce": 2 * 3 / 4 * LOCAL}),
    "all_gather": (lambda x: lax.all_gather(x, "data", tiled=True, to="invarying"), P(), {"all-gather": 3 * LOCAL}),
    "psum_scatter": (lambda x: lax.psum_scatter(x, "data", tiled=True), SHARDED, {"reduce-scatter": 3 / 4 * LOCAL}),
    "all_to_all": (lambda x: lax.all_to_all(x, "data", 0, 0, tiled=True), SHARDED, {"all-to-all": 3 / 4 * LOCAL}),
    "ppermute": (lambda x: lax.ppermute(x, "data", list(enumerate(RING))), SHARDED, {"collective-permute": LOCAL}),
    "none": (jnp.sin, SHARDED, {}),
}


@pytest.mark.parametrize("name", EACH_KIND)
def test_each_kind(name):
    f, out, expected = EACH_KIND[name]
    assert sent(f, out) == (expected, 0)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
@pytest.mark.parametrize("name", EACH_KIND)
@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"])
def test_each_kind_on_a_tpu(topology, name):
    f, out, expected = EACH_KIND[name]
    kinds, _ = sent(f, out, open_slice(topology).devices)
    # Where the compiler thinks little of a reduce-scatter it makes an all-reduce of it.
    assert kinds == expected or (name == "psum_scatter" and kinds == {"all-reduce": 2 * 3 / 4 * LOCAL})


def test_several_arrays_in_one_collective():
    def f(x):
        return sum(y.sum() for y in lax.psum((x, x[:2] * 2), "data"))

    assert sent(f, P())[0] == {"all-reduce": 2 * 3 / 4 * (LOCAL + 2 * COLUMNS * 4)}


def test_a_loop_counts_as_often_as_it_runs():
    def f(x):
        return lax.scan(lambda x, _: (jnp.sin(lax.ppermute(x, "data", list(enumerate(RING)))), None), x, None, 7)[0]

    assert sent(f) == ({"collective-permute": 7 * LOCAL}, 0)


def test_loops_in_loops_multiply():
    def inner(x, _):
        return jnp.sin(lax.ppermute(x, "data", list(enumerate(RING)))), None

    def f(x):
        return lax.scan(lambda x, _: (jnp.cos(lax.scan(inner, x, None, 3)[0]), None), x, None, 5)[0]

    assert sent(f) == ({"collective-permute": 15 * LOCAL}, 0)


def test_a_loop_of_unknown_length_is_told():
    def f(x):
        def more(x):
            return lax.pmean(x.sum(), "data") > 0

        return lax.while_loop(more, lambda x: lax.ppermute(x, "data", list(enumerate(RING))) - 1, x)

    kinds, unknown = sent(f)
    assert kinds["collective-permute"] == LOCAL and unknown == 1


def module(body: str, others: str = "", devices: int = 8) -> str:
    return f"""HloModule m, is_scheduled=true, num_partitions={devices}

{others}
ENTRY %main (p: f32[8,128]) -> f32[] {{
  %p = f32[8,128]{{1,0}} parameter(0)
{body}
}}
"""


ARRAY = 8 * 128 * 4


@pytest.mark.parametrize(
    "line, kind, bytes_of_one",
    [
        ("%r = f32[8,128]{1,0} all-reduce(%p), replica_groups={{0,1},{2,3},{4,5},{6,7}}", "all-reduce", 2 * ARRAY / 2),
        ("%r = f32[8,128]{1,0} all-reduce(%p), replica_groups=[2,4]<=[4,2]T(1,0)", "all-reduce", 2 * 3 / 4 * ARRAY),
        ("%r = f32[8,128]{1,0} all-reduce(%p), replica_groups={}", "all-reduce", 2 * 7 / 8 * ARRAY),
        ("%r = f32[8,128]{1,0} all-reduce(%p), replica_groups=[8,1]<=[8]", "all-reduce", 0),
        ("%r = f32[8,128]{1,0} all-reduce-start(%p), replica_groups=[1,8]<=[8]", "all-reduce", 2 * 7 / 8 * ARRAY),
        (
            "%r = (f32[8,128]{1,0:T(8,128)(2,1)}, f32[64,128]{1,0}) all-gather-start(%p), replica_groups=[1,8]<=[8]",
            "all-gather",
            7 * ARRAY,
        ),
        ("%r = f32[1,128]{1,0} reduce-scatter(f32[8,128]{1,0} %p), replica_groups={}", "reduce-scatter", 7 / 8 * ARRAY),
        (
            "%r = (f32[8,128]{1,0}, f32[8,128]{1,0}, u32[]) collective-permute-start(%p), source_target_pairs={{0,1}}",
            "collective-permute",
            ARRAY,
        ),
        ("%r = f32[8,128]{1,0} collective-permute(%p), source_target_pairs={{0,0},{1,1}}", "collective-permute", 0),
    ],
)
def test_spellings_of_the_tpu_and_gpu_compilers(line, kind, bytes_of_one):
    assert bytes_sent(module(f"  {line}")).sent == {**dict.fromkeys(KINDS, 0.0), kind: bytes_of_one}


def test_the_end_of_an_asynchronous_collective_is_not_counted_again():
    lines = """  %s = f32[8,128]{1,0} all-reduce-start(%p), replica_groups={}
  %d = f32[8,128]{1,0} all-reduce-done(%s)"""
    assert bytes_sent(module(lines)).total == 2 * 7 / 8 * ARRAY


def test_a_fused_all_reduce_that_keeps_a_slice_is_a_reduce_scatter():
    others = """%all-reduce-scatter.1 (q: f32[8,128]) -> f32[1,128] {
  %q = f32[8,128]{1,0} parameter(0)
  %a = f32[8,128]{1,0} all-reduce(%q), replica_groups={}, to_apply=%add
  ROOT %o = f32[1,128]{1,0} dynamic-slice(%a), dynamic_slice_sizes={1,128}
}
"""
    line = "  %f = f32[1,128]{1,0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1"
    assert bytes_sent(module(line, others)).sent["reduce-scatter"] == 7 / 8 * ARRAY


def test_a_collective_in_a_chain_of_fusions_counts_once():
    gather = 'all-gather(%q), replica_groups={}, frontend_attributes={chain_id="0"}'
    others = "".join(
        f"""%fused.{i} (q: f32[8,128]) -> f32[64,128] {{
  %q = f32[8,128]{{1,0}} parameter(0)
  %g = f32[64,128]{{1,0}} {gather}
  ROOT %o = f32[64,128]{{1,0}} custom-call(%g), custom_call_target="AsyncCollective{part}"
}}

"""
        for i, part in enumerate(("Start", "Update", "Done"))
    )
    lines = "\n".join(f"  %f.{i} = f32[64,128]{{1,0}} fusion(%p), kind=kCustom, calls=%fused.{i}" for i in range(3))
    assert bytes_sent(module(lines, others)).total == 7 * ARRAY


def test_a_collective_that_another_core_runs():
    """TPU7x gives them to its sparse cores."""
    others = """%called (q: f32[8,128], t: token[]) -> f32[8,128] {
  %q = f32[8,128]{1,0} parameter(0)
  %t = token[] parameter(1)
  ROOT %a = f32[8,128]{1,0} all-reduce(%q), replica_groups={}
}
"""
    lines = """  %s = ((f32[8,128]{1,0}, token[]), f32[8,128]{1,0}) call-start(%p, %x), to_apply=%called
  %d = f32[8,128]{1,0} call-done(%s)"""
    assert bytes_sent(module(lines, others)).total == 2 * 7 / 8 * ARRAY


def test_a_conditional_is_its_dearest_branch():
    others = """%yes (q: f32[8,128]) -> f32[8,128] {
  %q = f32[8,128]{1,0} parameter(0)
  ROOT %a = f32[8,128]{1,0} all-reduce(%q), replica_groups={}
}

%no (r: f32[8,128]) -> f32[8,128] {
  ROOT %r = f32[8,128]{1,0} parameter(0)
}
"""
    line = "  %c = f32[8,128]{1,0} conditional(%i, %p, %p), branch_computations={%yes, %no}"
    assert bytes_sent(module(line, others)).total == 2 * 7 / 8 * ARRAY


def test_the_length_of_a_loop_from_its_condition():
    others = """%body (b: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %b = (s32[], f32[8,128]{1,0}) parameter(0)
  %x = f32[8,128]{1,0} get-tuple-element(%b), index=1
  %a = f32[8,128]{1,0} all-reduce(%x), replica_groups={}
}

%condition (c: (s32[], f32[8,128])) -> pred[] {
  %n = s32[]{:T(128)} constant(12)
  %c = (s32[], f32[8,128]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  ROOT %l = pred[] compare(%i, %n), direction=LT
}
"""
    line = "  %w = (s32[], f32[8,128]{1,0}) while(%t), condition=%condition, body=%body"
    assert bytes_sent(module(line, others)).total == 12 * 2 * 7 / 8 * ARRAY
    known = line + ', backend_config={"known_trip_count":{"n":"3"}}'
    assert bytes_sent(module(known, others)).total == 3 * 2 * 7 / 8 * ARRAY
