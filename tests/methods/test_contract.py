"""What every method must hold, whatever it does."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from ssljax.build import build_method, modality_of
from ssljax.collectives import example_keys
from ssljax.engine.mesh import make_mesh, to_devices
from ssljax.engine.step import make_train
from ssljax.methods import METHODS
from ssljax.typing import Variables

MESHES = [(1, 1), (4, 1), (1, 4), (2, 2)]
EXAMPLES = 80
IMAGES = [name for name, method in METHODS.items() if method.modality == "images"]
BOTH_WAYS = ("simclr", "mae")
"""In microbatches, these two on one device and on 2x2 too: one computes its representations twice, one accumulates
gradients."""


def make(method, shape, batches, *, chunks=1, optimizer=None):
    mesh = make_mesh(*shape, devices=jax.devices()[: shape[0] * shape[1]])
    example = jax.tree.map(lambda x: x[:2], batches[0])
    return mesh, *make_train(method, optimizer or optax.sgd(0.01), mesh, example, chunks=chunks)


def trained(method, batches, shape, start=None, **options):
    """State after one plain SGD step a batch on a mesh, and the metrics of the last. start: the state before them."""
    mesh, init, step, abstract = make(method, shape, batches, **options)
    state = init() if start is None else put(start, abstract)
    for batch in batches:
        state, metrics = step(state, to_devices(batch, mesh))
    assert step._cache_size() == 1, "the step was compiled more than once"
    return jax.device_get((state, metrics))


def put(state, abstract):
    """A state where the step expects it, so that it is not compiled for another place."""
    return jax.device_put(state, jax.tree.map(lambda x: x.sharding, abstract))


@pytest.fixture
def config(config):
    """With drop-path where there are blocks to drop: what is random belongs to the example on every mesh.

    Not with KoLeo: two examples that lose their only block are one point, where its gradient has no bound.
    """
    if "vit" in config.encoder.name and "koleo_weight" not in config.method:
        config.encoder.update(drop_path=0.5, drop_path_uniform=True)
    return config


@pytest.fixture
def batches(config, batches_of):
    """Of the kind of data that the method is for."""
    return batches_of(METHODS[config.method.name].modality)


def keep_what_is_compiled(enabled):
    compilation_cache.reset_cache()  # it asks once whether it is used
    jax.config.update("jax_enable_compilation_cache", enabled)


@pytest.fixture(scope="module", autouse=True)
def not_kept():
    """No step here is compiled again by another process: it need not be read or written."""
    keep_what_is_compiled(False)
    yield
    keep_what_is_compiled(True)


@pytest.fixture(scope="module")
def compiled():
    return {}


@pytest.fixture
def whole(config, method, batches, compiled):
    """(states before and after each step, metrics of each step, step, what it takes) on one device; compiled once for
    all tests."""
    if config.method.name not in compiled:
        _, init, step, abstract = make(method, (1, 1), batches)
        state, states, metrics = init(), [], []
        states.append(jax.device_get(state))
        for batch in batches:
            state, numbers = step(state, batch)
            states.append(jax.device_get(state))
            metrics.append(jax.device_get(numbers))
        compiled[config.method.name] = states, metrics, step, abstract
    return compiled[config.method.name]


def largest_difference(a, b):
    gaps = jax.tree.map(
        lambda x, y: np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64)).max(initial=0.0), a, b
    )
    return max(jax.tree.leaves(gaps))


def assert_same_metrics(found, expected, gap):
    """To `gap`, of the number itself where it is above one."""
    for name, number in expected.items():
        assert abs(found[name] - number) <= gap * max(1.0, abs(number)), (name, found[name], number)


def test_same_state_on_every_mesh(method, whole, batches):
    """Plain SGD hides no factor: state and metrics after five steps agree to rounding on 1x1, 4x1, 1x4 and 2x2.

    And every part of the state moves, parameters, statistics, targets and queues: nothing that is kept is dead. What a
    teacher brought stays.
    """
    states, metrics, _, _ = whole
    for shape in MESHES[1:]:
        spread = trained(method, batches, shape, start=states[0])
        assert largest_difference(states[-1], spread[0]) < 5e-6, shape
        assert_same_metrics(spread[1], metrics[-1], 1e-4)
    still = [
        jax.tree_util.keystr(path)
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(states[0]), jax.tree.leaves(states[-1]), strict=True
        )
        if np.array_equal(a, b)
    ]
    # Only a teacher of before stays, and all of it does.
    taught = [name for name in still if "['teacher']" in name]
    assert len(taught) == len(jax.tree.leaves(dict(states[0].target).get("teacher", {})))
    # A key's bias under softmax attention shifts all logits of a query alike: it has no gradient.
    assert [name for name in still if "'key']['bias']" not in name and name not in taught] == []


@pytest.mark.parametrize(
    "name, fields",
    [
        ("npid", {"noise": 0}),
        ("dino", {"head_norm": True}),
        ("ibot", {"patch_count": 12}),
        ("dinov2", {"centering": "sinkhorn", "patch_count": 12, "patch_bottleneck": 4}),
        ("ijepa", {"mask": "reference", "target_scale": (0.3, 0.4), "min_keep": 1}),
    ],
    indirect=["name"],
)
def test_same_state_on_three_devices_with_the_other_recipe(config, fields, batches):
    """Of methods that have two: a softmax over all images, BatchNorm in network and head, heads of their own for
    patches, the reference's masks."""
    batches = jax.tree.map(lambda x: x[:12], batches)
    config.method.update(fields)
    if config.method.name == "dino":
        config.encoder.update({field: None for field in config.encoder} | {"name": "smooth", "channels": 16})
    method = build_method(config, 5, examples=EXAMPLES)
    start = jax.device_get(make(method, (1, 1), batches)[1]())
    one, many = (trained(method, batches[:3], shape, start=start) for shape in ((1, 1), (3, 1)))
    assert largest_difference(one[0], many[0]) < 5e-6
    assert_same_metrics(many[1], one[1], 1e-4)


