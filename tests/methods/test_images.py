"""What is particular to a method for images: the traps that others fell into."""

import inspect
from functools import partial
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from ssljax.build import build_method, build_run
from ssljax.collectives import example_keys
from ssljax.engine.mesh import make_mesh
from ssljax.engine.optim import make_optimizer
from ssljax.engine.step import make_train
from ssljax.methods import METHODS
from ssljax.methods.images.ijepa import Predictor
from ssljax.methods.images.memory import enqueue
from ssljax.models import infer, run
from ssljax.models.heads import MLP, DINOHead
from ssljax.models.resnet import ResNet
from ssljax.models.vit import ViT
from ssljax.typing import TrainState

CONFIGS = Path(__file__).parents[2] / "configs" / "images"
IMAGES = [name for name, method in METHODS.items() if method.modality == "images"]
EXAMPLES = 80
EXAMPLE = {"image": jax.ShapeDtypeStruct((2, 20, 20, 3), jnp.uint8), "index": jax.ShapeDtypeStruct((2,), jnp.int32)}
RESNET = {"name": "resnet8", "channels": 4}
VIT = {"name": "vit_micro", "channels": None, "width": 16, "depth": 1, "heads": 2}
CONSTANT = {"momentum_schedule": "constant"}


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


@pytest.fixture
def prepare(load_small, batches):
    """`prepare(name, encoder, views, **fields)`: the method, the state that it starts from, and views of a batch."""

    def make(name, encoder=None, views=None, **fields):
        config = load_small(name)
        if encoder:
            config.encoder.update({k: None for k in config.encoder if k != "name"} | encoder)
        config.views.update(views or {})
        config.method.update(fields)
        method = build_method(config, 100, examples=EXAMPLES, steps_per_epoch=2.0)
        v = jax.jit(method.init)(jax.random.key(0), batches[0])
        state = TrainState(v.params, v.model_state, v.target, v.extra, jnp.int32(0), ())
        return method, state, jax.jit(method.views)(example_keys(jax.random.key(1), 16), batches[0])

    return make


def losses(method, state, views):
    """(loss, aux) of a step on one device."""
    return jax.jit(lambda state, views: method.loss(state.params, state, views, jax.random.key(2), None))(state, views)


def filled(tree, value):
    return jax.tree.map(lambda x: jnp.full_like(x, value), tree)


def assert_all(tree, value):
    for x in jax.tree.leaves(tree):
        np.testing.assert_allclose(x, np.full(x.shape, value), rtol=1e-4)


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
    config.encoder.update(VIT | {"freeze_patch_embed": True, "initializer": "moco_v3"})
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
    # Embeddings of length 1, whose scores by the prototypes of the day are made anew at each step.
    assert second.shape[-1] == 8
    np.testing.assert_allclose(np.linalg.norm(second, axis=-1), 1.0, rtol=1e-5)
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


def test_npids_bank(states, batches):
    _, (before, after, last), _ = states("npid", bank_momentum=0.25)
    assert float(before.extra["log_z"]) == 0 and float(after.extra["log_z"]) == float(last.extra["log_z"]) != 0
    index = np.asarray(batches[0]["index"])
    moved = np.flatnonzero((before.extra["bank"] != after.extra["bank"]).any(axis=1))
    np.testing.assert_array_equal(moved, np.unique(index))
    np.testing.assert_allclose(np.linalg.norm(after.extra["bank"][moved], axis=1), 1.0, rtol=1e-6)
    assert np.abs(before.extra["bank"]).max() <= (3 / 8) ** 0.5


