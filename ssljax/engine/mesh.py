"""The mesh of devices, and how the batch and the state lie on it."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ssljax.typing import PyTree


def make_mesh(data: int = -1, fsdp: int = 1, devices=None) -> Mesh:
    """A ('data', 'fsdp') mesh: the batch is split over both, parameters over `fsdp` only.

    -1 for one of them means all the devices that the other leaves. Raises ValueError if they do not fill the devices.
    """
    devices = jax.devices() if devices is None else devices
    n = len(devices)
    if -1 in (data, fsdp) and max(data, fsdp) > 0 and n % max(data, fsdp) == 0:
        data, fsdp = (n // fsdp if data == -1 else data), (n // data if fsdp == -1 else fsdp)
    if data < 1 or fsdp < 1 or data * fsdp != n:
        raise ValueError(
            f"a mesh of data={data} by fsdp={fsdp} does not fill {n} devices: change --config.mesh.data or "
            "--config.mesh.fsdp."
        )
    return jax.make_mesh((data, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2, devices=devices)


def data_axis(mesh: Mesh) -> str | None:
    """The axis over which methods write their collectives; None where nothing is split by hand."""
    return "data" if mesh.shape["data"] > 1 else None


def check_batch_size(batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raise ValueError if the global batch cannot be dealt to the devices in equal microbatches."""
    devices = mesh.devices.size
    if accumulate < 1:
        raise ValueError(f"--config.accumulate={accumulate} must be at least 1.")
    if batch_size < 1 or batch_size % (devices * accumulate):
        parts = f"{devices} devices" + (f" x {accumulate} accumulated microbatches" if accumulate > 1 else "")
        near = max(1, round(batch_size / (devices * accumulate))) * devices * accumulate
        raise ValueError(f"a batch of {batch_size} cannot be dealt equally to {parts}: try --config.batch_size={near}.")


def batch_sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P(("data", "fsdp")))


def state_sharding(mesh: Mesh, abstract: PyTree) -> PyTree:
    """For each array of the state: its largest dimension that `fsdp` divides is split, the rest is whole everywhere."""

    def of(x):
        n = mesh.shape["fsdp"]
        for dim in sorted(range(x.ndim), key=lambda d: -x.shape[d]):
            if n > 1 and x.shape[dim] % n == 0:
                return NamedSharding(mesh, P(*("fsdp" if d == dim else None for d in range(x.ndim))))
        return NamedSharding(mesh, P())

    return jax.tree.map(of, abstract)


def to_devices(batch: PyTree, mesh: Mesh) -> PyTree:
    """This process's part of a batch (NumPy) as global arrays, split over all devices."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


def eval_batch_size(mesh: Mesh, about: int = 256) -> int:
    """A batch size near `about` that the devices divide."""
    devices = mesh.devices.size
    return max(1, about // devices) * devices
