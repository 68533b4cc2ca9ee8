"""Barlow Twins and VICReg against lightly, PyTorch and loops, whole and in blocks, on one device and on several."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ssljax.losses import barlow_twins, blockwise, vicreg

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
LOSSES = {"barlow_twins": barlow_twins, "vicreg": vicreg}
ORACLES = {
    "barlow_twins": barlow_twins,
    "barlow_twins_authors": partial(barlow_twins, weight=0.0051),
    "vicreg": vicreg,
    "vicreg_sum": partial(vicreg, invariance=10.0, variance=5.0, covariance=2.0, convention="sum"),
}
all_losses = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("redundancy")


@pytest.fixture(scope="module")
def views(numbers):
    return numbers["z1"], numbers["z2"]


@pytest.mark.parametrize("block", [None, 4])
@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("name", ORACLES)
def test_value_and_gradients_are_the_librarys_on_any_number_of_shards(
    numbers, views, value_and_gradients, name, shards, block
):
    """lightly #1977: summing correlations with no gradient through the sum gave 1 / shards of it."""
    value, (dz1, dz2) = value_and_gradients(partial(ORACLES[name], axis="data", block=block), shards, *views)
    close(value, numbers[name])
    close(dz1, numbers[f"{name}_dz1"])
    close(dz2, numbers[f"{name}_dz2"])


def barlow_twins_loop(z1, z2, weight):
    """Every entry of the correlation matrix by itself."""
    total = 0.0
    for i, x in enumerate(z1.T):
        for j, y in enumerate(z2.T):
            x, y = x - np.mean(x), y - np.mean(y)
            c = np.mean(x * y) / np.sqrt((np.mean(x**2) + 1e-5) * (np.mean(y**2) + 1e-5))
            total += (1 - c) ** 2 if i == j else weight * c**2
    return total


def vicreg_loop(z1, z2, invariance, variance, covariance):
    """Every dimension and every pair of them by itself, both views' variance terms averaged."""
    n, dim = z1.shape
    total = invariance * sum((a - b) ** 2 for a, b in zip(z1.flat, z2.flat, strict=True)) / (n * dim)
    for z in (z1, z2):
        for i in range(dim):
            x = z[:, i] - np.mean(z[:, i])
            total += variance / 2 * max(0.0, 1 - np.sqrt(np.sum(x**2) / (n - 1) + 1e-4)) / dim
            for j in range(dim):
                if i != j:
                    y = z[:, j] - np.mean(z[:, j])
                    total += covariance * (np.sum(x * y) / (n - 1)) ** 2 / dim
    return total


def test_values_equal_the_loops(views):
    exact = [z.astype(np.float64) for z in views]
    close(barlow_twins(*views, weight=0.1), barlow_twins_loop(*exact, 0.1))
    close(vicreg(*views, invariance=3.0, variance=2.0, covariance=0.5), vicreg_loop(*exact, 3.0, 2.0, 0.5))


def test_vicreg_sum_has_twice_the_variance_term(views):
    variance_only = partial(vicreg, *views, invariance=0.0, covariance=0.0)
    assert variance_only() > 1
    close(variance_only(convention="sum"), 2 * variance_only())


def by_both(loss):
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))


@all_losses
@pytest.mark.parametrize("block", [1, 3, 5, 64])
def test_blocks_of_any_width_give_the_value_and_gradients_of_the_whole_matrix(views, loss, block):
    expected, gradients = by_both(loss)(*views)
    value, in_blocks = by_both(partial(loss, block=block))(*views)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for ours, theirs in zip(in_blocks, gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6 * np.abs(theirs).max())


@all_losses
def test_blocks_where_the_compiler_splits_the_batch_further(numbers, views, loss):
    """A mesh of 2 x 2, of which only `data` is split by hand."""
    mesh = jax.make_mesh((2, 2), ("data", "fsdp"), axis_types=(AxisType.Auto, AxisType.Auto))

    def global_loss(z1, z2):
        return jax.lax.pmean(loss(z1, z2, axis="data", block=4), "data")

    on_a_shard = jax.value_and_grad(global_loss, argnums=(0, 1))
    spread = jax.shard_map(on_a_shard, mesh=mesh, in_specs=P("data"), out_specs=(P(), P("data")), axis_names={"data"})
    rows = NamedSharding(mesh, P(("data", "fsdp")))
    value, (dz1, dz2) = jax.jit(spread, in_shardings=(rows, rows))(*views)
    close(value, numbers[loss.__name__])
    close(dz1, numbers[f"{loss.__name__}_dz1"])
    close(dz2, numbers[f"{loss.__name__}_dz2"])


def temporary_bytes(spread, loss, shards, n, dim):
    """On each device, for value and gradients; the program is only compiled."""

    def global_loss(z1, z2):
        return jax.lax.pmean(loss(z1, z2, axis="data"), "data")

    program = spread(jax.value_and_grad(global_loss, argnums=(0, 1)), shards, (P(), P("data")))
    z = jax.ShapeDtypeStruct((n, dim), jnp.float32)
    return program.lower(z, z).compile().memory_analysis().temp_size_in_bytes


