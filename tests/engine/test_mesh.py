"""How devices are arranged, and what is said when a batch does not fit them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from ssljax.engine.mesh import (
    check_batch_size,
    eval_batch_size,
    make_mesh,
    process_rows,
    state_sharding,
    to_devices,
)


@pytest.mark.parametrize(
    "asked, made", [((-1, 1), (4, 1)), ((-1, 2), (2, 2)), ((1, -1), (1, 4)), ((2, 2), (2, 2)), ((1, 4), (1, 4))]
)
def test_meshes(asked, made):
    assert tuple(make_mesh(*asked).shape.values()) == made


@pytest.mark.parametrize("asked", [(3, 1), (-1, 3), (2, 1), (-1, -1), (0, 4), (8, 1)])
def test_meshes_that_do_not_fill_the_devices(asked):
    with pytest.raises(ValueError, match="does not fill 4 devices"):
        make_mesh(*asked)


def test_batch_sizes():
    mesh = make_mesh(2, 2)
    assert (check_batch_size(16, mesh), check_batch_size(16, mesh, 8), check_batch_size(16, mesh, 16)) == (1, 2, 1)
    with pytest.raises(ValueError, match="30 cannot be dealt equally to 4 devices: try --config.batch_size=32"):
        check_batch_size(30, mesh)
    for wrong in (-4, 5, 6, 12, 32):
        with pytest.raises(ValueError, match=f"microbatch={wrong} must divide the batch of 16 .* 4 devices: try "):
            check_batch_size(16, mesh, wrong)
    with pytest.raises(ValueError, match="try --config.batch_size=4"):
        check_batch_size(0, mesh)
    assert eval_batch_size(mesh) == 256 and eval_batch_size(mesh, 3) == 4


def test_the_largest_dimension_that_fsdp_divides_is_split():
    shapes = {"wide": (6, 8), "tall": (12, 8), "odd": (3, 5), "scalar": ()}
    state = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    placed = jax.tree.map(lambda s: tuple(s.spec), state_sharding(make_mesh(1, 4), state))
    assert placed == {"wide": (None, "fsdp"), "tall": ("fsdp", None), "odd": (), "scalar": ()}
    assert all(s.is_fully_replicated for s in jax.tree.leaves(state_sharding(make_mesh(4, 1), state)))


def test_a_process_places_the_rows_that_its_devices_hold():
    """Whatever the order of the devices in the mesh: row r of the global batch is what the process gave as row r."""
    order = [jax.devices()[i] for i in (2, 0, 3, 1)]
    mesh = Mesh(np.array(order).reshape(2, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    assert process_rows(8, mesh).tolist() == list(range(8))
    batch = {"image": np.arange(48).reshape(8, 3, 2), "label": np.arange(8)}
    placed = to_devices(batch, mesh)
    for name in batch:
        np.testing.assert_array_equal(placed[name], batch[name])
    assert placed["label"].addressable_shards[0].data.shape == (2,)
    two = {name: np.stack([x, x[::-1]]) for name, x in batch.items()}
    placed = to_devices(two, mesh, stacked=True)
    for name in two:
        np.testing.assert_array_equal(placed[name], two[name])
    assert placed["label"].addressable_shards[0].data.shape == (2, 2)
