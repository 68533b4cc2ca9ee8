"""What a config costs on devices that need not be there: compile its train step ahead of time and read the bill.

    python -m ssljax.preflight --config=configs/images/mae.py:imagenet --topology=v5e:4x4 [--mesh=4,4 | --mesh=auto]

--topology: a TPU slice (v4, v5e, v5p, v6e, tpu7x; needs `pip install -r requirements-preflight.txt`), cpu:8 for so many
virtual CPU devices, or nothing for the devices of this machine. --mesh: data,fsdp; the config's if it is not given.
No data need be there. Exit code 0 if the step fits, 1 if it does not or if something is wrong.
"""

import inspect
import math
import re
import sys
import time
from typing import Any

import jax
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

from ssljax.build import Run, build_run, build_source, example_batch, modality_of, settle, small_batch
from ssljax.commands import launch, quiet_logs
from ssljax.cost.bill import Cost, report
from ssljax.cost.flops import count_work
from ssljax.cost.memory import memory_of, memory_of_refusal
from ssljax.cost.roofline import roofline
from ssljax.cost.topologies import Slice, open_slice
from ssljax.cost.traffic import bytes_sent
from ssljax.cost.units import GIB
from ssljax.cost.verdict import Setting, verdict
from ssljax.data.sources import DataError
from ssljax.engine.mesh import abstract_batch, make_mesh
from ssljax.models import ENCODERS
from ssljax.typing import PyTree

STAND_IN_STEPS = 1000
"""Steps of an epoch of data that is not there; only schedules see it."""


def main(config: ConfigDict | None, topology: str, mesh: str) -> int:
    if config is None:
        raise ValueError("--config is needed, for instance --config=configs/images/mae.py:imagenet --topology=v5e:4x4.")
    quiet_logs()
    jax.config.update("jax_enable_compilation_cache", False)  # what compiling costs is one of the questions
    where = open_slice(topology)
    example, assumed = example_of(config)
    if mesh == "auto":
        return choose_mesh(config, example, where, assumed)
    shape = mesh_shape(mesh, config)
    try:
        devices = make_mesh(*shape, devices=where.devices)
    except ValueError as error:
        raise ValueError(str(error).replace("--config.mesh.data or --config.mesh.fsdp", "--mesh")) from error
    cost = measure(config, example, where, devices)
    print("\n".join([*report(config, cost, where), *assumed, "", say(config, cost, where)]))
    return 0 if cost.memory.fits else 1


def mesh_shape(mesh: str, config: ConfigDict) -> tuple[int, int]:
    """`4,4` -> (4, 4); the config's if empty. Raises ValueError for anything else."""
    if not mesh:
        return config.mesh.data, config.mesh.fsdp
    if not re.fullmatch(r"(-1|\d+),(-1|\d+)", mesh):
        raise ValueError(f"--mesh={mesh} must be data,fsdp (--mesh=4,4; -1 for all that the other leaves) or auto.")
    data, fsdp = map(int, mesh.split(","))
    return data, fsdp


def example_of(config: ConfigDict) -> tuple[dict[str, jax.ShapeDtypeStruct], list[str]]:
    """Shapes of a small batch, and what is assumed about them where the data is not there.

    Raises DataError for a kind of source that does not exist, ValueError for fields that cannot be.
    """
    try:
        source = build_source(config, "train")
    except DataError as error:
        shapes, assumed = modality_of(config).stand_in(error)
        return small_batch(config, shapes), [f"{config.data.source} is not here: {assumed}"]
    settle(config, source)
    return example_batch(config, source), []


def measure(config: ConfigDict, example: PyTree, where: Slice, mesh: Mesh) -> Cost:
    """Compile the config's step for these devices and read off what it costs. Nothing runs.

    Raises ValueError for what is wrong in the config, and if the compiler refuses the step for want of anything but
    memory.
    """
    n = mesh.devices.size
    run, traced = _trace(config, example, mesh)
    work = model = count_work(traced.jaxpr)
    if plain := _without_recomputation(config):
        model = count_work(_trace(plain, example, mesh)[1].jaxpr)
    state = sum(_bytes_of(x) for x in jax.tree.leaves(run.abstract))
    shape = " ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    print(f"compiling for {where}, mesh {shape} (a large step takes minutes) …", file=sys.stderr, flush=True)
    start = time.perf_counter()
    traffic = None
    try:
        compiled = traced.lower().compile(_options(where))
    except jax.errors.JaxRuntimeError as error:
        batch = sum(_bytes_of(x) for x in jax.tree.leaves(abstract_batch(example, config.batch_size, mesh)))
        memory = memory_of_refusal(str(error), state + batch)
        if memory is None:
            raise ValueError(f"the compiler refuses this step: {str(error).strip().splitlines()[0]}") from error
    else:
        memory = memory_of(compiled, where.limit)
        traffic = bytes_sent(compiled.as_text())
    seconds = time.perf_counter() - start
    roof = None
    if where.chip and traffic:
        roof = roofline(
            where.chip,
            flops=work.flops / n,
            model_flops=model.flops / n,
            memory_bytes=work.bytes / n + 2 * state,  # all of the state is read once and written once
            sent_bytes=traffic.total,
        )
    parameters = sum(x.size for x in jax.tree.leaves(run.abstract.params))
    return Cost(mesh, memory, work, model, state, traffic, seconds, parameters, roof)


