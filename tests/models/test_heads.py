"""Heads: the papers' MLPs, which differ in biases and norms, DINO's head and SwAV's prototypes, against lightly's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seeded
from flax import traverse_util

from ssljax.models.heads import MLP, DINOHead, Prototypes, normalize_prototypes

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
dino = partial(DINOHead, 7, hidden=5, bottleneck=4)
HEADS = {
    "byol": MLP((5, 4), hidden_bias=True, last_bias=False),
    "vicreg": MLP((5, 5, 4), hidden_bias=True, last_bias=False),
    "swav": MLP((5, 4), hidden_bias=True),
    "barlow_twins": MLP((5, 5, 4), last_bias=False),
    "moco_v2": MLP((5, 4), norm=False),
    "moco_v3": MLP((5, 4), last_norm="plain"),
    "moco_v3_predictor": MLP((5, 4), last_bias=False),
    "simsiam": MLP((5, 5, 4), last_norm="plain"),
    "simsiam_predictor": MLP((5, 4)),
    "dino": dino(),
    "dino_resnet": dino(norm=True),
    "dinov2": dino(norm_last_layer=False),
}
X = np.random.RandomState(0).normal(2.0, 3.0, (32, 6)).astype(np.float32)


def names(head):
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), X, train=True))
    return set(traverse_util.flatten_dict(shapes["params"], sep="/"))


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"last_norm": "none"}, {"dense1/kernel", "norm1/scale", "norm1/bias", "dense2/kernel", "dense2/bias"}),
        ({"last_norm": "scale"}, {"dense1/kernel", "norm1/scale", "norm1/bias", "dense2/kernel", "norm2/scale"}),
        ({"last_norm": "plain"}, {"dense1/kernel", "norm1/scale", "norm1/bias", "dense2/kernel"}),
        ({"norm": False}, {"dense1/kernel", "dense1/bias", "dense2/kernel", "dense2/bias"}),
    ],
)
def test_parameters_are_the_papers(options, expected):
    """BYOL and SimSiam's predictor; SimCLR; MoCo v3; MoCo v2."""
    assert names(MLP((5, 4), **options)) == expected


@pytest.mark.parametrize("norm", [False, True])
def test_output_equals_the_formula(draw, norm):
    head = MLP((5, 4), norm=norm, last_norm="scale" if norm else "none")
    variables = draw(head, X, train=True)
    params = traverse_util.flatten_dict(variables["params"], sep="/")
    y, _ = head.apply(variables, X, train=True, mutable=["batch_stats"])

    def layer(i, x):
        x = x @ params[f"dense{i}/kernel"].astype(np.float64) + params.get(f"dense{i}/bias", 0.0)
        if norm:
            x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * params[f"norm{i}/scale"] + params.get(f"norm{i}/bias", 0.0)
        return x

    np.testing.assert_allclose(y, layer(2, np.maximum(layer(1, X), 0)), rtol=1e-5, atol=1e-5)


def test_kernels_start_as_in_pytorch():
    """Uniform in ±1 / √fan-in: the bound is reached and not passed, and the variance is a third of its square."""
    kernel = MLP((500, 4)).init(jax.random.key(0), X, train=True)["params"]["dense1"]["kernel"]
    bound = 1 / np.sqrt(6)
    assert 0.98 * bound < np.abs(kernel).max() <= bound
    assert abs(kernel.var() / (bound**2 / 3) - 1) < 0.05


# Against lightly ------------------------------------------------------------------------------------------------------


def torch_name(path: tuple[str, ...], norm: bool) -> str:
    """("mlp", "dense2", "kernel") is layers.3.weight where a linear layer, a norm and an activation go before it."""
    *_, module, part = path
    if module == "last_layer":
        return {"kernel": "last_layer.weight_v", "g": "last_layer.weight_g"}[part]
    kind, number = module[:-1], int(module[-1])
    place = (number - 1) * (3 if norm else 2) + (kind == "norm")
    return f"layers.{place}.{'bias' if part == 'bias' else 'weight'}"


def torch_layout(path: tuple[str, ...], leaf):
    return leaf.T if path[-1] == "kernel" else leaf[:, None] if path[-1] == "g" else leaf


@pytest.mark.parametrize("name", HEADS)
def test_heads_equal_lightlys_and_so_do_their_gradients(golden, name):
    """With the same parameters: no bias, scale or offset more or less."""
    head, numbers = HEADS[name], golden("heads")
    x = jnp.asarray(numbers["x"])
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), x, train=True))

    def fill(path, leaf):
        torch_shape = torch_layout(path, np.empty(leaf.shape)).shape
        value = seeded.weight(torch_name(path, head.norm), torch_shape)
        return value.T if path[-1] == "kernel" else value.reshape(leaf.shape)

    params = traverse_util.path_aware_map(fill, shapes["params"])
    statistics = {k: v for k, v in shapes.items() if k != "params"}
    statistics = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), statistics)

    @jax.jit
    def run(params, x):
        def weighted(params, x):
            y, _ = head.apply({"params": params, **statistics}, x, train=True, mutable=["batch_stats"])
            return jnp.sum(y * seeded.normal(name, y.shape)), y

        return jax.grad(weighted, argnums=(0, 1), has_aux=True)(params, x)

    (gradients, dx), y = run(params, x)
    close(y, numbers[f"{name}.output"])
    close(dx, numbers[f"{name}.dx"])
    ours = {torch_name(k, head.norm): torch_layout(k, v) for k, v in traverse_util.flatten_dict(gradients).items()}
    theirs = {k.removeprefix(f"{name}."): v for k, v in numbers.items() if k.startswith(f"{name}.")}
    assert ours.keys() == theirs.keys() - {"output", "dx"}
    for key, gradient in ours.items():
        close(gradient, theirs[key])


