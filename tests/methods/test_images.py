"""What is particular to a method for images: the traps that others fell into."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssljax.build import build_method
from ssljax.engine.mesh import make_mesh
from ssljax.engine.optim import make_optimizer
from ssljax.engine.step import make_train

EXAMPLES = 80


@pytest.fixture
def states(load_small, batches):
    """`states(name, steps, optimizer, **fields)`: the method, and its state before and after each of so many steps."""

    def run(name, steps=2, optimizer=None, **fields):
        config = load_small(name)
        config.method.update(fields)
        method = build_method(config, 5, examples=EXAMPLES, steps_per_epoch=2.0)
        mesh = make_mesh(1, 1, jax.devices()[:1])
        init, step, _ = make_train(method, optimizer or optax.sgd(0.01), mesh, batches[0])
        state, seen = init(), []
        seen.append(jax.device_get(state))
        for batch in batches[:steps]:
            state, metrics = step(state, batch)
            seen.append(jax.device_get(state))
        return method, seen, metrics

    return run


def assert_follows(target, before, after, momentum):
    """target = momentum · before + (1 - momentum) · after, of every parameter."""
    for got, old, new in zip(*(jax.tree.leaves(t) for t in (target, before, after)), strict=True):
        np.testing.assert_allclose(got, momentum * old + (1 - momentum) * new, rtol=1e-5, atol=1e-7)


def test_byols_target_is_drawn_by_itself_and_follows_the_new_weights(states):
    _, (before, after, _), _ = states("byol", momentum=0.9)
    online, target = before.params["encoder"], before.target["params"]["encoder"]
    kernels = [max(jax.tree.leaves(t), key=np.size) for t in (online, target)]
    assert not np.allclose(*kernels)
    follows = {name: after.params[name] for name in ("encoder", "projector")}
    assert_follows(after.target["params"], before.target["params"], follows, 0.9)
    # Statistics are the target's own, and not averages of the online network's.
    ours, theirs = after.model_state["encoder"], after.target["model_state"]["encoder"]
    assert not np.allclose(jax.tree.leaves(ours)[0], jax.tree.leaves(theirs)[0])


def test_moco_v3s_keys_are_of_the_weights_before_the_step(states):
    _, (before, after, last), _ = states("moco_v3", momentum=0.9, momentum_schedule="constant")
    same = {name: before.params[name] for name in ("encoder", "projector")}
    assert_follows(after.target["params"], before.target["params"], same, 0.9)
    follows = {name: after.params[name] for name in ("encoder", "projector")}
    assert_follows(last.target["params"], after.target["params"], follows, 0.9)


def test_moco_v3s_patch_projection_stays_as_it_was_drawn(load_small, batches):
    config = load_small("moco_v3")
    fields = {"name": "vit_micro", "channels": None, "width": 16, "depth": 1, "heads": 2}
    config.encoder.update(fields | {"freeze_patch_embed": True, "initializer": "moco_v3"})
    method = build_method(config, 5)
    optimizer = make_optimizer("adamw", lambda step: 0.01, weight_decay=0.1, freeze=("patch_embed",))
    init, step, _ = make_train(method, optimizer, make_mesh(1, 1, jax.devices()[:1]), batches[0])
    before = jax.device_get(init())
    after = jax.device_get(step(init(), batches[0])[0])
    embed, norm = (lambda s: s.params["encoder"]["patch_embed"]), (lambda s: s.params["encoder"]["norm"])
    jax.tree.map(np.testing.assert_array_equal, embed(before), embed(after))
    assert not np.array_equal(norm(before)["bias"], norm(after)["bias"])


def test_swavs_queue_starts_late_and_counts_once_it_is_full(states):
    """Two steps an epoch, and from epoch 1 on: steps 3 and 4 fill 32 places, and the fifth is the first to use them."""
    _, seen, _ = states("swav", steps=5)
    assert [int(state.extra["filled"]) for state in seen] == [0, 0, 0, 16, 32, 32]
    assert not seen[2].extra["queue"].any()
    first, second = seen[3].extra["queue"], seen[4].extra["queue"]
    np.testing.assert_array_equal(second[:, 16:], first[:, :16])  # the newest come first
    _, without, _ = states("swav", steps=5, queue=0)
    for step in range(5):  # one that is not full changes nothing
        jax.tree.map(np.testing.assert_array_equal, seen[step].params, without[step].params)
    same = jax.tree.map(np.array_equal, seen[5].params, without[5].params)
    assert not all(jax.tree.leaves(same))


def test_swavs_prototypes_have_length_one_and_rest_in_the_first_epoch(states):
    optimizer = make_optimizer(
        "sgd", lambda step: 0.5, weight_decay=0.1, exclude=(), freeze=("prototypes",), freeze_steps=2
    )
    _, seen, _ = states("swav", steps=3, optimizer=optimizer)
    prototypes = [state.params["prototypes"]["prototypes"] for state in seen]
    for rows in prototypes:
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(prototypes[2], prototypes[0], atol=1e-6)
    assert np.abs(prototypes[3] - prototypes[2]).max() > 1e-4


def test_swav_at_the_start_is_at_ln_k(states):
    _, _, metrics = states("swav", steps=1, temperature=1e4)
    np.testing.assert_allclose(metrics["loss"], np.log(12), rtol=1e-4)


def test_npids_bank(states, batches):
    _, (before, after, last), _ = states("npid", bank_momentum=0.25)
    assert float(before.extra["log_z"]) == 0 and float(after.extra["log_z"]) == float(last.extra["log_z"]) != 0
    index = np.asarray(batches[0]["index"])
    moved = np.flatnonzero((before.extra["bank"] != after.extra["bank"]).any(axis=1))
    np.testing.assert_array_equal(moved, np.unique(index))
    np.testing.assert_allclose(np.linalg.norm(after.extra["bank"][moved], axis=1), 1.0, rtol=1e-6)
    assert np.abs(before.extra["bank"]).max() <= (3 / 8) ** 0.5


def test_npid_with_all_images_is_a_softmax_over_the_bank(load_small, batches):
    config = load_small("npid")
    config.method.update(noise=0, temperature=0.5)
    method = build_method(config, 5, examples=EXAMPLES)
    variables = method.init(jax.random.key(0), batches[0])
    f = jnp.asarray(np.random.RandomState(0).standard_normal((16, 8)), jnp.float32)
    expected = jax.nn.logsumexp(f @ variables.extra["bank"][:EXAMPLES].T / 0.5, axis=1)
    np.testing.assert_allclose(method._log_sum_exp(f, variables.extra["bank"], None), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["dino", "ibot", "dinov2"])
def test_a_last_layer_that_is_frozen_keeps_its_moments_too(name, states):
    optimizer = make_optimizer(
        "adamw", lambda step: 0.01, weight_decay=0.1, exclude=(), freeze=("last_layer",), freeze_steps=2
    )
    _, seen, _ = states(name, steps=3, optimizer=optimizer)
    layers = [state.params["projector"]["last_layer"] for state in seen]
    jax.tree.map(np.testing.assert_array_equal, layers[0], layers[2])
    assert not np.array_equal(layers[2]["kernel"], layers[3]["kernel"])


def test_dinos_centre_moves_after_it_was_used(states):
    """From zero to a tenth of the first batch's mean, whatever the teacher's temperature."""
    _, (before, after, _), _ = states("dino", center_momentum=0.9)
    _, (_, other, _), _ = states("dino", center_momentum=0.0)
    assert not before.extra["center"].any()
    np.testing.assert_allclose(after.extra["center"], 0.1 * other.extra["center"], rtol=1e-5, atol=1e-7)


def test_the_teachers_temperature_changes_once_an_epoch(load_small):
    config = load_small("dino")
    config.method.update(teacher_temperature=0.07, warmup_temperature=0.04, warmup_temperature_epochs=4)
    method = build_method(config, 100, steps_per_epoch=10.0)
    found = [float(method.temperature(jnp.int32(step), 0.07)) for step in (0, 9, 10, 25, 30, 99)]
    np.testing.assert_allclose(found, [0.04, 0.04, 0.05, 0.06, 0.07, 0.07], rtol=1e-5)


def test_the_teacher_drops_nothing(load_small):
    config = load_small("dino")
    config.encoder.drop_path = 0.5
    method = build_method(config, 5)
    assert method.without_drop_path.encoder.drop_path == 0 and method.encoder.drop_path == 0.5


@pytest.mark.parametrize(
    "name, fields",
    [("simclr", {}), ("barlow_twins", {}), ("simsiam", {}), ("byol", {}), ("vicreg", {}), ("moco_v3", {})],
)
def test_joint_embedding_with_a_vision_transformer(name, fields, load_small, batches):
    config = load_small(name)
    config.encoder.update(name="vit_micro", channels=None, width=16, depth=1, heads=2)
    method = build_method(config, 5, examples=EXAMPLES)
    init, step, _ = make_train(method, optax.sgd(0.01), make_mesh(1, 1, jax.devices()[:1]), batches[0])
    jax.eval_shape(step, jax.eval_shape(init), batches[0])


@pytest.mark.parametrize("name", ["swav", "dino"])
@pytest.mark.parametrize("crops", [0, 1, 5])
def test_any_number_of_local_crops_and_either_encoder(name, crops, load_small, batches):
    for encoder in ({"name": "resnet8", "channels": 4}, {"name": "vit_micro", "width": 16, "depth": 1, "heads": 2}):
        config = load_small(name)
        config.encoder.update({k: None for k in config.encoder if k != "name"})
        config.encoder.update(encoder)
        config.views.local_crops = crops
        method = build_method(config, 5, examples=EXAMPLES)
        init, step, _ = make_train(method, optax.sgd(0.01), make_mesh(1, 1, jax.devices()[:1]), batches[0])
        jax.eval_shape(step, jax.eval_shape(init), batches[0])


@pytest.mark.parametrize(
    "name, section, fields, sentence",
    [
        ("byol", "views", {"name": "mae"}, "BYOL compares two views"),
        (
            "swav",
            "views",
            {"name": "mae", "local_crops": None, "local_size": None, "local_scale": None},
            "two views of",
        ),
        ("ibot", "encoder", {"mask_token": False}, "mask_token=True"),
        ("dinov2", "method", {"centering": "none"}, "use 'ema' or 'sinkhorn'"),
        ("data2vec", "method", {"layers": 9}, "an encoder with as many, not 2"),
        ("ijepa", "encoder", {"cls_token": True}, "cls_token=False"),
        ("ijepa", "method", {"mask": "none"}, "use 'unbiased' or 'reference'"),
        ("simsiam", "method", {"predictor": (8, 12)}, "both must be the same"),
    ],
)
def test_what_does_not_fit_is_said(name, section, fields, sentence, load_small):
    config = load_small(name)
    with config.ignore_type():
        config[section].update(fields)
    with pytest.raises(ValueError, match=sentence):
        build_method(config, 5, examples=EXAMPLES)
