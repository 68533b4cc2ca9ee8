"""Methods that start from a run: what they take over, what they leave alone, and what they need."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ssljax
from ssljax.build import build_method, build_run, open_run, settle, training_source
from ssljax.config import recall
from ssljax.data.pipeline import train_dataset
from ssljax.data.sources import DataError, open_source
from ssljax.data.subset import Share
from ssljax.engine.mesh import make_mesh
from ssljax.engine.step import make_train
from ssljax.train import train

EXAMPLES = 80
TAUGHT = ["fine_tune", "distill", "dinov2_distill"]


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def differ(a, b):
    return any(not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.fixture
def started(load_small, batches):
    """`started(name)`: the state of a run on 2 x 2 devices, all drawn, as it starts, and its teacher's."""

    def start(name):
        config = load_small(name)
        example = jax.tree.map(lambda x: x[:2], batches[0])
        run = build_run(config, examples=EXAMPLES, example=example, mesh=make_mesh(2, 2))
        drawn, state = run.init(), run.start()
        assert jax.tree.map(lambda x: x.sharding, drawn) == jax.tree.map(lambda x: x.sharding, state)
        _, _, teacher = open_run(Path(config.method.teacher))
        return jax.device_get((drawn, state, teacher))

    return start


def test_fine_tuning_goes_on_from_the_encoder_and_the_projectors_first_layer(started):
    drawn, state, teacher = started("fine_tune")
    assert_equal(state.params["encoder"], teacher.params["encoder"])
    assert_equal(state.model_state["encoder"], teacher.model_state["encoder"])
    assert differ(drawn.params["encoder"], state.params["encoder"])
    assert set(state.params["projector"]) == {"dense1", "norm1"} and len(teacher.params["projector"]) == 6
    assert_equal(state.params["projector"], {name: teacher.params["projector"][name] for name in ("dense1", "norm1")})
    assert not any(x.any() for x in jax.tree.leaves(state.params["classifier"]))


@pytest.mark.parametrize("head_layer, parameters", [(0, 0), (1, 2), (3, 6)])
def test_any_number_of_the_projectors_layers_stays(head_layer, parameters, load_small, batches):
    config = load_small("fine_tune")
    config.method.head_layer = head_layer
    method = build_method(config, 5)
    state = method.init(jax.random.key(0), batches[0])
    assert len(state.params["projector"]) == parameters
    projector = recall(Path(config.method.teacher)).method.projector
    z = method.head.apply(
        {"params": state.params["projector"], **state.model_state["projector"]}, jnp.ones((2, 16)), train=False
    )
    assert z.shape == (2, (16, *projector)[head_layer])
    assert (z.min() >= 0) == (head_layer < 3)  # ReLU follows all layers but the last


def test_the_distilled_students_teacher_is_the_run(started):
    drawn, state, teacher = started("distill")
    theirs = {"params": teacher.params, "model_state": teacher.model_state}
    assert_equal(state.target["teacher"], theirs)
    assert differ(drawn.target["teacher"], theirs)
    assert_equal(drawn.params, state.params)


def test_dinov2s_teacher_is_the_runs_average_and_the_students_average_is_its_own(started):
    drawn, state, teacher = started("dinov2_distill")
    assert_equal(state.target["teacher"], {"params": teacher.target["params"]})
    assert differ(drawn.target["teacher"], state.target["teacher"])
    assert_equal(state.target["params"], state.params)
    assert_equal(state.extra, teacher.extra)


def test_dinov2s_student_is_judged_by_its_average(load_small, batches):
    method = build_method(load_small("dinov2_distill"), 5)
    init, step, _ = make_train(method, optax.sgd(0.1), make_mesh(1, 1, jax.devices()[:1]), batches[0])
    before = jax.device_get(init())
    state, metrics = step(init(), batches[0])
    momentum = method.momentum
    for got, old, new in zip(*map(jax.tree.leaves, (state.target["params"], before.params, state.params)), strict=True):
        np.testing.assert_allclose(got, momentum * old + (1 - momentum) * new, rtol=1e-5, atol=1e-7)
    features = method.features(state, batches[0])
    swapped = state.replace(params=before.params)
    np.testing.assert_array_equal(features, method.features(swapped, batches[0]))
    assert {"class_loss", "patch_loss", "koleo"} <= set(metrics)