def test_prototypes_equal_lightlys_and_so_does_their_gradient(golden):
    """Theirs are normalised as they are stored, so that the gradient is that of a plain linear layer."""
    numbers = golden("heads")
    params = normalize_prototypes({"prototypes": seeded.weight("heads.0.weight", (7, 6))})

    def weighted(params):
        y = Prototypes(7).apply({"params": params}, numbers["x"])
        return jnp.sum(y * seeded.normal("prototypes", y.shape)), y

    gradient, y = jax.jit(jax.grad(weighted, has_aux=True))(params)
    close(y, numbers["prototypes.output"])
    close(gradient["prototypes"], numbers["prototypes.heads.0.weight"])


# DINO's head ----------------------------------------------------------------------------------------------------------


def test_last_layer_is_found_by_its_name():
    """An optimiser holds it by its name; g is no parameter where it is fixed."""
    assert {name for name in names(dino()) if name.startswith("last_layer")} == {"last_layer/kernel"}
    both = names(dino(norm_last_layer=False, patch_count=3))
    assert {name for name in both if not name.startswith("mlp/")} == {
        f"{layer}/{part}" for layer in ("last_layer", "last_layer2") for part in ("kernel", "g")
    }


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_number_of_layers(layers):
    shapes = jax.eval_shape(lambda: dino(layers=layers).init(jax.random.key(0), X, train=True))["params"]["mlp"]
    kernels = [shapes[f"dense{i}"]["kernel"].shape for i in range(1, layers + 1)]
    assert kernels == list(zip([6] + [5] * (layers - 1), [5] * (layers - 1) + [4], strict=True))
    assert len(shapes) == layers


def test_logits_are_cosines_where_g_is_fixed(draw):
    """They do not depend on the length of the prototypes, and are as long as them where they are learnt."""
    variables = draw(dino(), X, train=True)
    y = dino().apply(variables, X, train=True)
    assert jnp.abs(y).max() <= 1 + 1e-6
    last = {"kernel": 3 * variables["params"]["last_layer"]["kernel"]}
    close(dino().apply({"params": variables["params"] | {"last_layer": last}}, X, train=True), y)
    g = np.arange(1.0, 8.0)
    learnt = {"params": variables["params"] | {"last_layer": last | {"g": g}}}
    close(dino(norm_last_layer=False).apply(learnt, X, train=True), g * y)


def test_tokens_and_a_last_layer_for_patches(draw):
    """Each token has the logits that it would have alone; iBOT's second last layer stands on the same MLP."""
    head = dino(patch_count=3)
    variables = draw(head, X, train=True)
    tokens = X.reshape(8, 4, 6)
    close(head.apply(variables, tokens, train=True), head.apply(variables, X, train=True).reshape(8, 4, 7))
    of_patches = head.apply(variables, tokens, train=True, patches=True)
    params = variables["params"]
    single = {"params": {"mlp": params["mlp"], "last_layer": params["last_layer2"]}}
    close(of_patches, DINOHead(3, hidden=5, bottleneck=4).apply(single, tokens, train=True))
    with pytest.raises(ValueError, match="no last layer for patches of their own: set patch_count"):
        dino().init(jax.random.key(0), X, train=True, patches=True)


def test_logits_are_float32_and_have_a_gradient_where_the_bottleneck_is_zero(draw):
    head = dino(dtype=jnp.bfloat16)
    variables = jax.tree.map(jnp.zeros_like, draw(head, X, train=True))
    logits = partial(head.apply, x=X, train=True)
    assert jax.eval_shape(logits, variables).dtype == jnp.float32
    gradient = jax.jit(jax.grad(lambda variables: logits(variables).sum()))(variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_dinos_head_starts_as_the_papers():
    """Normal, not cut at two standard deviations; the last layer as PyTorch's default, and g at 1."""
    head = DINOHead(50, hidden=100, bottleneck=60, norm_last_layer=False)
    params = jax.jit(partial(head.init, train=True))(jax.random.key(0), X)["params"]
    for kernel in (params["mlp"]["dense2"]["kernel"], params["mlp"]["dense3"]["kernel"]):
        assert abs(kernel.std() / 0.02 - 1) < 0.05 and np.abs(kernel).max() > 3 * 0.02
    bound = 1 / np.sqrt(60)
    assert 0.98 * bound < np.abs(params["last_layer"]["kernel"]).max() <= bound
    np.testing.assert_array_equal(params["last_layer"]["g"], 1.0)


# Prototypes -----------------------------------------------------------------------------------------------------------


def test_prototypes_start_with_length_one_and_are_brought_back_to_it():
    prototypes = jax.jit(Prototypes(7).init)(jax.random.key(0), X)["params"]
    close(jnp.linalg.norm(prototypes["prototypes"], axis=1), 1.0)
    lengths = np.arange(1.0, 8.0)[:, None]
    close(normalize_prototypes({"prototypes": lengths * prototypes["prototypes"]})["prototypes"], *prototypes.values())


def test_scores_are_float32():
    halves = jnp.asarray(X, jnp.bfloat16)
    scores, _ = Prototypes(7).init_with_output(jax.random.key(0), halves)
    assert scores.dtype == jnp.float32 and scores.shape == (32, 7)