@pytest.mark.parametrize("name", ["moco_v2", "dinov2"], indirect=True)
def test_same_start_on_every_mesh(method, batches):
    states = [jax.device_get(make(method, shape, batches)[1]()) for shape in MESHES]
    for state in states[1:]:
        jax.tree.map(np.testing.assert_array_equal, state, states[0])


def test_in_microbatches_as_at_once(config, batches, request):
    """With a quarter of the batch alive at once: the step of the whole batch, where no statistic of the batch is in the
    encoder, and what is random (drop-path) belongs to the example."""
    images, gin = METHODS[config.method.name].modality == "images", config.encoder.name == "gin"
    if "vit" in config.encoder.name or not (images or gin):
        states, metrics, _, _ = request.getfixturevalue("whole")
        start, at_once = states[0], (states[-1], metrics[-1])
    else:
        # Without statistics of the batch; with four channels, rounding decides the sign of an activation here and
        # there, and so a gradient.
        of_gin, of_resnet = {"norm": "none"}, {"norm": "group", "bn_groups": None, "channels": 8}
        config.encoder.update(of_gin if gin else of_resnet)
        method = build_method(config, 5, examples=EXAMPLES)
        start = jax.device_get(make(method, (1, 1), batches)[1]())
        at_once = trained(method, batches, (1, 1), start=start)
    in_parts = build_method(config, 5, chunks=4, examples=EXAMPLES)
    for shape in ((2, 1), (1, 1), (2, 2)) if config.method.name in BOTH_WAYS else ((2, 1),):
        parts = trained(in_parts, batches, shape, start=start, chunks=4)
        assert largest_difference(at_once[0], parts[0]) < 5e-6, shape
        assert_same_metrics(parts[1], at_once[1], 1e-4)


