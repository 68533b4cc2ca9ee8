import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ssljax.models import convolution

NUMBERS = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}


def arrays(stride: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Images, a kernel, and weights of a sum over outputs."""
    x, kernel, weights = jax.random.split(jax.random.key(0), 3)
    side = 16 // stride
    return (
        jax.random.normal(x, (8, 16, 16, 3)),
        jax.random.normal(kernel, (3, 3, 3, 5)),
        jax.random.normal(weights, (8, side, side, 5)),
    )


def gradients(convolve, x, kernel, weights, stride: int):
    def total(x, kernel):
        return jnp.sum(weights * convolve(x, kernel, (stride, stride), [(1, 1), (1, 1)], **NUMBERS))

    return jax.value_and_grad(total, argnums=(0, 1))(x, kernel)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_are_those_of_jax(stride, monkeypatch):
    monkeypatch.setattr(convolution, "PLACES", 256)
    given = arrays(stride)
    ours, theirs = (
        gradients(of, *given, stride) for of in (convolution.conv_general_dilated, jax.lax.conv_general_dilated)
    )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("platform, places, expected", [("cpu", 256, 2 + 8), ("cpu", 400, 2 + 4), ("tpu", 256, 2 + 1)])
def test_groups_are_for_a_cpu_alone(platform, places, expected, monkeypatch):
    """8 images of 256 places in the most groups that divide them and have so many at least; forward and to the images
    there is one convolution each."""
    monkeypatch.setattr(convolution, "PLACES", places)
    of = jax.jit(lambda *given: gradients(convolution.conv_general_dilated, *given, 1))
    text = of.trace(*arrays(1)).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") == expected


@pytest.mark.parametrize("strides, padding, product", [((2, 3), 0, True), ((1, 1), 0, True), ((3, 3), 1, False)])
def test_a_kernel_of_one_place_is_a_product(strides, padding, product):
    x, kernel, _ = arrays(1)
    pads = [(padding, padding)] * 2

    def total(convolve, kernel):
        return jnp.sum(jnp.sin(convolve(x, kernel[:1, :1], strides, pads, **NUMBERS)))

    def gradient(of):
        return jax.jit(jax.grad(lambda kernel: total(of, kernel)))

    ours, theirs = gradient(convolution.conv_general_dilated), gradient(jax.lax.conv_general_dilated)
    np.testing.assert_allclose(ours(kernel), theirs(kernel), rtol=1e-5, atol=1e-4)
    text = ours.trace(kernel).lower(lowering_platforms=("cpu",)).as_text()
    assert ("stablehlo.dot_general" in text) == product


def test_images_that_are_spread_stay_where_they_are(monkeypatch):
    """Nothing but the kernel's gradient, and the sum, goes from device to device."""
    monkeypatch.setattr(convolution, "PLACES", 1024)
    mesh = jax.make_mesh((4,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, whole = NamedSharding(mesh, P("fsdp")), NamedSharding(mesh, P())
    of = jax.jit(
        lambda *given: gradients(convolution.conv_general_dilated, *given, 1),
        in_shardings=(rows, whole, rows),
        out_shardings=(whole, (rows, whole)),
    )
    given = arrays(1)
    text = of.lower(*given).compile().as_text()
    assert "all-gather" not in text
    assert "all-to-all" not in text
    assert "collective-permute" not in text
    expected = gradients(jax.lax.conv_general_dilated, *given, 1)
    for a, b in zip(jax.tree.leaves(of(*given)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)
