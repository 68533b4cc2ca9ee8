"""Devices to compile for: a TPU slice that is not there, virtual CPU devices, or what there is."""

import importlib.util
import os
import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.experimental.topologies import get_topology_desc

from ssljax.cost.chips import Chip, chip_of, parse_topology
from ssljax.cost.memory import memory_of_refusal

LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",  # ask no cloud what machine this is
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # looked for, though the topology is given by name
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # compiling claims no chip, so others may compile or train at the same time
}


@dataclass(frozen=True)
class Slice:
    """chip: None where it is unknown, and then there is no roofline. limit: bytes that a step may use on one device,
    None where nobody knows. unit: what one device is called."""

    name: str
    devices: list[jax.Device]
    chip: Chip | None
    limit: float | None
    unit: str

    def __str__(self) -> str:
        half = "half " if self.unit == "half chip" else ""
        return f"{len(self.devices)} x {half}{self.devices[0].device_kind}"


def open_slice(topology: str) -> Slice:
    """`v5e:4x4` and the like, `cpu:8`, or all the devices that there are for an empty name.

    Must come before anything else makes JAX look for devices. Raises ValueError for topologies that do not exist, and
    where `libtpu` is missing.
    """
    if not topology:
        return _present(jax.devices(), "")
    if found := re.fullmatch(r"cpu:([1-9]\d*)", topology):
        n = int(found[1])
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", n)
        return _present(jax.devices("cpu"), topology)
    chip, sides = parse_topology(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            f"--topology={topology} needs the TPU compiler: `pip install -r requirements-preflight.txt`, or "
            '`pip install "ssljax[preflight]"`.'
        )
    for variable, value in LIBTPU.items():
        os.environ.setdefault(variable, value)
    jax.config.update("jax_platforms", "cpu")  # constants are computed here, whatever else this machine has
    options: dict = {}
    if chip.name == "v4":  # two cores that work as one, as they do on Cloud TPU machines unless told otherwise
        options["chip_config_name"] = "megacore"
    if any(side % per_host for side, per_host in zip(sides, (2, 2, 1), strict=False)):
        options["chips_per_host_bounds"] = (*sides, 1)[:3]
    try:
        devices = get_topology_desc(platform="tpu", topology_name=topology, **options).devices
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"--topology={topology}: libtpu refuses it ({_first_line(error)}).") from error
    limit = _usable(devices[0]) or chip.hbm / chip.devices
    return Slice(topology, devices, chip, limit, _unit(chip))


def _present(devices: list[jax.Device], name: str) -> Slice:
    chip = chip_of(devices[0].device_kind)
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    if limit is None and devices[0].platform == "cpu":  # they share the machine's
        limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / len(devices)
    return Slice(name, devices, chip, limit, _unit(chip))


def _unit(chip: Chip | None) -> str:
    return "device" if chip is None else "chip" if chip.devices == 1 else "half chip"


def _usable(device: jax.Device) -> float | None:
    """What the compiler gives a program of a device's memory: it tells who asks for a tebibyte."""
    where = jax.sharding.SingleDeviceSharding(device)
    tebibyte = jax.ShapeDtypeStruct((2**20, 2**18), jnp.float32, sharding=where)
    try:
        jax.jit(jnp.negative, out_shardings=where).lower(tebibyte).compile()
    except jax.errors.JaxRuntimeError as error:
        refusal = memory_of_refusal(str(error), 0.0)
        return refusal.limit if refusal else None
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