def test_a_step_that_is_not_finite_changes_nothing_and_neither_do_those_after_it(whole, batches):
    """NaN in the parameters reaches statistics, targets and queues by the way of the features."""
    (start, *_), _, step, abstract = whole
    broken = start.replace(params=jax.tree.map(lambda x: np.full_like(x, np.nan), start.params))
    halted, metrics = jax.device_get(step(put(broken, abstract), batches[0]))
    assert np.isnan(metrics["loss"]) and int(metrics["step"]) == int(halted.step) == -1
    jax.tree.map(np.testing.assert_array_equal, halted.replace(step=0), broken.replace(step=0))
    mended = halted.replace(params=start.params)
    after, metrics = jax.device_get(step(put(mended, abstract), batches[1]))
    assert np.isfinite(metrics["loss"]) and int(metrics["step"]) == -1
    jax.tree.map(np.testing.assert_array_equal, after, mended)


@pytest.mark.parametrize("name", IMAGES, indirect=True)
def test_a_step_on_grey_images_is_finite(whole, batches):
    """As the data's sources make them of one channel; among them six that are all black and two that are white."""
    (start, *_), _, step, abstract = whole
    grey = jnp.repeat(batches[0]["image"][..., :1], 3, axis=-1).at[:6].set(0).at[6:8].set(255)
    state, metrics = jax.device_get(step(put(start, abstract), {**batches[0], "image": grey}))
    assert int(metrics["step"]) == 1 and all(np.isfinite(x).all() for x in jax.tree.leaves(state))


@pytest.mark.parametrize("name", ["moco_v2"], indirect=True)
def test_an_update_that_is_not_finite_changes_nothing(method, batches):
    poison = optax.stateless(lambda updates, _: jax.tree.map(lambda x: x / jnp.zeros_like(x), updates))
    _, init, step, _ = make(method, (1, 1), batches, optimizer=poison)
    before = jax.device_get(init())
    after, metrics = jax.device_get(step(init(), batches[0]))
    assert np.isfinite(metrics["loss"]) and int(after.step) == -1
    jax.tree.map(np.testing.assert_array_equal, after.replace(step=0), before.replace(step=0))


def test_views_depend_on_the_example_and_not_on_its_neighbours(method, batches):
    keys = example_keys(jax.random.key(3), 16)
    order = jnp.roll(jnp.arange(16), 5)
    views = jax.jit(method.views)
    here, elsewhere = views(keys, batches[0]), views(keys[order], jax.tree.map(lambda x: x[order], batches[0]))
    for a, b in zip(jax.tree.leaves(here), jax.tree.leaves(elsewhere), strict=True):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_allclose(a[order], b, atol=1e-5)


def test_features_and_pictures(config, method, whole, batches):
    start = whole[0][0]
    variables = Variables(start.params, start.model_state, start.target, start.extra)
    encode = jax.jit(method.features)
    features = encode(variables, batches[0])
    blank = jax.tree.map(lambda x: x.at[4:].set(x.dtype.type(0)), batches[0])
    np.testing.assert_allclose(encode(variables, blank)[:4], features[:4], atol=1e-5)  # BatchNorm is in evaluation mode
    assert (len(features), features.shape[-1]) == (16, method.encoder.num_features) and features.dtype == jnp.float32
    shown = jax.jit(method.show)(variables, batches[0], example_keys(jax.random.key(0), 16))
    pictures = modality_of(config).pictures(shown)
    assert method.caption and pictures.ndim == 5 and pictures.shape[-1] == 3
    assert float(pictures.min()) >= 0 and float(pictures.max()) <= 1


def test_computes_in_bfloat16_with_float32_parameters_and_loss(config, whole, batches):
    """Half precision is of the computation alone, and stays near the full one."""
    config.dtype = "bfloat16"
    state, metrics = trained(build_method(config, 5, examples=EXAMPLES), batches[:1], (1, 1), start=whole[0][0])
    assert {x.dtype for x in jax.tree.leaves(state)} <= {np.dtype("float32"), np.dtype("int32")}
    assert metrics["loss"].dtype == np.float32
    full = whole[1][0]
    assert metrics["gradient_norm"] != full["gradient_norm"]
    assert_same_metrics({"loss": metrics["loss"]}, {"loss": full["loss"]}, 0.05)