@pytest.fixture(scope="module")
def chain(load_small, tmp_path_factory):
    """The folders of runs of a few steps each: SimCLR v2, fine-tuned, distilled; the first one is gone by now."""
    root, folders = tmp_path_factory.mktemp("chain"), {}
    teacher = ""
    for name in ("simclr_v2", "fine_tune", "distill"):
        config = load_small(name)
        config.steps, config.evaluate.every, config.log.every = 3, 0, 1
        if teacher:
            config.method.teacher = teacher
        teacher = str(root / name)
        assert train(config, root / name) == 0
        folders[name] = root / name
    shutil.rmtree(folders["simclr_v2"])
    return folders


def test_a_run_needs_its_teacher_no_more(chain):
    images = np.random.RandomState(0).randint(0, 255, (3, 20, 20, 3), np.uint8)
    for name, dim in (("fine_tune", 16), ("distill", 12)):
        assert ssljax.load(chain[name])(images).shape == (3, dim)
    _, _, teacher = open_run(chain["fine_tune"])
    _, _, student = open_run(chain["distill"])
    assert_equal(student.target["teacher"], {"params": teacher.params, "model_state": teacher.model_state})


def test_fine_tuning_learns_the_classes(load_small, batches):
    """Images of which each class has a brightness of its own; so does the student that never saw a label."""
    labels = jnp.arange(16) % 2
    images = jnp.broadcast_to((60 + 120 * labels)[:, None, None, None], (16, 20, 20, 3)).astype(jnp.uint8)
    batch = {"image": images, "index": jnp.arange(16), "label": labels}
    mesh, accuracies, taught = make_mesh(1, 1, jax.devices()[:1]), {}, None
    for name in ("fine_tune", "distill"):
        method = build_method(load_small(name), 5)
        init, step, _ = make_train(method, optax.adam(3e-3), mesh, batch)
        state = init()
        if taught is not None:
            state = method.begin(state, jax.tree.map(jnp.copy, taught))
        for _ in range(40):
            state, _ = step(state, batch)
        taught = state
        accuracies[name] = float((method.classify(state, batch).argmax(-1) == labels).mean())
    assert accuracies == {"fine_tune": 1.0, "distill": 1.0}


def test_without_memory_it_is_simclr(load_small, batches):
    config = load_small("simclr_v2")
    losses, states = {}, {}
    for name, memory in (("simclr", None), ("simclr_v2", 0), ("memory", 64)):
        if name == "simclr":
            other = load_small("simclr")
            other.method.projector = config.method.projector
            method = build_method(other, 5)
        else:
            config.method.memory = memory
            method = build_method(config, 5)
        variables = method.init(jax.random.key(0), batches[0])
        views = method.views(jax.random.split(jax.random.key(0), 16), batches[0])
        losses[name] = float(method.loss(variables.params, variables, views, jax.random.key(1), None)[0])
        states[name] = variables
    assert losses["simclr"] == losses["simclr_v2"] != losses["memory"]
    assert states["simclr_v2"].target == {} == states["simclr_v2"].extra
    assert len(states["memory"].params["projector"]) == 6


def test_the_memory_holds_the_keys_of_both_views(load_small, batches):
    method = build_method(load_small("simclr_v2"), 5)
    init, step, _ = make_train(method, optax.sgd(0.01), make_mesh(1, 1, jax.devices()[:1]), batches[0])
    before = jax.device_get(init())
    after = jax.device_get(step(init(), batches[0])[0])
    moved = (before.extra["queue"] != after.extra["queue"]).any(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(moved), np.arange(32))
    np.testing.assert_allclose(np.linalg.norm(after.extra["queue"], axis=1), 1, rtol=1e-6)
    assert int(after.extra["pointer"]) == 32
    # The momentum network takes its step with the weights of before, which were its own.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8), after.target["params"], before.params
    )


