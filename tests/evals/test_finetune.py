"""What may be done otherwise while an encoder is trained on."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.evals import finetune as module
from ssljax.evals.finetune import Tuning, factors_of, fine_tune
from ssljax.typing import Variables

RNG = np.random.RandomState(0)
X = {"x": RNG.randn(300, 4).astype(np.float32)}
LABELS = (X["x"][:, 0] * X["x"][:, 1] > 0).astype(np.int32)


def layers(depth=2):
    names = ("stem", *(f"stage{i + 1}_block1" for i in range(depth)))
    shapes = ((4, 16), *((16, 16) for _ in range(depth)))
    draw = lambda shape: jnp.asarray(0.5 * RNG.randn(*shape), jnp.float32)  # noqa: E731
    return {"encoder": {name: {"kernel": draw(shape)} for name, shape in zip(names, shapes, strict=True)}}


def through(params, x):
    for name in sorted(params["encoder"], key=lambda name: (name != "stem", name)):
        x = jnp.tanh(x @ params["encoder"][name]["kernel"])
    return x


def online(state, batch):
    return through(state.params, batch["x"])


def of_target(state, batch):
    return through(state.target["params"], batch["x"])


@pytest.fixture
def moved(monkeypatch):
    """`moved(features, tuning)`: how far each layer goes in an epoch, by its name; and from (params, target)."""
    state = Variables(params=layers(), model_state={}, target={"params": layers(), "model_state": {"n": 1.0}}, extra={})

    def run(features, tuning):
        seen = []
        in_batches = module._in_batches
        monkeypatch.setattr(module, "EPOCHS", 1)
        monkeypatch.setattr(module, "_in_batches", lambda f, data: (seen.append(f), in_batches(f, data))[1])
        fine_tune(features, state, X, LABELS, X, LABELS, tuning=tuning)
        weights = seen[-1].args[0]["encoder"]
        before = {"params": state.params, "target": state.target}
        far = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, weights)
        of = far["params"] if features is online else far["target"]["params"]
        rest = far["target"] if features is online else far["params"]
        assert tuning.weight_decay or not any(jax.tree.leaves(rest))
        return {name: layer["kernel"] for name, layer in of["encoder"].items()}

    return run


@pytest.mark.parametrize("features", [online, of_target])
def test_frozen_layers_stay_and_others_have_their_rates(moved, features):
    """Adam's first steps are as large as the rate, whatever the gradient is."""
    plain = moved(features, Tuning())
    frozen = moved(features, Tuning(frozen=1))
    assert frozen["stem"] == frozen["stage1_block1"] == 0 < frozen["stage2_block1"]
    assert moved(features, Tuning(frozen=2)) == dict.fromkeys(plain, 0)
    slow = moved(features, Tuning(encoder_rate=0.1))
    decayed = moved(features, Tuning(layer_decay=0.5))
    for place, name in enumerate(layers()["encoder"]):
        assert slow[name] == pytest.approx(0.1 * plain[name], rel=0.2)
        assert decayed[name] == pytest.approx(0.5 ** (3 - place) * plain[name], rel=0.2)
    with pytest.raises(ValueError, match="--tune=frozen=3, but the encoder has only 2 stages or blocks"):
        moved(features, Tuning(frozen=3))


def test_rates_rise_and_fall_and_weights_decay(moved):
    recipe = Tuning(rate=0.5, epochs=10, warmup=2)
    assert [recipe.rate_at(epoch) for epoch in (0.5, 1, 2, 6, 10)] == pytest.approx([0.125, 0.25, 0.5, 0.25, 0])
    assert [Tuning(rate=0.1, warmup=1).rate_at(epoch) for epoch in (0.5, 1, 150)] == [0.05, 0.1, 0.1]
    plain, decayed = moved(online, Tuning()), moved(online, Tuning(weight_decay=100.0))
    assert all(decayed[name] > 1.5 * plain[name] for name in plain)  # 3 steps of 1e-3 · 100 of what it weighs
    assert moved(online, Tuning(weight_decay=100.0, frozen=1))["stem"] == 0


def test_an_encoder_without_stages_can_be_slower_and_nothing_else():
    from_nothing = Tuning(frozen=2, encoder_rate=0.1, layer_decay=0.5, mixup=0.2).of_all
    assert from_nothing == Tuning(mixup=0.2)
    state = SimpleNamespace(params={"encoder": {"mlp": {"kernel": jnp.ones((4, 4))}}}, target={})
    for tuning in (Tuning(frozen=1), Tuning(layer_decay=0.5)):
        with pytest.raises(ValueError, match="go by stages or blocks, which the encoder has not"):
            factors_of(state, tuning)
    factors = factors_of(state, Tuning(encoder_rate=0.1))
    np.testing.assert_allclose(factors["params"]["encoder"]["mlp"]["kernel"], 0.1)


