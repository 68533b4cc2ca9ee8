"""Operations against hand counts and published numbers."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from ssljax.cost.flops import count_work
from ssljax.models import make_encoder


def flops(f, *shapes) -> float:
    return count_work(jax.make_jaxpr(f)(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))).flops


def mlp(x, w):
    return jnp.sum(jnp.sin(jnp.sin(x @ w) @ w) @ w)


def test_a_dense_layer():
    assert flops(lambda x, w: x @ w, (32, 100), (100, 7)) == 2 * 32 * 100 * 7


def test_bytes_are_those_of_operands_and_results():
    shapes = [jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in ((32, 100), (100, 7))]
    assert count_work(jax.make_jaxpr(jnp.dot)(*shapes)).bytes == 2 * (32 * 100 + 100 * 7 + 32 * 7)


def test_a_batched_product():
    assert (
        flops(lambda q, k: jnp.einsum("bqhd,bkhd->bhqk", q, k), (2, 5, 3, 8), (2, 7, 3, 8)) == 2 * (2 * 3) * 5 * 7 * 8
    )


def conv(x, w, stride=1, padding="SAME", groups=1):
    return lax.conv_general_dilated(
        x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


@pytest.mark.parametrize(
    "kernel, stride, padding, groups, size, out",
    [
        (3, 1, "SAME", 1, 16, 16),
        (3, 2, "SAME", 1, 16, 8),
        (1, 2, "VALID", 1, 16, 8),
        (7, 2, "SAME", 1, 16, 8),
        (5, 1, "VALID", 1, 16, 12),
        (4, 4, "VALID", 1, 16, 4),
        (3, 1, "SAME", 4, 16, 16),
        (3, 2, "SAME", 8, 16, 8),
    ],
)
def test_a_convolution_and_its_gradients_cost_the_same(kernel, stride, padding, groups, size, out):
    """Forward: each output value takes a product for each tap and channel of its group."""
    x, w = (4, size, size, 8), (kernel, kernel, 8 // groups, 24)
    forward = 2 * 4 * out**2 * 24 * kernel**2 * (8 // groups)
    f = lambda x, w: conv(x, w, stride, padding, groups)  # noqa: E731
    assert flops(f, x, w) == forward
    only = [flops(lambda x, w, i=i: jax.vjp(f, x, w)[1](jnp.ones((4, out, out, 24)))[i], x, w) for i in (0, 1)]
    assert only == [forward, forward]
    assert flops(jax.grad(lambda x, w: (f(x, w) ** 2).sum(), argnums=(0, 1)), x, w) == 3 * forward


def test_a_transposed_convolution_multiplies_no_inserted_zeros():
    f = lambda x, w: lax.conv_transpose(x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))  # noqa: E731
    assert flops(f, (1, 8, 8, 3), (4, 4, 3, 5)) == 2 * (8 * 8 * 3) * (4 * 4 * 5)


@pytest.mark.parametrize("encoder, gmacs", [("vit_b", 17.58), ("resnet50", 4.09), ("resnet18", 1.82)])
def test_published_multiply_adds_of_a_forward_pass(encoder, gmacs):
    """Of one image of 224 x 224: torchvision's table of models."""
    model, image = make_encoder(encoder), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    work = count_work(jax.make_jaxpr(model.apply)(variables, image))
    assert work.flops / 2e9 == pytest.approx(gmacs, rel=5e-3)


def test_a_scan_counts_as_often_as_it_runs():
    def scanned(x, ws):
        return lax.scan(lambda x, w: (jnp.sin(x @ w), None), x, ws)[0].sum()

    def unrolled(x, ws):
        for i in range(5):
            x = jnp.sin(x @ ws[i])
        return x.sum()

    shapes = (4, 8), (5, 8, 8)
    assert flops(scanned, *shapes) == flops(unrolled, *shapes) == 5 * 2 * 4 * 8 * 8
    assert flops(jax.grad(scanned, (0, 1)), *shapes) == flops(jax.grad(unrolled, (0, 1)), *shapes)


def test_rematerialisation_adds_what_the_backward_pass_needs_again():
    """Of a forward pass of three products all but the last, whose result no gradient needs."""
    layer = 2 * 4 * 8 * 8
    plain = flops(jax.value_and_grad(mlp, argnums=(0, 1)), (4, 8), (8, 8))
    again = flops(jax.value_and_grad(jax.checkpoint(mlp), argnums=(0, 1)), (4, 8), (8, 8))
    assert (plain, again) == (9 * layer, 11 * layer)


def test_what_is_not_used_costs_nothing():
    def f(x, w):
        x @ w
        return x.sum()

    assert flops(f, (4, 8), (8, 8)) == 0


def test_a_conditional_is_its_dearest_branch():
    def f(p, x):
        return lax.cond(p.sum() > 0, lambda x: x @ x, lambda x: x, x)

    assert flops(f, (1,), (8, 8)) == 2 * 8**3


def test_a_loop_of_unknown_length_counts_once_and_is_told():
    def f(x):
        return lax.while_loop(lambda x: x.sum() > 0, lambda x: x @ x, x)

    work = count_work(jax.make_jaxpr(f)(jnp.ones((8, 8))))
    assert (work.flops, work.unknown_loops) == (2 * 8**3, 1)


def test_a_custom_derivative_is_entered():
    @jax.custom_jvp
    def square(x):
        return x @ x

    square.defjvps(lambda t, ans, x: t @ x + x @ t)
    assert flops(lambda x: square(x), (8, 8)) == 2 * 8**3
    assert flops(jax.jit(lambda x: jax.jit(square)(x)), (8, 8)) == 2 * 8**3


@pytest.mark.parametrize("axis_names", [{"data"}, {"data", "fsdp"}])
def test_shards_add_up_to_what_one_device_does(axis_names):
    mesh = jax.make_mesh((2, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:4])
    rows = P(tuple(sorted(axis_names)))
    spread = jax.shard_map(lambda x, w: x @ w, mesh=mesh, in_specs=(rows, P()), out_specs=rows, axis_names=axis_names)
    assert flops(jax.jit(spread), (16, 8), (8, 8)) == 2 * 16 * 8 * 8
