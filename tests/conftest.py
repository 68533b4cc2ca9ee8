"""Four devices on one CPU, and fixtures that several folders use."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"  # the golden numbers are float32's, and meshes of four devices must exist anywhere

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

jax.config.update("jax_num_cpu_devices", 4)
# Several steps in flight on devices that share a few cores can starve each other in a collective.
jax.config.update("jax_cpu_enable_async_dispatch", False)
jax.config.update("jax_disable_most_optimizations", True)  # tests compile for longer than they compute

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))  # tests and the scripts that made the golden numbers share `seeded`


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Mapping[str, np.ndarray]]:
    """`golden("contrastive")` is the contents of tests/golden/contrastive.npz."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            return dict(arrays)

    return load


@pytest.fixture(scope="session")
def spread() -> Callable[..., Callable]:
    """`spread(f, shards, out_specs)(*arrays)` runs `f` on each shard of arrays that are split by rows."""

    def run(f: Callable, shards: int, out_specs) -> Callable:
        mesh = jax.make_mesh((shards,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:shards])
        return jax.jit(jax.shard_map(f, mesh=mesh, in_specs=P("data"), out_specs=out_specs))

    return run


@pytest.fixture(scope="session")
def value_and_gradients(spread) -> Callable:
    """`value_and_gradients(loss, shards, *arrays)`: of pmean(loss), by each of the arrays, which are split by rows."""

    def run(loss: Callable, shards: int, *arrays):
        def global_loss(*rows):
            return jax.lax.pmean(loss(*rows), "data")

        on_a_shard = jax.value_and_grad(global_loss, argnums=tuple(range(len(arrays))))
        return spread(on_a_shard, shards, (P(), P("data")))(*arrays)

    return run
