"""The sentence at the end: it names what would help and can still be changed, and nothing else."""

import dataclasses

import pytest

from ssljax.cost.memory import Memory
from ssljax.cost.units import GIB
from ssljax.cost.verdict import Setting, remedies, verdict

VIT = Setting(devices=16, fsdp=1, batch=4096, microbatch=0, remat="", dtype="float32")


def memory(state, temporaries, limit=16.0):
    return Memory(state * GIB, temporaries * GIB, (state + temporaries) * GIB, limit * GIB)


def names(state, temporaries, setting=VIT, limit=16.0):
    told = " ".join(remedies(memory(state, temporaries, limit), state * GIB, setting))
    flags = {
        "mesh": "--mesh",
        "remat": "remat=",
        "microbatch": "microbatch",
        "batch": "batch_size",
        "dtype": "dtype",
    }
    found = {name: told.find(flag) for name, flag in flags.items()}
    return [name for name in sorted(found, key=found.get) if found[name] >= 0]


def test_what_fits_says_how_tightly():
    assert verdict(memory(2, 6), 2 * GIB, VIT, "chip") == "fits: 8 GiB of 16 GiB (50 %) on each of 16 chips."
    one = dataclasses.replace(VIT, devices=1)
    assert verdict(memory(2, 6), 2 * GIB, one, "chip") == "fits: 8 GiB of 16 GiB (50 %) on the chip."


def test_an_unknown_limit_is_no_promise():
    needs = verdict(Memory(0, GIB, GIB, None), 0.0, VIT, "device")
    assert "1 GiB" in needs and "fits" not in needs


def test_parameters_that_are_too_large_are_sharded_first():
    assert names(24, 4)[0] == "mesh"
    assert names(1, 40)[0] == "remat" and "mesh" not in names(1, 40)
    for now, then in (("", "products"), ("products", "blocks")):
        assert f"remat={then}" in remedies(memory(1, 40), GIB, dataclasses.replace(VIT, remat=now))[0]


def test_the_mildest_change_that_suffices():
    """24 of 30 GiB are the state: 24 / 4 + 6 fit into 16, 24 / 2 + 6 do not. 40 GiB of temporaries fit in quarters."""
    assert "--mesh=4,4" in remedies(memory(24, 6), 24 * GIB, VIT)[0]
    told = " ".join(remedies(memory(1, 40), GIB, VIT))
    assert "microbatch=1024" in told and "batch_size=1024" in told


@pytest.mark.parametrize(
    "change, gone",
    [
        ({"remat": "blocks"}, "remat"),
        ({"remat": None}, "remat"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"microbatch": None}, "microbatch"),
        ({"microbatch": 16}, "microbatch"),
        ({"batch": 16}, "batch"),
    ],
)
def test_what_cannot_be_changed_is_not_named(change, gone):
    setting = dataclasses.replace(VIT, **change)
    assert gone in names(10, 40) and gone not in names(10, 40, setting)
    assert {"mesh", "remat", "microbatch", "batch", "dtype"} == set(names(10, 40))


def test_all_that_is_sharded_already_is_not_sharded_again():
    assert "mesh" not in names(30, 2, dataclasses.replace(VIT, fsdp=16))


def test_where_nothing_is_left_more_chips_are():
    bare = Setting(devices=16, fsdp=16, batch=16, microbatch=16, remat="blocks", dtype="bfloat16")
    said = verdict(memory(20, 4), 20 * GIB, bare, "chip")
    assert said.startswith("does not fit: each of 16 chips needs 24 GiB of 16 GiB") and "more chips" in said


def test_one_example_a_device_is_not_helped_by_more_devices():
    graph = Setting(devices=1, fsdp=1, batch=1, microbatch=0, remat=None, dtype="bfloat16")
    assert verdict(memory(1, 40), GIB, graph, "chip").endswith("temporaries: take chips with more memory.")
    assert "or take more chips" in verdict(memory(1, 40), GIB, dataclasses.replace(graph, batch=3), "chip")
