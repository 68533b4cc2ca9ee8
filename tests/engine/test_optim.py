"""Schedules, exclusions and layer-wise decay; LARS has a file of its own."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssljax.engine.optim import make_optimizer, make_schedule
from ssljax.models import initialise, make_encoder


@pytest.mark.parametrize(
    "scaling, batch, peak", [("linear", 4096, 4.8), ("sqrt", 4096, 0.3 * 64), ("none", 4096, 0.3), ("linear", 256, 0.3)]
)
def test_learning_rates_scale_as_the_papers_say(scaling, batch, peak):
    schedule = make_schedule(base=0.3, scaling=scaling, batch_size=batch, total=100, warmup=10, final=0.1)
    np.testing.assert_allclose([schedule(s) for s in (0, 5, 10)], [0, peak / 2, peak], rtol=1e-6)
    np.testing.assert_allclose(schedule(55), peak * 0.55, rtol=1e-5)
    np.testing.assert_allclose(schedule(100), peak * 0.1, rtol=1e-5)


def test_a_rate_that_changes_once_an_epoch():
    schedule = make_schedule(base=1.0, scaling="none", batch_size=1, total=40, steps_per_epoch=10)
    rates = np.array([schedule(step) for step in range(40)]).reshape(4, 10)
    assert (rates == rates[:, :1]).all()
    np.testing.assert_allclose(rates[:, 0], [0.5 * (1 + np.cos(np.pi * e / 4)) for e in range(4)], rtol=1e-6)


def test_a_warm_up_may_begin_above_zero():
    schedule = make_schedule(base=1.0, scaling="none", batch_size=1, total=40, warmup=10, start=0.2, final=0.1)
    np.testing.assert_allclose([schedule(s) for s in (0, 5, 10, 40)], [0.2, 0.6, 1.0, 0.1], rtol=1e-6)


def test_a_straight_line_after_the_warm_up():
    options = {"base": 1.0, "scaling": "none", "batch_size": 1, "total": 40, "warmup": 10, "kind": "linear"}
    for final in (0.0, 0.1):
        schedule = make_schedule(**options, final=final)
        expected = [0, 0.5, 1, 1 - (1 - final) / 3, final, final]
        np.testing.assert_allclose([schedule(s) for s in (0, 5, 10, 20, 40, 50)], expected, rtol=1e-6)


def test_a_tenth_from_each_milestone_on():
    schedule = make_schedule(base=1.0, scaling="none", batch_size=1, total=40, kind="steps", milestones=(10, 30))
    np.testing.assert_allclose([schedule(s) for s in (0, 9, 10, 29, 30, 40)], [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-5)
    for kind in ("cosine", "linear", "constant"):
        options = dict(base=1.0, scaling="none", batch_size=1, total=40, kind=kind)
        plain, other = make_schedule(**options), make_schedule(**options, milestones=(10, 30))
        np.testing.assert_array_equal([plain(s) for s in range(41)], [other(s) for s in range(41)])
    with pytest.raises(ValueError, match="schedule 'steps' needs --config.optimizer.milestones"):
        make_schedule(base=1.0, scaling="none", batch_size=1, total=40, kind="steps")


def test_a_weight_decay_that_larc_would_ignore_is_refused():
    with pytest.raises(ValueError, match="constant weight decay: set --config.optimizer.weight_decay_final=-1"):
        make_optimizer("larc", lambda _: 0.1, weight_decay=0.04, weight_decay_final=0.4)


@pytest.fixture
def params():
    return {"dense": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 2.0)}, "norm": {"scale": jnp.full(2, 2.0)}}


def step(optimizer, params, gradient):
    grads = jax.tree.map(lambda p: jnp.full_like(p, gradient), params)
    return apply(optimizer, params, grads)


def apply(optimizer, params, grads):
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    return optax.apply_updates(params, updates)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_weight_decay_spares_what_is_excluded(name, params):
    """With no gradient a parameter moves by its decay alone: rate 0.1 · decay 0.5 · value 2."""
    moved = step(make_optimizer(name, lambda _: 0.1, weight_decay=0.5), params, 0.0)
    np.testing.assert_allclose(moved["dense"]["kernel"], 1.9, rtol=1e-6)
    np.testing.assert_array_equal(moved["dense"]["bias"], 2.0)
    np.testing.assert_array_equal(moved["norm"]["scale"], 2.0)
    everything = step(make_optimizer(name, lambda _: 0.1, weight_decay=0.5, exclude=()), params, 0.0)
    np.testing.assert_allclose(everything["norm"]["scale"], 1.9, rtol=1e-6)


def test_clipping_is_of_the_global_norm(params):
    moved = step(make_optimizer("sgd", lambda _: 1.0, clip_norm=1.0), params, 3.0)
    size = np.sqrt(sum(float(jnp.sum((2.0 - p) ** 2)) for p in jax.tree.leaves(moved)))
    np.testing.assert_allclose(size, 1.0, rtol=1e-5)


@pytest.mark.parametrize("name, clip", [("sgd", 1.0), ("lars", 0.0), ("lars_simclr", 0.0), ("larc", 0.0)])
def test_layers_that_scan_has_stacked_are_clipped_and_adapted_each_by_itself(name, clip):
    random = np.random.RandomState(0)
    kernels = (
        random.standard_normal((3, 4, 5)).astype(np.float32) * np.array([1.0, 2.0, 3.0], np.float32)[:, None, None]
    )
    stacked = {"encoder": {"blocks": {"kernel": kernels}}}
    apart = {"encoder": {f"block{i}": {"kernel": kernel} for i, kernel in enumerate(kernels)}}
    optimizer = make_optimizer(name, lambda _: 1.0, weight_decay=0.1, clip_each=clip)
    once, each = (step(optimizer, params, 3.0) for params in (stacked, apart))
    for i, kernel in enumerate(once["encoder"]["blocks"]["kernel"]):
        np.testing.assert_allclose(kernel, each["encoder"][f"block{i}"]["kernel"], rtol=1e-5)


@pytest.mark.parametrize("scan", [False, True])
def test_layer_decay_of_a_vit(scan):
    """Patch embedding 0.5⁴, blocks 0.5³ and 0.5², final norm and heads 1: with 2 blocks the top is layer 3."""
    encoder = make_encoder("vit_micro", depth=2, width=8, heads=2, scan=scan)
    variables, _ = initialise(encoder, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    params = {"encoder": variables, "head": {"kernel": jnp.ones((2, 2))}}
    moved = step(make_optimizer("sgd", lambda _: 1.0, momentum=0.0, layer_decay=0.5), params, 1.0)
    size = jax.tree.map(lambda a, b: np.asarray(a - b), params, moved)
    np.testing.assert_allclose(size["encoder"]["patch_embed"]["kernel"], 0.125, rtol=1e-5)
    np.testing.assert_allclose(size["encoder"]["prefix"], 0.125, rtol=1e-5)
    blocks = size["encoder"]["encoder"]
    kernels = blocks["blocks"]["mlp1"]["kernel"] if scan else [blocks[f"block{i}"]["mlp1"]["kernel"] for i in range(2)]
    np.testing.assert_allclose(kernels[0], 0.25, rtol=1e-5)
    np.testing.assert_allclose(kernels[1], 0.5, rtol=1e-5)
    np.testing.assert_allclose(size["encoder"]["norm"]["scale"], 1.0, rtol=1e-5)
    np.testing.assert_allclose(size["head"]["kernel"], 1.0, rtol=1e-5)


def test_layer_decay_of_a_resnet():
    variables, _ = initialise(make_encoder("resnet8", channels=4), jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    moved = step(make_optimizer("sgd", lambda _: 1.0, momentum=0.0, layer_decay=0.5), {"encoder": variables}, 1.0)
    size = jax.tree.map(lambda a, b: np.asarray(a - b), variables, moved["encoder"])
    np.testing.assert_allclose(size["stem"]["kernel"], 0.0625, rtol=1e-4)
    for stage in (1, 2, 3):
        np.testing.assert_allclose(size[f"stage{stage}_block1"]["conv1"]["kernel"], 0.5 ** (4 - stage), rtol=1e-4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: make_schedule(base=1, scaling="cubic", batch_size=1, total=1),
        lambda: make_schedule(base=1, scaling="none", batch_size=1, total=1, kind="step"),
        lambda: make_optimizer("adam", lambda _: 0.1),
    ],
)
def test_unknown_names_list_what_there_is(call):
    with pytest.raises(ValueError, match="is unknown; use"):
        call()


PARAMS = {"encoder": {"kernel": jnp.array([[1.0, -2.0], [3.0, 0.5]])}, "last_layer": {"kernel": jnp.array([2.0, -1.0])}}


def descend(optimizer, gradients, params=PARAMS):
    """Parameters after each of the gradients."""
    state, seen = optimizer.init(params), [params]
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(params)
    return seen, state


@pytest.fixture
def gradients():
    rng = np.random.RandomState(0)
    return [jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape), jnp.float32), PARAMS) for _ in range(5)]


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars", "lars_simclr", "larc"])
def test_what_is_frozen_has_no_step_at_all(name, gradients):
    """Once free it moves as one that begins then: moments, weight decay and Adam's count did not go on without it."""
    options = {"weight_decay": 0.1, "exclude": ()}
    frozen, _ = descend(
        make_optimizer(name, lambda step: 0.1 + 0.01 * step, freeze=("last_layer",), freeze_steps=2, **options),
        gradients,
    )
    free, _ = descend(make_optimizer(name, lambda step: 0.1 + 0.01 * step, **options), gradients)
    later, _ = descend(make_optimizer(name, lambda step: 0.12 + 0.01 * step, **options), gradients[2:])
    for step in range(6):
        np.testing.assert_allclose(frozen[step]["encoder"]["kernel"], free[step]["encoder"]["kernel"], rtol=1e-6)
        expected = later[max(0, step - 2)]["last_layer"]["kernel"]
        np.testing.assert_allclose(frozen[step]["last_layer"]["kernel"], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_what_was_frozen_then_has_the_weight_decay_of_the_step(name):
    """The schedule goes on while it rests: without gradients, both shrink by the same factor."""
    nothing = [jax.tree.map(jnp.zeros_like, PARAMS)] * 6
    options = {"momentum": 0.0, "weight_decay": 0.1, "weight_decay_final": 0.9, "exclude": (), "total": 6}
    seen, _ = descend(
        make_optimizer(name, lambda step: 0.5, freeze=("last_layer",), freeze_steps=3, **options), nothing
    )
    factors = [jax.tree.map(lambda a, b: (b / a).ravel()[0], *pair) for pair in zip(seen, seen[1:], strict=False)]
    free, frozen = ([float(f[name]["kernel"]) for f in factors] for name in ("encoder", "last_layer"))
    assert len(set(free)) == 6 and frozen[:3] == [1.0] * 3
    np.testing.assert_allclose(frozen[3:], free[3:], rtol=1e-6)


def test_what_is_frozen_for_ever_has_no_state(gradients):
    options = {"weight_decay": 0.1, "exclude": ()}
    seen, state = descend(make_optimizer("adamw", lambda step: 0.1, freeze=("encoder",), **options), gradients)
    np.testing.assert_array_equal(seen[-1]["encoder"]["kernel"], PARAMS["encoder"]["kernel"])
    assert max(x.size for x in jax.tree.leaves(state)) == PARAMS["last_layer"]["kernel"].size


def test_a_constant_rate_and_factors(gradients):
    plain, _ = descend(make_optimizer("sgd", lambda step: 0.1, momentum=0.0), gradients)
    mixed, _ = descend(
        make_optimizer(
            "sgd",
            lambda step: 0.1 * (step < 2),
            momentum=0.0,
            constant=("last_layer",),
            constant_rate=0.1,
            rates={"encoder": 0.5},
        ),
        gradients,
    )
    for step in range(6):
        np.testing.assert_allclose(mixed[step]["last_layer"]["kernel"], plain[step]["last_layer"]["kernel"], rtol=1e-6)
    half = [(p["encoder"]["kernel"] + PARAMS["encoder"]["kernel"]) / 2 for p in plain]
    np.testing.assert_allclose(mixed[2]["encoder"]["kernel"], half[2], rtol=1e-6)
    np.testing.assert_array_equal(mixed[5]["encoder"]["kernel"], mixed[2]["encoder"]["kernel"])


def test_weight_decay_follows_a_cosine():
    """Without gradients only the decay moves: w <- w (1 - rate · decay(step)), from 0.04 to 0.4 over 5 steps."""
    zeros = [jax.tree.map(jnp.zeros_like, PARAMS)] * 5
    optimizer = make_optimizer(
        "adamw", lambda step: 0.1, weight_decay=0.04, weight_decay_final=0.4, total=5, exclude=()
    )
    seen, _ = descend(optimizer, zeros)
    expected = PARAMS["last_layer"]["kernel"]
    for step in range(5):
        decay = 0.4 + (0.04 - 0.4) * (1 + np.cos(np.pi * step / 5)) / 2
        expected = expected * (1 - 0.1 * decay)
        np.testing.assert_allclose(seen[step + 1]["last_layer"]["kernel"], expected, rtol=1e-6)


def test_each_array_is_clipped_by_its_own_norm(gradients):
    seen, _ = descend(make_optimizer("sgd", lambda step: 1.0, momentum=0.0, clip_each=0.5), gradients[:1])
    for part in PARAMS:
        gradient, before = np.asarray(gradients[0][part]["kernel"], np.float64), PARAMS[part]["kernel"]
        clipped = gradient * min(1.0, 0.5 / (np.linalg.norm(gradient) + 1e-6))
        np.testing.assert_allclose(before - seen[1][part]["kernel"], clipped, rtol=1e-5)


def test_query_key_and_value_are_clipped_as_the_one_array_that_they_are_in_pytorch():
    """Their kernels packed, and their biases; in each layer that scan has stacked by itself."""
    random = np.random.RandomState(0)
    gradients = {
        name: {"kernel": random.standard_normal((2, 6, 6)), "bias": 3 * random.standard_normal((2, 6))}
        for name in ("query", "key", "value", "out")
    }
    seen = apply(
        make_optimizer("sgd", lambda _: 1.0, momentum=0.0, clip_each=3.0),
        {"encoder": {"blocks": {"attention": jax.tree.map(jnp.zeros_like, gradients)}}},
        {"encoder": {"blocks": {"attention": gradients}}},
    )["encoder"]["blocks"]["attention"]
    for kind, layer in itertools.product(("kernel", "bias"), range(2)):
        packed = np.concatenate([gradients[name][kind][layer] for name in ("query", "key", "value")], axis=-1)
        clipped = np.concatenate([-seen[name][kind][layer] for name in ("query", "key", "value")], axis=-1)
        np.testing.assert_allclose(clipped, packed * (3.0 / (np.linalg.norm(packed) + 1e-6)), rtol=1e-5)
        alone = gradients["out"][kind][layer]
        factor = min(1.0, 3.0 / (np.linalg.norm(alone) + 1e-6))
        np.testing.assert_allclose(-seen["out"][kind][layer], alone * factor, rtol=1e-5)


def test_what_is_excluded_from_decay_may_be_a_pattern_and_must_be_there(params):
    moved = step(make_optimizer("sgd", lambda _: 0.1, weight_decay=0.5, exclude=("den*", "prefix")), params, 0.0)
    np.testing.assert_array_equal(moved["dense"]["kernel"], 2.0)
    np.testing.assert_allclose(moved["norm"]["scale"], 1.9, rtol=1e-6)
    with pytest.raises(ValueError, match="optimizer.exclude: no parameter has 'biases' in its path; there are bias, d"):
        make_optimizer("sgd", lambda _: 0.1, weight_decay=0.5, exclude=("biases",)).init(params)
    with pytest.raises(ValueError, match="optimizer.exclude: no parameter has 'biases'"):
        make_optimizer("lars", lambda _: 0.1, exclude=("biases",)).init(params)


def test_each_module_is_clipped_by_its_own_norm():
    """The encoder's by that of all its arrays together, whatever the heads' are: DINOv2."""
    gradients = {"encoder": {"a": jnp.full(2, 3.0), "b": jnp.full(2, 4.0)}, "projector": {"c": jnp.full(4, 0.1)}}
    params = jax.tree.map(jnp.zeros_like, gradients)
    (_, moved), _ = descend(make_optimizer("sgd", lambda step: 1.0, momentum=0.0, clip_module=0.5), [gradients], params)
    factor = 0.5 / (np.sqrt(50) + 1e-6)
    np.testing.assert_allclose(moved["encoder"]["a"], -3.0 * factor, rtol=1e-5)
    np.testing.assert_allclose(moved["encoder"]["b"], -4.0 * factor, rtol=1e-5)
    np.testing.assert_allclose(moved["projector"]["c"], -0.1, rtol=1e-5)


def test_larc_adds_the_norms(gradients):
    optimizer = make_optimizer("larc", lambda step: 1.0, momentum=0.0, weight_decay=0.1, trust=0.02, exclude=())
    seen, _ = descend(optimizer, gradients[:1])
    for part in PARAMS:
        g, w = (np.asarray(x[part]["kernel"], np.float64) for x in (gradients[0], PARAMS))
        factor = 0.02 * np.linalg.norm(w) / (np.linalg.norm(g) + 0.1 * np.linalg.norm(w))
        np.testing.assert_allclose(w - seen[1][part]["kernel"], (g + 0.1 * w) * factor, rtol=1e-4)


@pytest.mark.parametrize("field", ["freeze", "constant", "rates"])
def test_a_name_that_no_parameter_has(field):
    chosen = {"nothing": 0.5} if field == "rates" else ("nothing",)
    optimizer = make_optimizer("sgd", lambda step: 0.1, **{field: chosen})
    with pytest.raises(ValueError, match=f"optimizer.{field}: no parameter has 'nothing'.*last_layer"):
        descend(optimizer, [PARAMS])