@all_losses
@pytest.mark.parametrize("shards", [1, 4])
def test_in_blocks_no_matrix_of_dim_by_dim_is_held(spread, loss, shards):
    n, dim = 16, 1024
    matrix = 4 * dim * dim
    assert temporary_bytes(spread, loss, shards, n, dim) > matrix
    assert temporary_bytes(spread, partial(loss, block=32), shards, n, dim) < matrix / 4


@all_losses
def test_the_papers_8192_dimensions_are_in_blocks_by_default(spread, loss):
    assert temporary_bytes(spread, loss, 1, 32, 8192) < 4 * 8192**2 / 2


@all_losses
def test_small_matrices_are_whole_and_large_ones_are_in_blocks(monkeypatch, views, loss):
    for largest, loops in ((10 * 10, False), (10 * 10 - 1, True)):
        monkeypatch.setattr(blockwise, "LARGEST_WHOLE", largest)
        assert ("scan" in str(jax.make_jaxpr(lambda *z: loss(*z))(*views))) == loops


@all_losses
@pytest.mark.parametrize("shards", [1, 4])
def test_a_mean_far_from_zero_changes_nothing(value_and_gradients, views, loss, shards):
    """E[z²] - E[z]² would have lost all digits. Multiples of 1/256 are exact in float32, moved by 4096 too."""
    near = [np.round(z * 256) / 256 for z in views]
    expected, gradients = value_and_gradients(partial(loss, axis="data"), shards, *near)
    value, moved = value_and_gradients(partial(loss, axis="data"), shards, *(z + 4096 for z in near))
    close(value, expected)
    for ours, theirs in zip(moved, gradients, strict=True):
        close(ours, theirs)


def test_barlow_twins_does_not_see_the_scale_of_a_dimension(views):
    """lightly PR #1806. The epsilon of 1e-5 is what remains of it."""
    z1, z2 = (10 * z for z in views)
    scales = np.linspace(1, 9, 10, dtype=np.float32)
    np.testing.assert_allclose(barlow_twins(scales * z1 + 2, z2), barlow_twins(z1, z2), rtol=1e-4)


@all_losses
@pytest.mark.parametrize("shards", [1, 4])
def test_equal_embeddings_have_a_finite_gradient_and_the_value_of_no_variance(value_and_gradients, loss, shards):
    z = np.tile(np.linspace(-2, 2, 10, dtype=np.float32), (8, 1))
    value, gradients = value_and_gradients(partial(loss, axis="data"), shards, z, z)
    expected = {"barlow_twins": 10.0, "vicreg": 25 * (1 - np.sqrt(1e-4))}[loss.__name__]
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for gradient in gradients:
        assert np.isfinite(gradient).all()


@all_losses
def test_falls_as_positives_are_pulled_together(views, loss):
    z1, z2 = views
    values = [float(loss(z1, (1 - pull) * z2 + pull * z1)) for pull in (0.0, 0.3, 0.6, 1.0)]
    assert values == sorted(values, reverse=True) and len(set(values)) == 4


@all_losses
def test_rises_as_two_dimensions_become_the_same(loss):
    """Both views are equal, and what moves is the correlation of two dimensions alone."""
    z = 4 * np.linalg.qr(np.random.RandomState(0).randn(16, 6))[0].astype(np.float32)

    def with_share(share):
        mixed = z.copy()
        mixed[:, 1] = share * z[:, 0] + np.sqrt(1 - share**2) * z[:, 1]
        return float(loss(mixed, mixed))

    values = [with_share(share) for share in (0.0, 0.5, 0.9)]
    assert values == sorted(values) and len(set(values)) == 3


def test_vicreg_rises_as_the_variance_shrinks(views):
    values = [float(vicreg(scale * views[0], scale * views[0], covariance=0.0)) for scale in (1.0, 0.5, 0.1)]
    assert values == sorted(values) and len(set(values)) == 3


@all_losses
@pytest.mark.parametrize("block", [None, 4])
def test_half_precision_inputs_are_computed_in_float32(views, loss, block):
    z1, z2 = (jnp.asarray(z, jnp.bfloat16) for z in views)
    value = loss(z1, z2, block=block)
    assert value.dtype == jnp.float32
    assert value == loss(z1.astype(jnp.float32), z2.astype(jnp.float32), block=block)


@all_losses
def test_one_example_on_each_of_two_shards_is_a_batch_and_one_alone_is_none(value_and_gradients, views, loss):
    two = [z[:2] for z in views]
    value, _ = value_and_gradients(partial(loss, axis="data"), 2, *two)
    close(value, loss(*two))
    one = [z[:1] for z in views]
    with pytest.raises(ValueError, match="at least 2 examples are needed in the global batch"):
        loss(*one)
    with pytest.raises(ValueError, match="at least 2 examples are needed in the global batch"):
        value_and_gradients(partial(loss, axis="data"), 1, *one)


def test_other_arguments_that_make_no_sense_are_refused(views):
    for loss in LOSSES.values():
        for block in (0, -4, 2.5, "8"):
            with pytest.raises(ValueError, match=f"block must be a positive integer or None, but is {block!r}"):
                loss(*views, block=block)
    with pytest.raises(ValueError, match="'median' is unknown; use 'mean' or 'sum'"):
        vicreg(*views, convention="median")
    close(vicreg(views[0].tolist(), views[1].tolist()), vicreg(*views))
