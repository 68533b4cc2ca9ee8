"""GIN against PyTorch Geometric with the same weights, whatever the padding and the number of devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from seeded import normal, weight

from ssljax.models.gin import GIN

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-6)
DIM, WIDTH = 5, 4
gin = GIN(WIDTH, depth=2)
FRESH = {f"layer{i}_norm": {"mean": np.zeros(WIDTH), "var": np.ones(WIDTH)} for i in (1, 2)}


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("gin")


@pytest.fixture(scope="module")
def graphs(numbers):
    return tuple(numbers[name] for name in ("features", "edges", "real"))


def params(find):
    """Weights, or their gradients, as PyTorch Geometric names them: `find(name, shape)`."""
    tree = {}
    for i in range(2):
        for ours, theirs in ((1, 0), (2, 2)):
            name, width = f"convs.{i}.nn.{theirs}", WIDTH if i or theirs else DIM
            kernel, bias = find(f"{name}.weight", (WIDTH, width)).T, find(f"{name}.bias", (WIDTH,))
            tree[f"layer{i + 1}_dense{ours}"] = {"kernel": kernel, "bias": bias}
        scale, bias = (find(f"norms.{i}.{part}", (WIDTH,)) for part in ("weight", "bias"))
        tree[f"layer{i + 1}_norm"] = {"scale": scale, "bias": bias}
    return tree


def in_training(params, *graphs, axis=None):
    """(output, the batch statistics afterwards)"""
    variables = {"params": params, "batch_stats": FRESH}
    return gin.apply(variables, *graphs, train=True, axis=axis, mutable=["batch_stats"])


@pytest.mark.parametrize("shards", [1, 4])
def test_output_gradients_and_statistics_equal_pytorch_geometric(numbers, graphs, spread, shards):
    """One graph on each of four devices, of 7, 5, 2 and 3 nodes: the statistics are still those of all 17."""
    factor = normal("gin", (4, 2 * WIDTH))

    def on_a_shard(factor, *graphs):
        def total(params):
            output, changed = in_training(params, *graphs, axis="data")
            return jax.lax.psum(jnp.sum(output * factor), "data"), (output, changed["batch_stats"])

        gradients, (output, stats) = jax.grad(total, has_aux=True)(params(weight))
        return gradients, output, stats

    gradients, output, stats = spread(on_a_shard, shards, (P(), P("data"), P()))(factor, *graphs)
    close(output, numbers["graphs"])
    jax.tree.map(partial(close, atol=1e-5), gradients, params(lambda name, _: numbers[f"d{name}"]))
    for i in range(2):
        mean, var = (stats[f"layer{i + 1}_norm"][name] for name in ("mean", "var"))
        close(mean, numbers[f"norms.{i}.running_mean"])
        # PyTorch's running variance follows the unbiased one.
        close(0.9 + (var - 0.9) * 17 / 16, numbers[f"norms.{i}.running_var"])


def test_evaluation_equals_pytorch_geometric(numbers, graphs):
    running = {f"layer{i + 1}_norm": {n: numbers[f"norms.{i}.running_{n}"] for n in ("mean", "var")} for i in range(2)}
    close(jax.jit(gin.apply)({"params": params(weight), "batch_stats": running}, *graphs), numbers["inference"])


def test_padding_does_not_matter(graphs):
    """Three nodes and five edges more; what was padding is nonsense now."""
    features, edges, real = graphs
    more = (
        np.pad(np.where(real[..., None], features, np.nan), [(0, 0), (0, 3), (0, 0)], constant_values=np.nan),
        np.pad(edges, [(0, 0), (0, 0), (0, 5)], constant_values=-1),
        np.pad(real, [(0, 0), (0, 3)]),
    )

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def gradients(params, *graphs):
        output, changed = in_training(params, *graphs)
        return jnp.square(output).sum(), (output, changed)

    expected, found = (gradients(params(weight), *g) for g in (graphs, more))
    jax.tree.map(partial(close, rtol=1e-4, atol=1e-4), found, expected)


def test_an_edge_of_a_node_that_is_not_there_does_not_count(graphs):
    """So a view that drops nodes need only say which."""
    features, edges, real = graphs
    real = real & (np.arange(8) != 1)
    without = np.where((edges != 1).all(axis=1, keepdims=True), edges, -1)
    apply = jax.jit(lambda *g: in_training(params(weight), *g))
    jax.tree.map(close, apply(features, edges, real), apply(features, without, real))


def test_half_precision_is_of_computation_alone_and_norm_none_has_no_statistics(graphs):
    half = GIN(WIDTH, depth=2, norm="none", dtype=jnp.bfloat16)
    output, variables = jax.eval_shape(lambda: half.init_with_output(jax.random.key(0), *graphs))
    assert {x.dtype for x in jax.tree.leaves((output, variables))} == {jnp.dtype("float32")}
    assert output.shape == (4, half.num_features) and set(variables) == {"params"}
    with pytest.raises(ValueError, match="norm 'group' is unknown; use 'batch' or 'none'"):
        GIN(norm="group")
