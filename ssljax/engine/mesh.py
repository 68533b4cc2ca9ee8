"""The mesh of devices, and how the batch and the state lie on it."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ssljax.typing import Array, Batch, PyTree


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


def check_batch_size(batch_size: int, mesh: Mesh, microbatch: int = 0) -> int:
    """Number of chunks that a global batch is worked on in: 1, or batch / microbatch.

    Raises ValueError if the batch cannot be dealt to the devices in equal shares, or not in equal microbatches.
    """
    devices = mesh.devices.size
    if batch_size < 1 or batch_size % devices:
        near = max(1, round(batch_size / devices)) * devices
        raise ValueError(
            f"a batch of {batch_size} cannot be dealt equally to {devices} devices: try --config.batch_size={near}."
        )
    if microbatch < 0 or microbatch and (batch_size % microbatch or microbatch % devices):
        fitting = [m for m in range(devices, batch_size + 1, devices) if batch_size % m == 0]
        near = min(fitting, key=lambda m: abs(m - microbatch))
        raise ValueError(
            f"--config.train.microbatch={microbatch} must divide the batch of {batch_size} and be a multiple of the "
            f"{devices} devices: try {near}, or 0 for the whole batch at once."
        )
    return batch_size // microbatch if microbatch else 1


def batch_sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P(("data", "fsdp")))


def abstract_batch(example: PyTree, batch_size: int, mesh: Mesh) -> PyTree:
    """Shapes of a global batch of such examples, where `to_devices` puts it."""
    rows = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype, sharding=rows), example)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def state_sharding(mesh: Mesh, abstract: PyTree) -> PyTree:
    """For each array of the state: its largest dimension that `fsdp` divides is split, the rest is whole everywhere."""

    def of(x):
        n = mesh.shape["fsdp"]
        for dim in sorted(range(x.ndim), key=lambda d: -x.shape[d]):
            if n > 1 and x.shape[dim] % n == 0:
                return NamedSharding(mesh, P(*("fsdp" if d == dim else None for d in range(x.ndim))))
        return replicated(mesh)

    return jax.tree.map(of, abstract)


def rows_sharding(mesh: Mesh, x: jax.ShapeDtypeStruct) -> NamedSharding:
    """Of an array (rows, dim) that is split by hand over `data`, and over `fsdp` by dim where that divides it.

    Raises ValueError if `data` does not divide the rows.
    """
    if x.shape[0] % mesh.shape["data"]:
        raise ValueError(
            f"{x.shape[0]} rows cannot be dealt to data={mesh.shape['data']} shards: choose a --config.mesh.data that "
            "divides them, such as a power of two."
        )
    return NamedSharding(mesh, P("data", "fsdp" if x.shape[1] % mesh.shape["fsdp"] == 0 else None))


def process_rows(batch_size: int, mesh: Mesh) -> np.ndarray:
    """Places in the global batch, ascending, of the examples that lie on this process's devices.

    They need not be consecutive: on a torus of chips, neighbours in the mesh belong to different hosts.
    """
    held = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in held.values()]))


def to_devices(batch: PyTree, mesh: Mesh, *, stacked: bool = False) -> PyTree:
    """This process's rows of a batch (NumPy, in the order of `process_rows`) as global arrays, over all devices.

    stacked: of arrays (batches, rows, …), where each device has its rows of all batches.
    """
    axis = int(stacked)
    sharding = NamedSharding(mesh, P(*(None,) * axis, *batch_sharding(mesh).spec))
    local = jax.tree.leaves(batch)[0].shape[axis]
    n = local * mesh.devices.size // len(mesh.local_devices)
    rows = process_rows(n, mesh)

    def place(x: np.ndarray) -> jax.Array:
        # One device's rows are consecutive, in the global batch and so among this process's.
        def of(index):
            start = int(np.searchsorted(rows, index[axis].start or 0))
            mine = slice(start, start + n // mesh.devices.size)
            return x[:, mine] if stacked else x[mine]

        return jax.make_array_from_callback((*x.shape[:axis], n, *x.shape[axis + 1 :]), sharding, of)

    return jax.tree.map(place, jax.tree.map(np.asarray, batch))


def over_devices(f: Callable[[PyTree, Batch], Array], mesh: Mesh) -> Callable:
    """`f(state, batch)`, computed by all devices for the rows that each process made, as NumPy arrays of all rows.

    The batch holds `label` and `mask` too, of which f is given the labels: what a method learns from labels is measured
    by them. Returns (rows of f, labels, mask), the same on every process.
    """

    def compute(state: PyTree, batch: Batch):
        inputs = {name: x for name, x in batch.items() if name != "mask"}
        return f(state, inputs), batch["label"], batch["mask"]

    compute = jax.jit(compute, out_shardings=replicated(mesh))
    return lambda state, batch: jax.device_get(compute(state, to_devices(batch, mesh)))


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Arrays that are the same in every process, whole on every device."""
    return jax.device_put(jax.device_get(tree), replicated(mesh))


def eval_batch_size(mesh: Mesh, about: int = 256) -> int:
    """A batch size near `about` that the devices divide."""
    devices = mesh.devices.size
    return max(1, about // devices) * devices