def test_a_share_of_each_class():
    source = open_source("demo", "train")
    for share, each in ((0.1, 80), (0.00001, 1), (1.0, 800)):
        part = Share(source, share)
        np.testing.assert_array_equal(np.bincount(part.labels()), [each] * 10)
        assert [int(part[i]["label"]) for i in range(3)] == part.labels()[:3].tolist()
    places = [Share(source, 0.1, seed=seed)._places for seed in (0, 0, 1)]
    np.testing.assert_array_equal(places[0], places[1])
    assert len(set(places[0]) & set(places[2])) < 200
    for share in (0.0, 1.5, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"must be a share of the examples in \(0, 1\]"):
            Share(source, share)


def test_only_who_asks_is_given_labels(load_small):
    source = open_source("demo", "train")
    options = {"batch_size": 8, "seed": 0}
    batch = train_dataset(source, **options, labels=True)[0]
    np.testing.assert_array_equal(batch["label"], source.labels()[batch["index"]])
    assert "label" not in train_dataset(source, **options)[0]
    config = load_small("fine_tune")
    assert len(training_source(config)) == 800
    config.method.classes = 0
    settle(config, training_source(config))
    assert config.method.classes == 10
    config.method.classes = 9
    with pytest.raises(ValueError, match="has 10 classes: --config.method.classes must not be fewer"):
        settle(config, training_source(config))
    config = load_small("distill")
    config.data.labelled = 0.5
    with pytest.raises(ValueError, match="which uses no labels: leave it at 1"):
        training_source(config)


def test_no_labels(load_small, tmp_path):
    np.savez(tmp_path / "images.npz", train_image=np.zeros((4, 8, 8, 3), np.uint8))
    config = load_small("fine_tune")
    config.data.source = f"npz:{tmp_path / 'images.npz'}"
    with pytest.raises(DataError, match="has no labels, which method 'fine_tune' needs"):
        train(config, tmp_path / "run")
    with pytest.raises(DataError, match="has no labels, which this method needs"):
        train_dataset(open_source(config.data.source, "train"), batch_size=2, seed=0, labels=True)


@pytest.mark.parametrize("name", TAUGHT)
def test_a_teacher_must_be_named_and_there(name, load_small, tmp_path):
    config = load_small(name)
    config.method.teacher = ""
    with pytest.raises(ValueError, match="starts from a run of .*: set --config.method.teacher to its folder"):
        build_method(config, 5)
    config.method.teacher = str(tmp_path)
    with pytest.raises(ValueError, match="holds no run"):
        build_method(config, 5)
    config.method.teacher = load_small({"fine_tune": "distill"}.get(name, "fine_tune")).method.teacher
    with pytest.raises(ValueError, match="starts from a run of .*, but --config.method.teacher is one of"):
        build_method(config, 5)


@pytest.mark.parametrize(
    "name, section, fields, sentence",
    [
        ("fine_tune", "method", {"head_layer": 4}, "one of the projector's 3 layers, or 0"),
        ("fine_tune", "method", {"classes": 0}, "at least 2 classes: set --config.method.classes"),
        ("fine_tune", "views", {"name": "simclr"}, "sees one view, but the recipe draws 2"),
        ("fine_tune", "views", {"mean": (0.5, 0.5, 0.5)}, "the teacher was trained on pixels with mean"),
        ("distill", "views", {"std": (0.5, 0.5, 0.5)}, "set --config.views.mean and --config.views.std"),
        ("dinov2_distill", "encoder", {"mask_token": True}, "without a mask token"),
        ("dinov2_distill", "encoder", {"patch": 8}, "encoder.patch=8 must be the teacher's, which is 4"),
        ("dinov2_distill", "method", {"count": 12}, "method.count=12 must be the teacher's, which is 24"),
        ("dinov2_distill", "method", {"patch_count": 12}, "method.patch_count=12 must be the teacher's, which is 0"),
    ],
)
def test_what_does_not_fit_is_said(name, section, fields, sentence, load_small):
    config = load_small(name)
    config[section].update(fields)
    with pytest.raises(ValueError, match=sentence):
        build_method(config, 5)


def test_an_encoder_that_is_not_the_teachers_is_found_before_anything_is_compiled(load_small, batches):
    config = load_small("fine_tune")
    config.encoder.channels = 8
    with pytest.raises(ValueError, match=r"the teacher's encoder/.* is of shape \(.*\), and here of \(.*\): give"):
        build_run(config, examples=EXAMPLES, example=jax.tree.map(lambda x: x[:2], batches[0]))
