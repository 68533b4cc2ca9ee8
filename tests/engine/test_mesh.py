"""How devices are arranged, and what is said when a batch does not fit them."""

import jax
import jax.numpy as jnp
import pytest

from ssljax.engine.mesh import check_batch_size, eval_batch_size, make_mesh, state_sharding


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
    check_batch_size(16, mesh, accumulate=2)
    with pytest.raises(ValueError, match="30 cannot be dealt equally to 4 devices: try --config.batch_size=32"):
        check_batch_size(30, mesh)
    with pytest.raises(ValueError, match="4 devices x 3 accumulated microbatches: try --config.batch_size=12"):
        check_batch_size(16, mesh, accumulate=3)
    with pytest.raises(ValueError, match="try --config.batch_size=4"):
        check_batch_size(0, mesh)
    assert eval_batch_size(mesh) == 256 and eval_batch_size(mesh, 3) == 4


def test_the_largest_dimension_that_fsdp_divides_is_split():
    state = {"wide": jnp.zeros((6, 8)), "tall": jnp.zeros((12, 8)), "odd": jnp.zeros((3, 5)), "scalar": jnp.zeros(())}
    placed = jax.tree.map(lambda s: tuple(s.spec), state_sharding(make_mesh(1, 4), state))
    assert placed == {"wide": (None, "fsdp"), "tall": ("fsdp", None), "odd": (), "scalar": ()}
    assert all(s.is_fully_replicated for s in jax.tree.leaves(state_sharding(make_mesh(4, 1), state)))