def test_an_encoder_that_does_not_move_is_a_linear_classifier_and_a_free_one_is_more():
    """Of which of two numbers is the larger in magnitude, from an encoder that begins with their sum alone."""
    x = {"x": RNG.randn(600, 2).astype(np.float32)}
    labels = (np.abs(x["x"][:, 0]) > np.abs(x["x"][:, 1])).astype(np.int32)
    stem = {"kernel": jnp.ones((2, 32)) * jnp.linspace(-1, 1, 32), "bias": jnp.zeros(32)}
    state = Variables(params={"encoder": {"stem": stem}}, model_state={}, target={}, extra={})

    def features(state, batch):
        weights = state.params["encoder"]["stem"]
        return jax.nn.relu(batch["x"] @ weights["kernel"] + weights["bias"])

    told: list[str] = []
    still, free = (
        fine_tune(features, state, x, labels, x, labels, tuning=tuning, tell=told.append).accuracy
        for tuning in (Tuning(encoder_rate=0.0), Tuning(smoothing=0.1))
    )
    assert still < 0.7 < 0.85 < free
    assert told[0].startswith("epoch 1, held-out loss ") and len(told) > 8


def test_it_ends_when_all_is_right_and_the_loss_falls_by_less_and_less():
    """Rather than after 200 epochs, each of which would be better than the one before."""
    labels = np.arange(400, dtype=np.int32) % 2
    x = {"x": (2.0 * labels - 1.0)[:, None].astype(np.float32)}
    state = Variables(params={"encoder": {"scale": jnp.ones(1)}}, model_state={}, target={}, extra={})
    told: list[str] = []

    def features(state, batch):
        return batch["x"] * state.params["encoder"]["scale"]

    score = fine_tune(features, state, x, labels, x, labels, tuning=Tuning(rate=0.1), tell=told.append)
    assert score.accuracy == 1 and len(told) < 100
    lowest = [line.split()[-1] for line in told]
    assert lowest == sorted(lowest, reverse=True) and float(lowest[-1]) < 0.1


@pytest.mark.parametrize("cut", [False, True])
def test_mixed_images_and_labels_have_the_same_shares(cut):
    """Of white images in front of black ones in the reversed batch: how bright an image is, is its share of white."""
    images = np.zeros((6, 8, 12, 3), np.uint8)
    images[:3] = 255
    target = jnp.repeat(jnp.eye(2), 3, axis=0)
    tuning = Tuning(cutmix=1.0) if cut else Tuning(mixup=0.8)
    mix = jax.jit(partial(module._mixed, tuning=tuning))
    shares = []
    for i in range(40):
        batch, soft = mix({"image": jnp.asarray(images)}, target, jax.random.key(i))
        mixed = np.asarray(batch["image"])
        np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), soft[:, 0], atol=1e-5)
        np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-6)
        assert np.isin(mixed, (0, 1)).all() == cut or soft[0, 0] > 0.999
        shares.append(float(soft[0, 0]))
    assert min(shares) < 0.5 and max(shares) > 0.8


def test_images_are_mixed_while_it_learns():
    """Bright or dark ones are told apart all the same."""
    labels = np.arange(200, dtype=np.int32) % 2
    images = {"image": (80 + 90 * labels[:, None, None, None] + RNG.randint(0, 60, (200, 4, 4, 3))).astype(np.uint8)}
    state = Variables(params={"encoder": {"stem": jnp.ones((3, 8)) / 3}}, model_state={}, target={}, extra={})

    def features(state, batch):
        pixels = batch["image"].astype(jnp.float32) / (255.0 if batch["image"].dtype == jnp.uint8 else 1.0)
        return pixels.mean(axis=(1, 2)) @ state.params["encoder"]["stem"]

    tuning = Tuning(mixup=0.8, cutmix=1.0, smoothing=0.1)
    assert fine_tune(features, state, images, labels, images, labels, tuning=tuning).accuracy > 0.95
    with pytest.raises(ValueError, match="mixup and cutmix mix images: leave them out of --tune"):
        fine_tune(online, state, X, LABELS, X, LABELS, tuning=tuning)


def test_what_is_given_on_the_command_line():
    tuning = Tuning.of(["frozen=2", "encoder_rate=0.1", "mixup=0.8"])
    assert tuning == Tuning(frozen=2, encoder_rate=0.1, mixup=0.8)
    assert str(tuning) == "frozen = 2, encoder_rate = 0.1, mixup = 0.8" and str(Tuning()) == ""
    for wrong, sentence in (
        ("frosen=2", "--tune=frosen=2 is not known: give some of rate=…, epochs=…"),
        ("frozen=half", "--tune=frozen=half: frozen must be a whole number"),
        ("mixup=abc", "--tune=mixup=abc: mixup must be a number"),
        ("mixup=-1", "--tune=mixup=-1.0 must be 0 or more"),
        ("smoothing=1", r"--tune=smoothing=1.0 must be 0 or more and below 1"),
        ("layer_decay=5", "--tune=layer_decay=5.0 must be above 0 and at most 1"),
        ("rate=nan", "--tune=rate=nan must be above 0"),
        ("rate=inf", "--tune=rate=inf must be above 0"),
        ("rate=0", "--tune=rate=0.0 must be above 0"),
        ("epochs=-1", "--tune=epochs=-1 must be 0 or more"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Tuning.of([wrong])
    with pytest.raises(ValueError, match=r"--tune=epochs=5,warmup=5.0: the rate must rise in fewer epochs"):
        Tuning.of(["epochs=5", "warmup=5"])
    with pytest.raises(ValueError, match="--tune has frozen twice: give it once"):
        Tuning.of(["frozen=1", " frozen=2"])
