"""Without what prevents collapse, the monitors raise the alarm within the demo; with it they stay silent."""

from pathlib import Path

import jax
import pytest

from ssljax.build import build_run, build_source, example_batch
from ssljax.data.pipeline import train_batches
from ssljax.engine.mesh import make_mesh, to_devices
from ssljax.engine.monitors import alarm
from ssljax.losses import similarity
from ssljax.numerics import normalize

CONFIGS = Path(__file__).parents[2] / "configs" / "images"
SLOW = {"momentum": 0.9}  # how a target follows in as few steps
NARROW = {"resnet8": {"channels": 8}, "vit_micro": {"width": 32, "depth": 2, "heads": 2}}


@pytest.fixture(autouse=True)
def optimised():
    """These compute for longer than they compile."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def alarms(load_config):
    """`alarms(name, steps, **fields)`: what the monitors say of each step of a demo on its own images.

    Narrow, on views of 16 pixels, in batches of 32 and with a high learning rate: in seconds, what the demo does in
    minutes.
    """

    def run(name, steps, **fields):
        config = load_config(CONFIGS / f"{name}.py", "demo")
        config.method.update(fields)
        if not config.method.get("predictor", True):
            config.optimizer.constant = ()  # there is none whose rate would stay
        config.encoder.update(NARROW[config.encoder.name])
        config.views.size = 16
        if config.views.local_size:
            config.views.local_size = 8
        config.batch_size = 32
        config.optimizer.learning_rate = 5e-3
        source = build_source(config, "train")
        mesh = make_mesh(1, 1, jax.devices()[:1])
        built = build_run(config, examples=len(source), example=example_batch(config, source), mesh=mesh, total=1000)
        state, said = built.init(), []
        batches = train_batches(source, batch_size=config.batch_size, seed=0)
        for _ in range(steps):
            state, metrics = built.step(state, to_devices(next(batches), mesh))
            said.append(alarm({name: float(value) for name, value in metrics.items()}))
        batches.close()
        return said

    return run


@pytest.fixture
def without_stop_gradient(monkeypatch):
    monkeypatch.setattr(similarity, "_prediction_and_target", lambda p, z: (normalize(p), normalize(z)))


@pytest.mark.parametrize(
    "name, steps, fields", [("byol", 100, SLOW), ("simsiam", 200, {}), ("vicreg", 80, {}), ("dino", 80, SLOW)]
)
def test_a_healthy_run_is_silent(name, steps, fields, alarms):
    assert set(alarms(name, steps, **fields)) == {None}


@pytest.mark.parametrize(
    "name, steps, fields, sign",
    [
        ("byol", 100, SLOW | {"predictor": ()}, "embedding_std"),
        ("simsiam", 200, {"predictor": ()}, "embedding_rank"),
        ("vicreg", 80, {"variance": 0.0}, "output_std"),
        ("dino", 80, SLOW | {"center_momentum": 1.0}, "prototypes_used"),
        ("dino", 60, SLOW | {"teacher_temperature": 0.2}, "target_entropy"),
    ],
)
def test_the_alarm_is_raised_without_what_prevents_collapse(name, steps, fields, sign, alarms):
    """BYOL and SimSiam without predictors, VICReg without the variance term, DINO without centring, and without
    sharpening."""
    said = alarms(name, steps, **fields)
    assert any(text and text.startswith(sign) for text in said[-40:]), said[-40:]


def test_moco_v2_without_negatives(alarms, monkeypatch):
    """All else as it is: a momentum network, and queries that must only be like their keys."""
    assert set(alarms("moco_v2", 90)) == {None}

    def alike(query, key, *_, **__):
        return -(normalize(query) * key).sum(axis=-1).mean()

    monkeypatch.setattr("ssljax.methods.images.moco_v2.info_nce", alike)
    said = alarms("moco_v2", 90)
    assert any(text and text.startswith("embedding_std") for text in said[-40:]), said[-40:]


def test_simsiam_without_stop_gradient(alarms, without_stop_gradient):
    said = alarms("simsiam", 100)
    assert any(text and text.startswith("embedding_rank") for text in said[-40:]), said[-40:]
