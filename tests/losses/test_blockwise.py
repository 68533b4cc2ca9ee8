"""The contrastive losses in tiles: equal to the whole matrix, and never holding it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ssljax.cost.traffic import bytes_sent
from ssljax.losses import blockwise, info_nce, nt_xent

QUEUE = np.sign(np.random.RandomState(9).randn(21, 16).astype(np.float32)) / 4  # of norm 1
LOSSES = {
    "nt_xent": partial(nt_xent, axis="data"),
    "nt_xent, sum": partial(nt_xent, axis="data", convention="sum"),
    "info_nce": lambda z1, z2, t, block=None: info_nce(z1, z2, None, t, axis="data", block=block),
    "info_nce, queue": lambda z1, z2, t, block=None: info_nce(z1, z2, QUEUE, t, block=block),
}


def views(n, seed=0):
    rng = np.random.RandomState(seed)
    z1 = rng.randn(n, 16).astype(np.float32)
    return z1, z1 + rng.randn(n, 16).astype(np.float32)


@pytest.fixture
def of_block(value_and_gradients):
    """`of_block(name, block, shards, z1, z2, t)`: value and gradients by z1, z2 and, as each shard sees it, by t."""

    def run(name, block, shards, z1, z2, temperature):
        def loss(z1, z2, t):
            return LOSSES[name](z1, z2, t[0], block=block)

        value, gradients = value_and_gradients(loss, shards, z1, z2, np.full(shards, temperature, np.float32))
        return value, *gradients

    return run


def assert_equal_but_for_rounding(ours, theirs):
    for x, y in zip(ours, theirs, strict=True):
        last_place = (
            0 if y.dtype == jnp.float32 else jnp.finfo(y.dtype).eps
        )  # a gradient is rounded to its input's type
        x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
        assert np.isfinite(x).all()
        np.testing.assert_allclose(x, y, rtol=last_place, atol=32 * np.finfo(np.float32).eps * np.abs(y).max())


@pytest.mark.parametrize(
    "name, n, block, shards",
    [(name, *case) for name in LOSSES if name != "nt_xent, sum" for case in [(16, 4, 4), (18, 5, 2), (7, 1, 1)]]
    + [("nt_xent, sum", 16, 3, 4), ("nt_xent", 2, 1, 2), ("nt_xent", 2, 100, 1), ("info_nce, queue", 1, 4, 1)],
)
def test_value_and_gradients_are_those_of_the_whole_matrix(of_block, name, n, block, shards):
    arguments = shards, *views(n), 0.2
    assert_equal_but_for_rounding(of_block(name, block, *arguments), of_block(name, None, *arguments))


@pytest.mark.parametrize("name", ["nt_xent", "info_nce", "info_nce, queue"])
@pytest.mark.parametrize("case", ["half precision", "zeros", "exp overflows"])
def test_hard_cases_are_those_of_the_whole_matrix(of_block, name, case):
    z1, z2 = views(10)
    temperature = 0.1
    if case == "exp overflows":  # exp(128) is beyond float32; and logits are exact, which else are rounded at 1 / T
        z1, z2, temperature = np.sign(z1), np.sign(z2), 1 / 128
    if case == "half precision":
        z1, z2 = jnp.asarray(z1, jnp.bfloat16), jnp.asarray(z2, jnp.bfloat16)
    if case == "zeros":
        z1[0] = z2[1] = z1[2] = z2[2] = 0.0
    arguments = 1, z1, z2, temperature
    assert_equal_but_for_rounding(of_block(name, 4, *arguments), of_block(name, None, *arguments))


@pytest.mark.parametrize("block", [None, 1, 4])
@pytest.mark.parametrize("temperature", [0.01, 0.1])
def test_collapsed_embeddings_cost_the_logarithm_of_the_choices(temperature, block):
    z = np.tile(views(1)[0], (6, 1))
    rounding = 4 * np.finfo(np.float32).eps / temperature  # of the logits, which are 1 / T
    value, gradient = jax.value_and_grad(nt_xent)(z, z, temperature, block=block)
    np.testing.assert_allclose(value, np.log(11), atol=rounding, rtol=1e-6)
    np.testing.assert_allclose(gradient, 0.0, atol=rounding)
    np.testing.assert_allclose(info_nce(z, z, None, temperature, block=block), np.log(6), atol=rounding, rtol=1e-6)


@pytest.mark.parametrize("block", [None, 3])
def test_a_loss_near_zero_keeps_its_digits(block):
    """Orthogonal examples with equal views: log(1 + 14 exp(-20)), where 1 + 14 exp(-20) is 1 in float32."""
    z = np.eye(8, dtype=np.float32)
    np.testing.assert_allclose(nt_xent(z, z, 0.05, block=block), np.log1p(14 * np.exp(-20.0)), rtol=1e-5)
    np.testing.assert_allclose(info_nce(z, z, temperature=0.05, block=block), np.log1p(7 * np.exp(-20.0)), rtol=1e-5)


def temporary_bytes(loss, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    program = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*arrays).compile()
    return program.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("loss", [nt_xent, info_nce])
def test_memory_grows_with_the_batch_and_not_with_its_square(loss):
    def growth(block):
        small, large = (temporary_bytes(partial(loss, block=block), (n, 16), (n, 16)) for n in (256, 1024))
        return large / small

    assert growth(None) > 10
    assert growth(32) < 4.5


@pytest.mark.parametrize("n", [4096, 32768, 262144])
def test_large_batches_are_never_whole_by_default(n):
    assert temporary_bytes(nt_xent, (n, 128), (n, 128)) < 40 * n * 128 * 4 < (2 * n) ** 2 * 4


def test_a_large_queue_is_never_whole_by_default():
    n, size = 4096, 262144
    used = temporary_bytes(lambda q, queue: info_nce(q, q, queue), (n, 128), (size, 128))
    assert used < 4 * size * 128 * 4 < n * size * 4


def test_tiles_are_spread_over_the_devices_that_the_batch_is_spread_over():
    """Without shard_map, where the compiler places the work, no device computes whole tiles."""
    mesh = jax.make_mesh((4,), ("fsdp",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, P("fsdp"))
    z1, z2 = views(512)
    loss = partial(nt_xent, block=512)
    spread = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), in_shardings=(rows, rows), out_shardings=(None, rows))
    value, gradients = spread(z1, z2)
    expected, expected_gradients = jax.value_and_grad(nt_xent, argnums=(0, 1))(z1, z2)
    assert_equal_but_for_rounding((value, *gradients), (expected, *expected_gradients))
    on_each = spread.lower(z1, z2).compile().memory_analysis().temp_size_in_bytes
    assert on_each < temporary_bytes(loss, z1.shape, z2.shape) / 2


def test_what_is_sent_does_not_grow_with_the_number_of_tiles():
    """In a train step, which says its mesh: each column goes to all devices once, and its gradient back once."""
    mesh = jax.make_mesh((4,), ("fsdp",), axis_types=(AxisType.Auto,))
    rows, (z1, z2) = NamedSharding(mesh, P("fsdp")), views(512)
    expected, expected_gradients = jax.value_and_grad(nt_xent, argnums=(0, 1))(z1, z2)
    sent = []
    for block in (512, 64):

        def step(z1, z2, block=block):
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                return jax.value_and_grad(partial(nt_xent, block=block), argnums=(0, 1))(z1, z2)

        step = jax.jit(step, in_shardings=(rows, rows), out_shardings=(None, rows))
        value, gradients = step(z1, z2)
        assert_equal_but_for_rounding((value, *gradients), (expected, *expected_gradients))
        sent.append(bytes_sent(step.lower(z1, z2).compile().as_text()).total)
    assert 0 < sent[1] < 1.2 * sent[0]


@pytest.mark.parametrize("block", [0, -4, 2.5, "8"])
def test_a_block_that_makes_no_sense_is_refused(block):
    z1, z2 = views(4)
    for loss in (nt_xent, info_nce):
        with pytest.raises(ValueError, match=f"block must be a positive integer or None, but is {block!r}"):
            loss(z1, z2, block=block)


def test_small_matrices_are_whole_and_large_ones_are_tiled(monkeypatch):
    z1, z2 = views(8)
    for largest, loops in ((16 * 16, False), (16 * 16 - 1, True)):
        monkeypatch.setattr(blockwise, "LARGEST_WHOLE", largest)
        assert ("scan" in str(jax.make_jaxpr(lambda z1, z2: nt_xent(z1, z2))(z1, z2))) == loops