def test_npids_z_is_that_of_the_first_batch_and_stays(prepare, monkeypatch):
    """Z = n · the mean of exp(v · f / T) over the images of the first batch and the noise that they draw, with an f of
    length 1 and the image's own row v first."""
    method, state, views = prepare("npid")
    monkeypatch.setattr(import_module(type(method).__module__), "nce", lambda own, others, *_: (own, others))

    def traced(state, views):
        (own, others), aux = method.loss(state.params, state, views, jax.random.key(2), None)
        return aux["log_z"], jnp.concatenate([own[:, None], others], axis=1), aux["embedded"]

    z, logits, f = jax.jit(traced)(state, views)
    assert logits.shape == (16, 1 + method.noise)
    np.testing.assert_allclose(np.linalg.norm(f, axis=1), 1.0, rtol=1e-5)
    rows = np.asarray(state.extra["bank"])[np.asarray(views[1])]
    np.testing.assert_allclose(logits[:, 0], (f * rows).sum(axis=1) / method.temperature, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(z, np.log(EXAMPLES * np.exp(np.asarray(logits, np.float64)).mean()), rtol=1e-5)
    later = state.replace(step=jnp.int32(1), extra=state.extra | {"log_z": jnp.float32(3.0)})
    assert float(jax.jit(traced)(later, views)[0]) == 3.0


def test_npid_with_all_images_is_a_softmax_over_the_bank(load_small, batches):
    config = load_small("npid")
    config.method.update(noise=0, temperature=0.5)
    method = build_method(config, 5, examples=EXAMPLES)
    variables = method.init(jax.random.key(0), batches[0])
    f = jnp.asarray(np.random.RandomState(0).standard_normal((16, 8)), jnp.float32)
    expected = jax.nn.logsumexp(f @ variables.extra["bank"][:EXAMPLES].T / 0.5, axis=1)
    np.testing.assert_allclose(method._log_sum_exp(f, variables.extra["bank"], None), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "name, fields, heads",
    [
        ("dino", {}, {"last_layer"}),
        ("ibot", {}, {"last_layer"}),
        ("ibot", {"patch_count": 12}, {"last_layer", "last_layer2"}),
        ("dinov2", {}, {"last_layer"}),
        ("dinov2", {"centering": "sinkhorn", "patch_count": 12}, {"last_layer", "patch_projector"}),
    ],
)
def test_last_layers_rest_in_the_first_epoch_and_their_moments_too(name, fields, heads, load_small, batches):
    """By the patterns of the configs, and with a head of their own for patches."""
    config = load_small(name)
    config.method.update(fields)
    method = build_method(config, 5, examples=EXAMPLES)
    params = filled(jax.eval_shape(method.init, jax.random.key(0), batches[0]).params, 1.0)
    options = {"weight_decay": 0.1, "exclude": (), "freeze": config.optimizer.freeze, "freeze_steps": 2}
    optimizer = make_optimizer("adamw", lambda step: 0.01, **options)

    def last_layers(tree):
        """By name: the leaves of last layers, and of the head of patches its own."""
        found = {}
        for path, x in jax.tree_util.tree_leaves_with_path(tree):
            names = [part.key for part in path if isinstance(part, jax.tree_util.DictKey)]
            for layer in {"last_layer", "last_layer2"}.intersection(names):
                found.setdefault("patch_projector" if "patch_projector" in names else layer, []).append(x)
        return found

    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for step in range(3):
        updates, state = update(filled(params, 1.0), state, params)
        for part in (updates, state):  # of Adam's state, both moments
            layers = last_layers(part)
            assert set(layers) == heads
            assert all(np.any(x) == (step == 2) for of in layers.values() for x in of), step


@pytest.mark.parametrize("name", ["dino", "ibot", "dinov2"])
def test_centres_are_used_as_the_step_found_them_and_move_afterwards(name, prepare, monkeypatch):
    """By a tenth of the way to the mean of this batch, which is where a momentum of 0 puts them."""
    module = import_module(f"ssljax.methods.images.{name}")
    original, used, moved = module.center_and_sharpen, [], {}

    def watch(logits, center, temperature):
        used.append(center)
        return original(logits, center, temperature)

    monkeypatch.setattr(module, "center_and_sharpen", watch)
    for momentum in (0.9, 0.0):
        method, state, views = prepare(name, center_momentum=momentum)
        state = state.replace(extra=filled(state.extra, 7.0))

        def traced(state, views, method=method):
            _, aux = method.loss(state.params, state, views, jax.random.key(2), None)
            return list(used), aux["extra"]

        used.clear()
        centers, moved[momentum] = jax.jit(traced)(state, views)
        assert len(centers) == len(state.extra) and all((np.asarray(x) == 7.0).all() for x in centers)
    for center, mean in zip(*map(jax.tree.leaves, moved.values()), strict=True):
        np.testing.assert_allclose(center, 0.9 * 7.0 + 0.1 * mean, rtol=1e-5)
        assert np.abs(mean - 7.0).min() > 0.1


def test_the_teachers_temperature_changes_once_an_epoch(load_small):
    config = load_small("dino")
    config.method.update(teacher_temperature=0.07, warmup_temperature=0.04, warmup_temperature_epochs=4)
    method = build_method(config, 100, steps_per_epoch=10.0)
    found = [float(method.temperature(jnp.int32(step), 0.07)) for step in (0, 9, 10, 25, 30, 99)]
    np.testing.assert_allclose(found, [0.04, 0.04, 0.05, 0.06, 0.07, 0.07], rtol=1e-5)


def test_dinov2s_temperature_changes_at_each_step(load_small):
    """A straight line over 40 steps."""
    config = load_small("dinov2")
    config.method.update(teacher_temperature=0.07, warmup_temperature=0.04, warmup_temperature_epochs=4)
    method = build_method(config, 100, steps_per_epoch=10.0)
    found = [float(method.temperature(jnp.int32(step), 0.07)) for step in (0, 1, 13, 39, 99)]
    np.testing.assert_allclose(found, [0.04, 0.04 + 0.03 / 39, 0.05, 0.07, 0.07], rtol=1e-5)


@pytest.mark.parametrize(
    "name, fields, expected",
    [
        ("dino", {}, {"classes": 0.05, "dino": 0.3}),
        ("ibot", {"patch_temperature": 0.1}, {"classes": 0.05, "patches": 0.06, "dino": 0.3, "ibot_patches": 0.3}),
        ("dinov2", {}, {"classes": 0.055, "patches": 0.055, "dino": 0.3, "ibot_patches": 0.3}),
        (
            "dinov2",
            {"centering": "sinkhorn", "patch_count": 12, "patch_bottleneck": 4},
            {"classes": 0.055, "patches": 0.055, "dino": 0.3, "ibot_patches": 0.3},
        ),
        ("swav", {"temperature": 0.3, "epsilon": 0.07, "queue": 0}, {"classes": 0.07, "swav": 0.3}),
    ],
)
def test_teachers_have_the_temperature_of_the_step_and_students_theirs(name, fields, expected, prepare, monkeypatch):
    """At the fourth step of a warm-up of eight, two an epoch: DINO and iBOT are a third of the way, DINOv2 a half."""
    if name != "swav":
        warm_up = {"warmup_temperature": 0.04, "warmup_temperature_epochs": 4, "teacher_temperature": 0.07}
        fields = {"student_temperature": 0.3} | warm_up | fields
    method, state, views = prepare(name, **fields)
    state = state.replace(step=jnp.float32(3.5) if name == "dinov2" else jnp.int32(3))
    module, used = import_module(type(method).__module__), {}

    def watch(of, temperature):
        original = getattr(module, of)

        def watching(first, *rest, **options):
            given = inspect.signature(original).bind(first, *rest, **options).arguments
            of_teacher = of in ("center_and_sharpen", "sinkhorn")
            # Teachers' class tokens, or scores, are those of at most two global views of sixteen images.
            teacher = "classes" if of_teacher and first.size // first.shape[-1] <= 32 else "patches"
            used[teacher if of_teacher else of] = jnp.float32(given[temperature])
            return original(first, *rest, **options)

        monkeypatch.setattr(module, of, watching)

    for of, temperature in (
        ("center_and_sharpen", "temperature"),
        ("sinkhorn", "epsilon"),
        ("dino", "temperature"),
        ("ibot_patches", "temperature"),
        ("swav", "temperature"),
    ):
        if hasattr(module, of):
            watch(of, temperature)

    def traced(state, views):
        method.loss(state.params, state, views, jax.random.key(2), None)
        return dict(used)

    found = jax.jit(traced)(state, views)
    assert {of: round(float(x), 5) for of, x in found.items()} == expected


def test_the_teacher_drops_nothing(load_small):
    config = load_small("dino")
    config.encoder.drop_path = 0.5
    method = build_method(config, 5)
    assert method.without_drop_path.encoder.drop_path == 0 and method.encoder.drop_path == 0.5


@pytest.mark.parametrize(
    "name", "npid simclr simclr_v2 moco_v1 moco_v2 moco_v3 byol simsiam barlow_twins vicreg".split()
)
def test_joint_embedding_with_a_vision_transformer(name, load_small, batches):
    config = load_small(name)
    config.encoder.update(VIT | {"bn_groups": None})
    method = build_method(config, 5, examples=EXAMPLES)
    init, step, _ = make_train(method, optax.sgd(0.01), make_mesh(1, 1, jax.devices()[:1]), batches[0])
    jax.eval_shape(step, jax.eval_shape(init), batches[0])


@pytest.mark.parametrize("name", ["swav", "dino", "ibot", "dinov2"])
@pytest.mark.parametrize("crops", [0, 1, 5])
def test_any_number_of_local_crops_and_either_encoder(name, crops, load_small, batches):
    """But for the methods that hide patches, which are for Vision Transformers."""
    resnet = {"name": "resnet8", "channels": 4}
    vit = {"name": "vit_micro", "width": 16, "depth": 1, "heads": 2}
    for encoder in (resnet, vit) if name in ("swav", "dino") else (vit | {"mask_token": True},):
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
        ("dinov2", "method", {"centering": "sinkhorn"}, "mixes DINOv2's two recipes"),
        ("dinov2", "method", {"patch_count": 12}, "mixes DINOv2's two recipes"),
        ("dino", "method", {"teacher_temperature": -0.04}, "teacher_temperature=-0.04 must be above 0"),
        ("dino", "method", {"count": 0}, "count=0 must be at least 2"),
        ("npid", "method", {"temperature": 0.0}, "temperature=0.0 must be above 0"),
        ("npid", "method", {"noise": -3}, "noise=-3 must be 0 or more"),
        ("byol", "method", {"momentum": 1.5}, "momentum=1.5 must be from 0 to 1"),
        ("byol", "method", {"projector": ()}, r"projector=\(\) must be a width or more"),
        ("moco_v3", "method", {"predictor_norm": "batch"}, "use 'none' or 'plain'"),
        ("data2vec", "method", {"mask_ratio": 0.0}, "must hide some of the 16 patches, and not all"),
        ("data2vec", "method", {"mask_ratio": 1.5}, "must hide some of the 16 patches, and not all"),
        ("ijepa", "method", {"predictor_heads": 5}, "predictor_heads=5 must divide predictor_width, which is 16"),
        ("mae", "method", {"decoder_heads": 5}, "decoder_heads=5 must divide decoder_width, which is 16"),
        ("data2vec", "method", {"layers": 9}, "an encoder with as many, not 2"),
        ("ijepa", "encoder", {"cls_token": True}, "cls_token=False"),
        ("ijepa", "method", {"mask": "none"}, "use 'unbiased' or 'reference'"),
        ("ijepa", "method", {"target_norm": "batch"}, "target_norm='batch' is unknown; use layer or instance"),
        ("data2vec", "method", {"target_norm": "batch"}, "target_norm='batch' is unknown; use layer or instance"),
        ("simsiam", "method", {"predictor": (8, 12)}, "both must be the same"),
        ("byol", "method", {"predictor": (8,), "projector": (16,)}, "ends in 8 numbers and its projector in 16"),
        ("moco_v3", "method", {"predictor": (12,)}, "ends in 12 numbers and its projector in 8"),
        ("byol", "method", {"predictor": (0, 8)}, r"predictor=\(0, 8\) must be widths, each at least 1"),
        ("moco_v1", "method", {"queue": 0}, "queue=0 leaves no keys"),
        (
            "ibot",
            "method",
            {"mask_ratio": (0.3,)},
            r"mask_ratio=\(0.3,\) must be two numbers above 0, the smaller first",
        ),
        ("ijepa", "method", {"aspect": (0.0, 0.0)}, "must be two numbers above 0"),
        ("ijepa", "method", {"target_scale": (0.2, 0.1)}, "the smaller first"),
        ("ijepa", "method", {"predictor_width": 18}, "predictor_width=18 must be a multiple of 4"),
        (
            "data2vec",
            "method",
            {"mask_ratio": 0.2},
            "hides 3 of 16 patches, where no block of smallest_block=4 fits in",
        ),
        ("dino", "method", {"warmup_temperature_epochs": -5}, "must be 0 or more"),
        ("dino", "encoder", {"heads": 0}, "--config.encoder.heads=0 must be at least 1"),
        ("dino", "encoder", {"registers": -1}, "registers=-1 must be 0 or more"),
        ("dino", "encoder", {"drop_path": 1.0}, "drop_path=1.0 must be at least 0 and below 1"),
        ("byol", "encoder", {"channels": 0}, "channels=0 must be at least 1"),
        ("byol", "encoder", {"width_multiplier": 0.0}, "width_multiplier=0.0 must be above 0"),
        ("byol", "views", {"std": (0.0, 0.2, 0.2)}, "must be three numbers above 0, one for each colour"),
        ("byol", "views", {"mean": (0.5, 0.5)}, "must be three numbers, one for each colour"),
        ("byol", "views", {"brightness": -1.0}, "views.brightness -1.0 must be 0 or more"),
        ("simclr", "views", {"strength": -1.0}, "views.strength -1.0 must be from 0 to 2.5"),
        ("swav", "views", {"local_size": 0}, "views.local_size 0 must be a side in pixels"),
    ],
)
def test_what_does_not_fit_is_said(name, section, fields, sentence, load_small):
    config = load_small(name)
    with config.ignore_type():
        config[section].update(fields)
    with pytest.raises(ValueError, match=sentence):
        build_method(config, 5, examples=EXAMPLES)


