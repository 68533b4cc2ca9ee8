"""Graph convolutions and the whole of DGI against PyTorch Geometric's with the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.losses import dgi
from ssljax.methods.nodes.dgi import Discriminator
from ssljax.models.gnn import GCN, propagate

close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
ENCODER = GCN(width=4, slopes="channel")


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("graphs")


@pytest.fixture(scope="module")
def params(numbers):
    encoder = {"dense1": {"kernel": numbers["kernel"]}, "bias1": numbers["bias"], "slope1": numbers["slope"]}
    return {"encoder": encoder, "discriminator": {"kernel": numbers["discriminator"], "bias": np.float32(0)}}


def whole(params, numbers, edges=None):
    """The loss in PyTorch Geometric's convention, as the method has it, with its order of the corruption."""
    edges = (numbers["edges"] if edges is None else edges)[None]
    graphs = [x[None] for x in (numbers["features"], numbers["features"][numbers["order"]])]
    real, fake = (ENCODER.apply({"params": params["encoder"]}, x, edges) for x in graphs)
    summary = jax.nn.sigmoid(real.mean(axis=1))
    logits = [Discriminator().apply({"params": params["discriminator"]}, h, summary) for h in (real, fake)]
    return dgi(*logits, convention="sum"), (real[0], fake[0], *logits)


def test_a_convolution_with_a_lonely_node_and_a_loop(numbers):
    product = propagate((numbers["features"] @ numbers["kernel"])[None], numbers["edges"][None])[0]
    close(product + numbers["bias"], numbers["convolved"])
    lonely = numbers["features"][8] @ numbers["kernel"]
    close(product[8], lonely)


def test_from_features_to_loss_and_gradients(numbers, params):
    (loss, parts), gradient = jax.value_and_grad(whole, has_aux=True)(params, numbers)
    close(loss, numbers["loss"])
    for ours, theirs in zip(parts, ("nodes", "corrupted", "positive", "negative"), strict=True):
        close(ours.reshape(numbers[theirs].shape), numbers[theirs])
    encoder = gradient["encoder"]
    close(encoder["dense1"]["kernel"], numbers["kernel_gradient"])
    close(encoder["bias1"], numbers["bias_gradient"])
    close(encoder["slope1"], numbers["slope_gradient"])
    close(gradient["discriminator"]["kernel"], numbers["discriminator_gradient"])


def test_padding_changes_nothing(numbers, params):
    padded = np.concatenate([numbers["edges"], np.full((2, 5), -1)], axis=1)
    close(whole(params, numbers, padded)[0], whole(params, numbers)[0])


def test_a_batch_of_graphs_is_each_by_itself(numbers):
    rng = np.random.RandomState(0)
    features = rng.standard_normal((3, 9, 5)).astype(np.float32)
    edges = np.stack([rng.randint(0, 9, (2, 12)) for _ in range(3)])
    together = propagate(features, edges)
    for i in range(3):
        close(propagate(features[i : i + 1], edges[i : i + 1])[0], together[i])


def test_averaging_keeps_what_is_the_same_everywhere_on_a_regular_graph():
    ring = np.array([[i, (i + 1) % 6] for i in range(6)]).T
    edges = np.concatenate([ring, ring[::-1]], axis=1)[None]
    close(propagate(jnp.ones((1, 6, 2)), edges), jnp.ones((1, 6, 2)))


def test_half_precision_and_depth():
    encoder = GCN(width=3, depth=2, dtype=jnp.bfloat16)
    arrays = jnp.ones((1, 6, 2)), jnp.zeros((1, 2, 1), int)
    features, variables = encoder.init_with_output(jax.random.key(0), *arrays)
    assert features.shape == (1, 6, 3) and features.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert variables["params"]["slope2"].shape == ()
    with pytest.raises(ValueError, match="slopes 'none' are unknown; use 'one' or 'channel'"):
        GCN(slopes="none")