def _options(where: Slice) -> dict[str, str]:
    """XLA's CPU compiler (jaxlib 0.10) aborts the process where it widens a bfloat16 all-reduce; nothing runs here."""
    return {"xla_disable_hlo_passes": "all-reduce-promotion"} if where.devices[0].platform == "cpu" else {}


def _trace(config: ConfigDict, example: PyTree, mesh: Mesh) -> tuple[Run, Any]:
    run = build_run(config, examples=STAND_IN_STEPS * max(1, config.batch_size), example=example, mesh=mesh)
    return run, run.step.trace(run.abstract, abstract_batch(example, config.batch_size, mesh))  # type: ignore[attr-defined]


def _without_recomputation(config: ConfigDict) -> ConfigDict | None:
    """The config that computes everything once, if it is another one."""
    if not config.encoder.get("remat") and not config.train.microbatch:
        return None
    plain = config.copy_and_resolve_references()
    if config.encoder.get("remat"):
        plain.encoder.remat = ""
    plain.train.microbatch = 0
    return plain


def _bytes_of(x: jax.ShapeDtypeStruct) -> float:
    """Bytes of one device's part of an array."""
    assert x.sharding is not None
    return math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize


def say(config: ConfigDict, cost: Cost, where: Slice) -> str:
    """The verdict."""
    fields = inspect.signature(ENCODERS[config.encoder.name].func).parameters
    setting = Setting(
        devices=cost.mesh.devices.size,
        fsdp=cost.mesh.shape["fsdp"],
        batch=config.batch_size,
        microbatch=config.train.microbatch,
        remat=config.encoder.remat or "" if "remat" in fields else None,
        dtype=config.dtype,
    )
    return verdict(cost.memory, cost.state, setting, where.unit)


def choose_mesh(config: ConfigDict, example: PyTree, where: Slice, assumed: list[str]) -> int:
    """Try `fsdp` of 1, of all devices and of each power between (of two; of four from 16 devices on, for each takes a
    compilation); recommend the fastest that fits. Ties go to the one that sends less.
    """
    n = len(where.devices)
    base = 2 if n < 16 else 4
    sizes = sorted({1, n} | {base**k for k in range(1, n.bit_length()) if n % base**k == 0})
    print(f"{'data,fsdp':>10} {'peak, GiB':>10} {'sent, GiB':>10} {'roofline, ms':>13} {'compiled, s':>12}")
    costs: list[Cost] = []
    wrong: ValueError | None = None
    for fsdp in sizes:
        name = f"{n // fsdp},{fsdp}"
        try:
            cost = measure(config, example, where, make_mesh(n // fsdp, fsdp, devices=where.devices))
        except ValueError as error:
            wrong = error
            print(f"{name:>10} skipped: {error}", flush=True)
            continue
        costs.append(cost)
        sent = f"{cost.sent / GIB:.3f}" if cost.traffic else "?"
        time_at_least = f"{1000 * cost.roof.seconds:.4g}" if cost.roof else "?"
        print(
            f"{name:>10} {cost.memory.peak / GIB:>10.3f} {sent:>10} {time_at_least:>13} {cost.compile_seconds:>12.1f}"
            + ("" if cost.memory.fits else "   does not fit"),
            flush=True,
        )
    if not costs:
        raise ValueError(f"no mesh of {n} devices suits this config; the last one: {wrong}") from wrong
    print("\n".join(["", *assumed]))
    fitting = [cost for cost in costs if cost.memory.fits]
    if not fitting:
        print(say(config, min(costs, key=lambda cost: cost.memory.peak), where))
        return 1
    best = min(fitting, key=lambda cost: (cost.roof.seconds if cost.roof else 0.0, cost.sent, cost.memory.peak))
    print(say(config, best, where))
    print(
        f"recommended: --config.mesh.data={best.mesh.shape['data']} --config.mesh.fsdp={best.mesh.shape['fsdp']}, "
        f"{'the fastest by roofline' if best.roof else 'which sends least'} of those that fit."
    )
    return 0


if __name__ == "__main__":
    CONFIG = config_flags.DEFINE_config_file(
        "config", lock_config=True, help_string="A file, and its variant after a colon."
    )
    TOPOLOGY = flags.DEFINE_string("topology", "", "A TPU slice (v5e:4x4), cpu:8, or nothing for what there is.")
    MESH = flags.DEFINE_string("mesh", "", "data,fsdp; auto; or nothing for the config's.")
    launch(lambda: main(CONFIG.value, TOPOLOGY.value, MESH.value), alone=True)