# What goes through which network, and how -----------------------------------------------------------------------------


@pytest.fixture
def forwards(monkeypatch):
    """Every pass through a network in train mode since the test began: (module, shape of what it sees, options)."""
    seen = []

    def watch(module, params, state, x, *rest, **options):
        seen.append((module, x.shape, options))
        return run(module, params, state, x, *rest, **options)

    for name in ("image_method", "self_distillation", "data2vec", "ijepa"):
        monkeypatch.setattr(import_module(f"ssljax.methods.images.{name}"), "run", watch)
    return seen


@pytest.mark.parametrize(
    "name, passes, heads",
    [
        ("simclr", ["32 of 16"], [32]),  # 2N statistics
        ("simclr_v2", ["32 of 16", "32 of 16"], [32, 32]),
        ("moco_v2", ["16 of 16", "16 of 16"], [16, 16]),
        ("moco_v3", 4 * ["16 of 16"], 6 * [16]),  # N statistics: each view by itself
        ("byol", 4 * ["16 of 16"], 6 * [16]),
        ("simsiam", 2 * ["16 of 16"], 4 * [16]),
        ("barlow_twins", 2 * ["16 of 16"], 2 * [16]),
        ("vicreg", 2 * ["16 of 16"], 2 * [16]),
        ("swav", ["32 of 16", "32 of 8"], [64]),  # by resolution
        ("dino", ["teacher: 32 of 16", "32 of 16", "32 of 8"], [32, 64]),
        ("ibot", ["teacher: 32 of 16", "32 of 16 masked", "32 of 8"], []),
        ("dinov2", ["teacher: 32 of 16", "32 of 16 masked", "32 of 8"], []),
        ("data2vec", ["teacher: 16 of 16", "16 of 16 masked"], []),
        ("ijepa", ["teacher: 16 of 16", "16 of 16 keep valid"], []),
    ],
)
def test_what_goes_through_a_network_together(name, passes, heads, load_small, batches, forwards):
    """Which views share BatchNorm's statistics, in the encoder and in projectors and predictors; that teachers see
    whole global views alone, and drop nothing."""
    config = load_small(name)
    if "vit" in config.encoder.name:
        config.encoder.drop_path = 0.5
    method = build_method(config, 5, examples=EXAMPLES)
    _, step, abstract = make_train(method, optax.sgd(0.01), make_mesh(1, 1, jax.devices()[:1]), batches[0])
    forwards.clear()
    jax.eval_shape(step, abstract, batches[0])
    found = []
    for module, shape, options in forwards:
        if isinstance(module, ResNet | ViT):
            hidden = [part for part in ("masked", "keep", "valid") if options.get(part) is not None]
            teacher = ["teacher:"] if getattr(module, "drop_path", 0.5) == 0 else []
            found.append(" ".join([*teacher, f"{shape[0]} of {shape[1]}", *hidden]))
    assert found == passes
    assert [shape[0] for module, shape, _ in forwards if isinstance(module, MLP | DINOHead)] == heads


def test_data2vecs_targets_are_of_the_last_blocks_before_any_norm(prepare, forwards):
    method, state, views = prepare("data2vec", layers=2)
    jax.eval_shape(lambda s, v: method.loss(s.params, s, v, jax.random.key(2), None)[0], state, views)
    (_, _, teacher), (_, _, student) = forwards
    assert (teacher["last"], teacher["norm"]) == (2, False) and not {"last", "norm"} & set(student)


@pytest.mark.parametrize(
    "name, encoder, sees",
    [
        ("byol", None, lambda views: views),
        ("moco_v2", RESNET, lambda views: views[1:]),
        ("moco_v3", None, lambda views: views),
        ("dino", RESNET, lambda views: [jnp.concatenate(views[:2])]),
    ],
)
def test_a_targets_statistics_are_those_of_what_it_sees_itself(name, encoder, sees, prepare):
    """It is in train mode, and its running statistics are no average of the online network's, as its weights are."""
    method, state, views = prepare(name, encoder)
    if name != "byol":  # the only one whose target is drawn by itself
        state = state.replace(target=state.target | {"params": jax.tree.map(lambda x: 1.1 * x, state.target["params"])})
        state = state.replace(params=state.params | state.target["params"])
    _, aux = losses(method, state, views)
    after = method.update(state, aux, None).target["model_state"]["encoder"]

    @jax.jit
    def expected(params, statistics, views):
        for view in sees(views):
            _, statistics = run(method.encoder, params, statistics, view)
        return statistics

    target = state.target
    theirs = expected(target["params"]["encoder"], target["model_state"]["encoder"], views)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), after, theirs)


# When targets move ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, published",
    [
        ("byol", 1 - 0.1 * (1 + np.cos(np.pi / 4)) / 2),
        ("dino", 1 - 0.1 * (1 + np.cos(np.pi / 4)) / 2),
        ("ibot", 1 - 0.1 * (1 + np.cos(np.pi / 4)) / 2),
        ("dinov2", 1 - 0.1 * (1 + np.cos(np.pi / 4)) / 2),
        ("ijepa", 0.9 + 0.1 / 4),
        ("data2vec", 0.9),
    ],
)
def test_teachers_follow_the_new_weights_after_the_step(name, published, load_small, batches):
    """A quarter through the run, from 0.9 on: BYOL and the DINOs by a cosine, I-JEPA straight, data2vec not at all."""
    config = load_small(name)
    config.method.momentum = 0.9
    method = build_method(config, 100, examples=EXAMPLES)
    v = jax.eval_shape(method.init, jax.random.key(0), batches[0])
    target = v.target | {"params": filled(v.target["params"], 0.0)}
    state = TrainState(filled(v.params, 1.0), v.model_state, target, v.extra, jnp.int32(25), ())
    aux = {"model_state": v.model_state, "target_state": v.target["model_state"], "extra": v.extra}
    assert_all(method.update(state, aux, None).target["params"], 1 - published)


@pytest.mark.parametrize("name", ["moco_v2", "moco_v3", "simclr_v2"])
def test_keys_are_made_by_the_network_that_has_already_moved(name, prepare):
    """Towards the weights before the step; with a momentum of zero these make the keys themselves."""
    method, state, views = prepare(name, RESNET, momentum=0.75, **({} if name == "simclr_v2" else CONSTANT))
    behind = state.replace(params=filled(state.params, 1.0))
    behind = behind.replace(target=state.target | {"params": filled(state.target["params"], 0.0)})
    assert_all(losses(method, behind, views)[1]["target"]["params"], 0.25)


def test_mocos_keys_are_of_the_moved_network_and_the_queue_is_as_it_was(prepare):
    """With no momentum, a query and its key from equal views are the same; the loss is of the queue before these keys
    enter it, in one direction."""
    method, state, views = prepare("moco_v2", RESNET, momentum=0.0, temperature=0.5)
    np.testing.assert_allclose(np.linalg.norm(state.extra["queue"], axis=1), 1.0, rtol=1e-5)
    state = state.replace(target=state.target | {"params": filled(state.target["params"], 0.0)})
    loss, aux = losses(method, state, (views[0], views[0]))
    query, key = (np.asarray(x, np.float64) for x in aux["embeddings"])
    query = query / np.linalg.norm(query, axis=1, keepdims=True)
    np.testing.assert_allclose(query, key, rtol=1e-3, atol=1e-4)
    logits = np.concatenate([(query * key).sum(1, keepdims=True), query @ np.asarray(state.extra["queue"]).T], axis=1)
    expected = np.mean(np.log(np.exp(logits / 0.5).sum(1)) - logits[:, 0] / 0.5)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    after = method.update(state, aux, None).extra
    np.testing.assert_allclose(after["queue"][:16], key, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(after["queue"][16:], state.extra["queue"][16:])


def test_the_oldest_keys_of_a_queue_go_first_and_its_pointer_goes_round():
    extra = {"queue": jnp.arange(6.0)[:, None], "pointer": jnp.int32(4)}
    extra = enqueue(extra, jnp.array([[10.0], [11.0]]))
    np.testing.assert_array_equal(extra["queue"][:, 0], [0, 1, 2, 3, 10, 11])
    assert int(extra["pointer"]) == 0
    for new in (20.0, 30.0):  # batches of four, which do not divide it
        extra = enqueue(extra, new + jnp.arange(4.0)[:, None])
    np.testing.assert_array_equal(extra["queue"][:, 0], [32, 33, 22, 23, 30, 31])
    assert int(extra["pointer"]) == 2


@pytest.mark.parametrize("shards", [1, 4])
def test_shuffled_keys_come_back_in_their_order_and_had_other_neighbours(shards, load_small, spread):
    """ShuffleBN: without it a query's BatchNorm group would give its key away."""
    method = build_method(load_small("moco_v1"), 5)
    assert method.encoder.bn_groups == 4
    images = np.arange(32, dtype=np.float32).reshape(16, 2)

    def shuffle(images):
        shuffled, unshuffle = method._shuffle(images, jax.random.key(0), "data")
        return shuffled, unshuffle(shuffled)

    shuffled, back = spread(shuffle, shards, (P("data"), P()))(images)
    np.testing.assert_array_equal(back, images)
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), images)
    groups = np.asarray(shuffled)[:, 0].reshape(4, 4) // 8  # which group each image of a group came from
    assert all(len(set(group)) > 1 for group in groups)


@pytest.mark.parametrize(
    "chunks, fields, shuffles",
    [(1, {}, False), (4, {}, True), (1, {"bn_groups": 4}, True), (4, {"norm": "group"}, False), (4, VIT, False)],
)
def test_keys_are_shuffled_wherever_batch_norm_is_of_a_part_of_the_batch(chunks, fields, shuffles, load_small):
    """Microbatches are groups as well."""
    config = load_small("moco_v2")
    config.encoder.update({"bn_groups": None} | fields)
    shuffled, _ = build_method(config, 5, chunks)._shuffle(jnp.arange(16.0), jax.random.key(0), None)
    assert np.array_equal(shuffled, np.arange(16)) != shuffles


@pytest.mark.parametrize("name", ["moco_v1", "moco_v2"])
def test_mocos_loss_shuffles_keys_alone_and_brings_them_back(name, prepare, monkeypatch):
    """Queries go through the encoder in their order and keys in another; what enters the queue has the old one."""
    method, state, views = prepare(name)
    assert method.encoder.bn_groups == 4
    seen = []

    def watch(module, params, statistics, x, *rest, **options):
        y, statistics = run(module, params, statistics, x, *rest, **options)
        seen.append((x, y))
        return y, statistics

    monkeypatch.setattr(import_module("ssljax.methods.images.image_method"), "run", watch)

    def traced(state, views):
        _, aux = method.loss(state.params, state, views, jax.random.key(2), None)
        return list(seen), aux["keys"], aux["embeddings"][1]

    ((queries, _), _, (shuffled, _), (_, embedded)), keys, own = jax.jit(traced)(state, views)
    np.testing.assert_array_equal(queries, views[0])
    places = [np.flatnonzero((shuffled == image).all(axis=(1, 2, 3))).item() for image in views[1]]
    assert sorted(places) == list(range(16)) != places
    embedded = np.asarray(embedded)[places]
    expected = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
    np.testing.assert_allclose(keys, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(own, keys)


# What is compared with what -------------------------------------------------------------------------------------------


@pytest.fixture
def compared(monkeypatch):
    """`compared(method, loss, state, views)`: the step's loss where each call of the function `loss` gives 1, and what
    it was called with."""

    def of(method, loss, state, views):
        calls = []

        def watch(first, second, *rest, **options):
            calls.append((first, second, *rest))
            return jnp.float32(1)

        module = import_module(type(method).__module__)
        monkeypatch.setattr(module, loss, watch)

        def traced(state, views):
            value, _ = method.loss(state.params, state, views, jax.random.key(2), None)
            return value, list(calls)

        return jax.jit(traced)(state, views)

    return of


@pytest.mark.parametrize(
    "name, loss, fields",
    [
        ("simclr", "nt_xent", {"temperature": 0.3, "convention": "mean"}),
        ("simclr", "nt_xent", {"temperature": 0.4, "convention": "sum"}),
        ("simclr_v2", "info_nce", {"temperature": 0.3}),
        ("moco_v1", "info_nce", {"temperature": 0.3}),
        ("moco_v2", "info_nce", {"temperature": 0.3}),
        ("moco_v3", "info_nce", {"temperature": 0.3}),
        ("barlow_twins", "barlow_twins", {"weight": 0.3}),
        ("vicreg", "vicreg", {"invariance": 2.0, "variance": 3.0, "covariance": 4.0, "convention": "sum"}),
        ("vicreg", "vicreg", {"invariance": 5.0, "variance": 6.0, "covariance": 7.0, "convention": "mean"}),
        ("swav", "sinkhorn", {"epsilon": 0.3, "iterations": 5}),
    ],
)
def test_losses_are_given_the_methods_numbers(name, loss, fields, prepare, monkeypatch):
    method, state, views = prepare(name, **fields)
    module = next(m for m in map(import_module, (c.__module__ for c in type(method).__mro__)) if hasattr(m, loss))
    original, given = getattr(module, loss), []

    def watch(*arrays, **options):
        given.append(inspect.signature(original).bind(*arrays, **options).arguments)
        return original(*arrays, **options)

    monkeypatch.setattr(module, loss, watch)
    jax.eval_shape(lambda s, v: method.loss(s.params, s, v, jax.random.key(2), None)[0], state, views)
    assert given and all({field: call.get(field) for field in fields} == fields for call in given)


def test_barlow_twins_loss_is_multiplied_by_its_scale(prepare, compared):
    method, state, views = prepare("barlow_twins", scale=0.024)
    np.testing.assert_allclose(compared(method, "barlow_twins", state, views)[0], 0.024, rtol=1e-6)


def is_blank(x):
    """Whether all images got the same."""
    return bool(np.abs(x - x[:1]).max() < 1e-5)


@pytest.mark.parametrize(
    "name, loss, fields, total",
    [
        ("byol", "cosine_regression", {}, 2.0),
        ("simsiam", "negative_cosine", {}, 1.0),
        ("moco_v3", "info_nce", {"temperature": 0.2}, 2 * 0.2 * 2),
        ("simclr_v2", "info_nce", {"convention": "sum"}, 2.0),
        ("simclr_v2", "info_nce", {"convention": "mean"}, 1.0),
    ],
)
def test_each_view_foretells_the_other(name, loss, fields, total, prepare, compared):
    """The second view is blank. Both directions are summed, in SimSiam averaged, and in MoCo v3 times 2 T."""
    method, state, (view, blank) = prepare(name, **fields)
    value, calls = compared(method, loss, state, (view, jnp.zeros_like(blank)))
    np.testing.assert_allclose(value, total, rtol=1e-6)
    assert [(is_blank(p), is_blank(z)) for p, z, *_ in calls] == [(False, True), (True, False)]


@pytest.mark.parametrize("name, loss", [("swav", "swav"), ("dino", "dino"), ("ibot", "dino"), ("dinov2", "dino")])
def test_targets_stand_in_the_order_of_their_views(name, loss, prepare, compared):
    """So that the same view is the one that is skipped: DINOv2's code has the teacher's in reverse for that."""
    fields = {"mask_probability": 0.0} if name in ("ibot", "dinov2") else {}
    method, state, views = prepare(name, **fields)
    crops, *hidden = views if name == "ibot" else (views,)
    crops = (crops[0], jnp.zeros_like(crops[1]), *crops[2:])
    _, ((student, teacher, *_),) = compared(method, loss, state, (crops, *hidden) if hidden else crops)
    assert [is_blank(x) for x in student] == [False, True, False, False]
    assert [is_blank(x) for x in teacher] == [False, True]


def test_ibots_patches_are_compared_with_those_of_the_same_crop(prepare, compared):
    method, state, ((first, second, *local), hidden) = prepare("ibot", mask_probability=0.0)
    views = (first, jnp.zeros_like(second), *local), hidden
    _, ((student, teacher, _),) = compared(method, "ibot_patches", state, views)
    for patches in (student, teacher):
        assert [is_blank(x) for x in jnp.split(patches, 2)] == [False, True]


def test_ibots_weights_are_of_the_patches_that_the_student_does_not_see(prepare, forwards, monkeypatch):
    """1 / (number hidden of the crop) where a patch is hidden, of a batch in whose second view none is."""
    method, state, (crops, (first, second)) = prepare("ibot", mask_probability=1.0)
    hidden, weights = (first, jnp.zeros_like(second)), []

    def watch(student, teacher, weight, *, temperature):
        weights.append(weight)
        return jnp.float32(0)

    monkeypatch.setattr(import_module(type(method).__module__), "ibot_patches", watch)

    def traced(state, crops, hidden):
        method.loss(state.params, state, (crops, hidden), jax.random.key(2), None)
        (masked,) = (options["masked"] for _, _, options in forwards if options.get("masked") is not None)
        return masked, weights[0]

    masked, weight = (np.asarray(x).reshape(32, -1) for x in jax.jit(traced)(state, crops, hidden))
    np.testing.assert_array_equal(masked, np.concatenate(hidden).reshape(32, -1))
    np.testing.assert_array_equal(weight > 0, masked > 0)
    shares = np.split(weight.reshape(32, -1).sum(axis=1), 2)
    np.testing.assert_allclose(shares[0], shares[0][0], rtol=1e-5)
    assert not shares[1].any()


def test_ibots_loss_is_that_of_class_tokens_and_weighted_that_of_patches(prepare):
    loss, aux = losses(*prepare("ibot", patch_weight=0.5))
    of_classes, of_patches = (float(aux["metrics"][name]) for name in ("class_loss", "patch_loss"))
    assert of_classes > 0.1 and of_patches > 0.1
    np.testing.assert_allclose(loss, of_classes + 0.5 * of_patches, rtol=1e-6)


def test_ibots_centre_is_of_all_patches_and_dinov2s_of_the_hidden_ones(prepare, monkeypatch):
    """Of class tokens both have all; slots of DINOv2's that hold no hidden patch do not count. Its patches weigh as
    much as the crops that have hidden ones, which are half of all."""
    for name in ("ibot", "dinov2"):
        method, state, views = prepare(name)
        module, count, slots = import_module(type(method).__module__), {}, {}

        def center(center, logits, momentum, *, count=count, slots=slots, weights=None, axis=None):
            of = "patches" if "classes" in count else "classes"
            slots[of] = logits.size // logits.shape[-1]
            count[of] = jnp.float32(slots[of]) if weights is None else weights.sum()
            return center

        def patches(student, teacher, weights, *, count=count, temperature):
            count["hidden"], count["percent"] = (weights > 0).sum(), 100 * weights.sum() + 0.5
            return jnp.float32(0)

        monkeypatch.setattr(module, "ema_center", center)
        monkeypatch.setattr(module, "ibot_patches", patches)

        def counted(state, views, method=method, count=count):
            method.loss(state.params, state, views, jax.random.key(2), None)
            return count

        found = {of: int(n) for of, n in jax.jit(counted)(state, views).items()}
        assert found["classes"] == 2 * 16 and 0 < found["hidden"] < 0.5 * 2 * 16 * 16
        assert found["patches"] == (2 * 16 * 16 if name == "ibot" else found["hidden"])
        assert slots["patches"] > found["hidden"]
        assert name == "ibot" or found["percent"] == 50


def test_koleo_is_of_the_encoders_class_tokens_of_each_global_view(prepare, monkeypatch):
    """Before the head, and summed over the two views; dinov2#143: without it nothing keeps features apart."""
    method, state, views = prepare("dinov2", koleo_weight=0.5)
    module, seen = import_module(type(method).__module__), []

    def watch(features, axis):
        seen.append(features)
        return jnp.float32(100)

    loss = float(losses(method, state, views)[1]["metrics"]["class_loss"])
    monkeypatch.setattr(module, "koleo", watch)
    value, aux = losses(method, state, views)
    assert [x.shape for x in seen] == 2 * [(16, method.encoder.width)]
    rest = float(aux["metrics"]["class_loss"] + aux["metrics"]["patch_loss"])
    np.testing.assert_allclose(aux["metrics"]["class_loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(value, rest + 0.5 * 200, rtol=1e-5)


def test_ijepa_predicts_each_block_by_itself(prepare, monkeypatch):
    method, state, views = prepare("ijepa")
    module, shapes = import_module(type(method).__module__), []
    original = module.infer

    def watch(predictor, *arrays, **options):
        shapes.append([x.shape for x in arrays[2:]])
        return original(predictor, *arrays, **options)

    monkeypatch.setattr(module, "infer", watch)
    jax.eval_shape(lambda s, v: method.loss(s.params, s, v, jax.random.key(2), None)[0], state, views)
    ((context, _, _, places, _),) = shapes
    assert context[0] == places[0] == 16 * method.targets and len(places) == 2


@pytest.mark.parametrize("norm", ["layer", "instance"])
def test_ijepas_targets_are_normalised_over_the_whole_image_and_then_taken_out(norm, prepare, monkeypatch):
    """LayerNorm of each token's features, of a target encoder that saw all patches; before it perhaps InstanceNorm."""
    method, state, views = prepare("ijepa", target_norm=norm)
    monkeypatch.setattr(
        import_module(type(method).__module__), "smooth_l1", lambda prediction, target, **options: target
    )

    def targets(state, views):
        return method.loss(state.params, state, views, jax.random.key(2), None)[0]

    found = jax.jit(targets)(state, views)
    images, mask_keys, _ = views
    tokens, _ = run(method.encoder, state.target["params"]["encoder"], {}, images, method="tokens")
    whole = standardized(standardized(tokens, axis=1) if norm == "instance" else tokens)
    places = np.asarray(method._mask(mask_keys, jax.random.key(2), None).target).reshape(16, -1)
    np.testing.assert_allclose(found, np.take_along_axis(whole, places[:, :, None], axis=1), rtol=1e-3, atol=1e-3)


def test_ijepas_predictor_tells_tokens_by_their_places():
    """The order of tokens does not matter, and where they are does: of the context's, and of those asked for."""
    predictor, random = Predictor(8, 1, 2, 6, (4, 4)), np.random.RandomState(0)
    context = random.standard_normal((1, 5, 6)).astype(np.float32)
    places, asked = np.array([[3, 0, 14, 9, 6]]), np.array([[1, 12, 7]])
    shapes = jax.eval_shape(predictor.init, jax.random.key(0), context, places, places >= 0, asked, asked >= 0)
    variables = jax.tree.map(lambda x: random.standard_normal(x.shape).astype(x.dtype), shapes)

    @jax.jit
    def predict(context, places, asked):
        return predictor.apply(variables, context, places, places >= 0, asked, asked >= 0)

    found = predict(context, places, asked)
    np.testing.assert_allclose(predict(context[:, ::-1], places[:, ::-1], asked), found, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(predict(context, places, asked[:, ::-1]), found[:, ::-1], rtol=1e-4, atol=1e-6)
    assert np.abs(predict(context, places[:, ::-1], asked) - found).max() > 1e-3
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(found[0, a] - found[0, b]).max() > 1e-3


def standardized(tokens, axis=-1):
    """LayerNorm without scale and offset, or over axis 1 InstanceNorm, in NumPy."""
    tokens = np.asarray(tokens, np.float64)
    return (tokens - tokens.mean(axis, keepdims=True)) / np.sqrt(tokens.var(axis, keepdims=True) + 1e-5)


def smooth_l1_of(x, beta):
    """In NumPy."""
    x = np.abs(np.asarray(x, np.float64))
    return np.where(x < beta, x * x / (2 * beta), x - beta / 2)


@pytest.mark.parametrize("norm, axis", [("layer", -1), ("instance", 1)])
def test_data2vecs_loss_is_of_the_hidden_patches_alone(norm, axis, prepare):
    """With beta 2, of all hidden patches of the batch alike; what is seen does not count."""
    method, state, views = prepare("data2vec", layers=2, mask_ratio=0.4, target_norm=norm)
    (images, hidden, _), prefix = views, method.encoder.num_prefix
    teacher, student = state.target["params"]["encoder"], state.params["encoder"]
    blocks, _ = run(method.encoder, teacher, {}, images, method="tokens", last=2, norm=False)
    tokens, _ = run(method.encoder, student, {}, images, method="tokens", masked=hidden)
    target = standardized(np.mean([standardized(block[:, prefix:], axis) for block in blocks], axis=0))
    head = state.params["head"]
    patches = np.asarray(tokens[:, prefix:], np.float64)
    gaps = smooth_l1_of(patches @ np.asarray(head["kernel"], np.float64) + np.asarray(head["bias"]) - target, 2.0)
    mask = np.asarray(hidden).reshape(16, -1) > 0
    assert 0 < mask.sum() < mask.size
    np.testing.assert_allclose(losses(method, state, views)[0], gaps[mask].mean(), rtol=1e-4)


def test_ijepas_loss_compares_each_prediction_with_the_token_of_its_place(prepare):
    """With beta 1; block by block, from the same context."""
    method, state, views = prepare("ijepa", target_norm="layer")
    images, mask_keys, _ = views
    mask = method._mask(mask_keys, jax.random.key(2), None)
    tokens, _ = run(method.encoder, state.target["params"]["encoder"], {}, images, method="tokens")
    whole = standardized(tokens)
    seen = {"keep": mask.context, "valid": mask.context_valid}
    context, _ = run(method.encoder, state.params["encoder"], {}, images, method="tokens", **seen)
    gaps = []
    for block in range(method.targets):
        places, valid = mask.target[:, block], mask.target_valid[:, block]
        seen = context, mask.context, mask.context_valid
        prediction = infer(method.predictor, state.params["predictor"], {}, *seen, places, valid)
        gaps.append(smooth_l1_of(prediction - np.take_along_axis(whole, np.asarray(places)[:, :, None], axis=1), 1.0))
    loss, aux = losses(method, state, views)
    np.testing.assert_allclose(loss, np.mean(gaps), rtol=1e-4)
    assert method.stop(10**6, aux["metrics"]) is None


def test_what_fills_ijepas_masks_up_changes_nothing(prepare, monkeypatch):
    """Places that are not valid are seen by no token, and no prediction there counts."""
    method, state, views = prepare("ijepa", mask="reference", target_scale=(0.3, 0.4), min_keep=1)
    mask = method._mask(views[1], jax.random.key(2), None)
    assert not mask.context_valid.all() and not mask.target_valid.all()
    found = []
    for place in (0, 5):
        context = jnp.where(mask.context_valid, mask.context, place)
        filled_up = mask.replace(context=context, target=jnp.where(mask.target_valid, mask.target, place))
        monkeypatch.setattr(type(method), "_mask", lambda *_, filled_up=filled_up: filled_up)
        found.append(float(losses(method, state, views)[0]))
    np.testing.assert_allclose(*found, rtol=1e-6)


def test_equal_logits_have_a_loss_of_ln_k(prepare):
    """However many the pairs of crops are; a loss that stays there has collapsed."""
    for name, fields, k in (("swav", {"temperature": 1e4}, 12), ("dino", {"student_temperature": 1e4}, 24)):
        np.testing.assert_allclose(losses(*prepare(name, **fields))[0], np.log(k), rtol=1e-3)


def test_barlow_twins_loss_is_logged_for_each_dimension_too(prepare):
    loss, aux = losses(*prepare("barlow_twins"))
    np.testing.assert_allclose(aux["metrics"]["loss_per_dimension"], loss / 16, rtol=1e-6)


# NPID -----------------------------------------------------------------------------------------------------------------


def test_npids_bank_takes_the_mean_where_an_image_is_twice_in_a_batch(prepare):
    """v <- normalised (m v + (1 - m) f), whatever the order in which rows are written."""
    method, state, _ = prepare("npid", bank_momentum=0.25)
    random = np.random.RandomState(0)
    f = random.standard_normal((4, 8)).astype(np.float32)
    aux = {"model_state": state.model_state, "log_z": jnp.float32(1), "index": jnp.array([7, 3, 7, 0]), "embedded": f}
    bank = np.asarray(method.update(state, aux, None).extra["bank"])
    expected = np.array(state.extra["bank"])
    for row, new in ((7, (f[0] + f[2]) / 2), (3, f[1]), (0, f[3])):
        moved = 0.25 * expected[row] + 0.75 * new
        expected[row] = moved / np.linalg.norm(moved)
    np.testing.assert_allclose(bank, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("noise", [0, 16])
def test_npids_noise_is_never_of_the_rows_that_only_fill_the_bank_up(noise, prepare):
    method, state, views = prepare("npid", noise=noise)
    bank = state.extra["bank"]
    full = state.replace(extra=state.extra | {"bank": bank.at[EXAMPLES:].set(1e3)})
    assert float(losses(method, full, views)[0]) == float(losses(method, state, views)[0])


def test_npids_noise_is_drawn_with_replacement_and_may_be_the_own_image(prepare, monkeypatch):
    """As the authors draw it: 400 times of 80 images, so some more than once, and nearly always the own one too."""
    method, state, views = prepare("npid", noise=400)
    monkeypatch.setattr(import_module(type(method).__module__), "nce", lambda own, others, *_: (own, others))
    found = jax.jit(lambda state, views: method.loss(state.params, state, views, jax.random.key(2), None)[0])
    own, others = (np.asarray(x) for x in found(state, views))
    assert others.shape == (16, 400)
    assert (np.abs(others - own[:, None]) < 1e-6).any(axis=1).mean() > 0.9
    for row in others:
        assert (np.diff(np.sort(row)) < 1e-6).any()


def test_npid_says_what_its_batches_need(load_small, batches):
    method = build_method(load_small("npid"), 5, examples=EXAMPLES)
    without = {name: x for name, x in batches[0].items() if name != "index"}
    with pytest.raises(ValueError, match="give the batch an 'index'"):
        method.views(example_keys(jax.random.key(0), 16), without)


# Networks -------------------------------------------------------------------------------------------------------------


def layers(head):
    """Of each layer: "bias" where it has one, and the norm that follows."""
    x = jnp.zeros((2, 4))
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), x, train=True))
    described = []
    for i in range(1, 1 + len(head.widths)):
        words = ["bias"] if "bias" in shapes["params"][f"dense{i}"] else []
        if f"norm{i}" in shapes.get("batch_stats", {}):
            words.append("+".join(["norm", *sorted(shapes["params"].get(f"norm{i}", {}), reverse=True)]))
        described.append(" ".join(words))
    return described


NORM = "norm+scale+bias"


@pytest.mark.parametrize(
    "name, variant, projector, predictor",
    [
        ("npid", "imagenet", ["bias"], None),
        ("simclr", "imagenet", [NORM, "norm+scale"], None),
        ("simclr_v2", "imagenet", [NORM, NORM, "norm+scale"], None),
        ("moco_v1", "imagenet", ["bias"], None),
        ("moco_v2", "imagenet", ["bias", "bias"], None),
        ("moco_v3", "imagenet", [NORM, "norm"], [NORM, ""]),
        ("moco_v3", "imagenet_vit", [NORM, NORM, "norm"], [NORM, "norm"]),
        ("byol", "imagenet", [f"bias {NORM}", ""], [f"bias {NORM}", ""]),
        ("simsiam", "imagenet", [NORM, NORM, "norm"], [NORM, "bias"]),
        ("swav", "imagenet", [f"bias {NORM}", "bias"], None),
        ("barlow_twins", "imagenet", [NORM, NORM, ""], None),
        ("vicreg", "imagenet", 2 * [f"bias {NORM}"] + [""], None),
    ],
)
def test_heads_have_the_biases_and_norms_of_the_papers(name, variant, projector, predictor, load_config):
    config = load_config(CONFIGS / f"{name}.py", variant)
    method = build_method(config, 5, examples=EXAMPLES)
    assert layers(method.head) == projector
    assert predictor is None or layers(method.predictor_head) == predictor


@pytest.mark.parametrize("name", ["data2vec", "ijepa"])
def test_a_run_stops_when_targets_or_predictions_have_collapsed(name, load_small):
    method = build_method(load_small(name), 5)
    healthy = {"target_std": 0.5, "prediction_std": 0.05}
    assert method.stop(10**6, healthy) is None
    for name, low in (("target_std", 0.09), ("prediction_std", 0.009)):
        assert method.stop(method.collapse_after - 1, healthy | {name: low}) is None
        assert method.stop(method.collapse_after, healthy | {name: low}).startswith(f"{name} is {low}")


@pytest.mark.parametrize("norm", ["layer", "instance"])
@pytest.mark.parametrize("name", ["data2vec", "ijepa"])
def test_targets_that_are_nearly_the_same_stop_a_run_whatever_their_norm(name, norm, prepare):
    """A vector that all patches share, and a thousandth of what tells them apart."""
    method, state, views = prepare(name, target_norm=norm)
    encoder = state.target["params"]["encoder"]
    embed, positions = encoder["patch_embed"], 1e-3 * encoder["positions"]
    embed = {"kernel": 1e-3 * embed["kernel"], "bias": jax.random.normal(jax.random.key(0), embed["bias"].shape)}
    same = {"params": {"encoder": encoder | {"patch_embed": embed, "positions": positions}}}
    of = partial(losses, method, views=views)
    healthy, collapsed = (of(state.replace(target=target))[1]["metrics"] for target in (state.target, same))
    assert healthy["target_std"] > 0.1
    assert method.stop(10**6, {**collapsed, "prediction_std": 1.0}).startswith("target_std")


def test_simsiams_predictor_keeps_the_rate_at_its_peak(load_small, monkeypatch):
    """0.05 · 16 / 256, whatever the schedule of the rest."""
    config, seen = load_small("simsiam"), {}

    def watch(*args, **options):
        seen.update(options)
        return make_optimizer(*args, **options)

    monkeypatch.setattr("ssljax.build.make_optimizer", watch)
    config.optimizer.update(learning_rate=0.05, scaling="linear", warmup_epochs=2.0)
    build_run(config, examples=80, example=EXAMPLE, mesh=make_mesh(1, 1, jax.devices()[:1]))
    assert seen["constant"] == ("predictor",) and seen["constant_rate"] == 0.05 * 16 / 256


@pytest.mark.parametrize("epochs, steps, frozen", [(0.3, 1, True), (2.0, 2, True), (-1.0, 0, True), (0.0, 0, False)])
def test_what_rests_for_a_part_of_an_epoch_rests_for_a_step_at_least(epochs, steps, frozen, load_small, monkeypatch):
    """With 20 images an epoch has 1.25 steps; 0 steps would be the whole run."""
    config, seen = load_small("swav"), {}

    def watch(*args, **options):
        seen.update(options)
        return make_optimizer(*args, **options)

    monkeypatch.setattr("ssljax.build.make_optimizer", watch)
    config.optimizer.freeze_epochs = epochs
    build_run(config, examples=20, example=EXAMPLE, mesh=make_mesh(1, 1, jax.devices()[:1]))
    assert (seen["freeze_steps"], bool(seen["freeze"])) == (steps, frozen)


# Any batch that the mesh divides --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAGES)
def test_batches_of_any_size_that_the_mesh_divides(name, load_small, batches):
    """12 on 2 x 2 devices, 6 on 2 x 1 and 5 on one; groups of BatchNorm must divide."""
    config = load_small(name)
    config.encoder.bn_groups = None
    for queue in ("queue", "memory"):
        if queue in config.method:
            config.method[queue] = 34
    method = build_method(config, 5, examples=EXAMPLES)
    for size, shape in ((12, (2, 2)), (6, (2, 1)), (5, (1, 1))):
        mesh = make_mesh(*shape, devices=jax.devices()[: shape[0] * shape[1]])
        _, step, abstract = make_train(method, optax.sgd(0.01), mesh, batches[0])
        batch = jax.tree.map(lambda x, n=size: jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype), batches[0])
        jax.eval_shape(step, abstract, batch)


@pytest.mark.parametrize(
    "name, section, fields, sentence",
    [
        ("moco_v2", "method", {"queue": 8}, "a queue of 8 keys cannot take the 16 of a batch"),
        ("simclr_v2", "method", {"memory": 24}, "a queue of 24 keys cannot take the 32 of a batch"),
        ("swav", "method", {"queue": 8}, "queue=8 must be .* no smaller than a batch, which has 16"),
        ("moco_v1", "encoder", {"bn_groups": 5}, "5 BatchNorm groups do not fit a batch of 16"),
        ("dino", "views", {"local_size": 10}, "let encoder.patch divide views.size, and views.local_size"),
    ],
)
def test_what_does_not_fit_a_batch_is_refused(name, section, fields, sentence, load_small, batches):
    config = load_small(name)
    config[section].update(fields)
    with pytest.raises(ValueError, match=sentence):
        method = build_method(config, 5, examples=EXAMPLES)
        _, step, abstract = make_train(method, optax.sgd(0.01), make_mesh(1, 1, jax.devices()[:1]), batches[0])
        jax.eval_shape(step, abstract, batches[0])


@pytest.mark.parametrize(
    "name, refusal",
    [
        ("byol", "BatchNorm makes zeros of one example"),
        ("simsiam", "BatchNorm makes zeros of one example"),
        ("swav", "share prototypes out among one image"),
        ("dino", None),
        ("data2vec", None),
    ],
)
def test_a_batch_of_one_image_is_refused_where_nothing_could_be_learnt(name, refusal, load_small, batches):
    """And where it can, no statistic of a batch is logged, for the alarm would be false."""
    config = load_small(name)
    if name == "swav":
        config.method.queue = 0
    method = build_method(config, 5, examples=EXAMPLES)
    one = jax.tree.map(lambda x: x[:1], batches[0])
    _, step, abstract = make_train(method, optax.sgd(0.01), make_mesh(1, 1, jax.devices()[:1]), one)
    if refusal:
        with pytest.raises(ValueError, match=refusal):
            jax.eval_shape(step, abstract, one)
    else:
        assert "feature_std" not in jax.eval_shape(step, abstract, one)[1]


def test_koleo_that_weighs_nothing_asks_nothing_of_the_batch(load_small, batches):
    config = load_small("dinov2")
    config.method.koleo_weight = 0.0
    one = jax.tree.map(lambda x: x[:1], batches[0])
    method = build_method(config, 5, examples=EXAMPLES)
    _, step, abstract = make_train(method, optax.sgd(0.01), make_mesh(1, 1, jax.devices()[:1]), one)
    jax.eval_shape(step, abstract, one)
