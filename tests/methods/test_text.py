"""What is BERT's and GPT's own: who sees whom, padding, and what is measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.build import build_method
from ssljax.collectives import example_keys
from ssljax.config import base_config
from ssljax.methods.text.bert import BERT
from ssljax.methods.text.gpt import GPT
from ssljax.models import language
from ssljax.typing import TrainState

SMALL = {"vocabulary": 30, "positions": 16, "width": 16, "depth": 1, "heads": 2}
ENCODERS = {"gpt": language.GPT(**SMALL), "bert": language.BERT(**SMALL, types=0, dropout=0.0)}
METHODS = {"gpt": GPT(ENCODERS["gpt"]), "bert": BERT(ENCODERS["bert"], mask_share=0.3)}
TEXT = np.random.RandomState(0).randint(5, 30, (4, 12)).astype(np.int32)
LENGTHS = np.array([12, 9, 3, 12])


def batch_of(length, filler=0):
    """The texts in rows of that length, with something else in the padding."""
    valid = np.arange(length) < LENGTHS[:, None]
    tokens = np.where(valid, np.pad(TEXT, ((0, 0), (0, length - 12))), filler).astype(np.int32)
    return {"tokens": jnp.asarray(tokens), "valid": jnp.asarray(valid)}


@pytest.fixture(params=["gpt", "bert"])
def name(request):
    return request.param


@pytest.fixture
def state(name):
    v = jax.jit(METHODS[name].init)(jax.random.key(0), batch_of(12))
    return TrainState(v.params, {}, {}, {}, 0, ())


def loss_of(name, state, batch):
    views = METHODS[name].views(example_keys(jax.random.key(1), 4), batch)
    return METHODS[name].loss(state.params, state, views, jax.random.key(2), None)


def test_nothing_depends_on_the_padding(name, state):
    keys = example_keys(jax.random.key(1), 4)
    short, long = batch_of(12), batch_of(16, filler=7)
    method = METHODS[name]
    np.testing.assert_allclose(method.features(state, short), method.features(state, long), atol=1e-5)
    (a, more), (b, others) = (loss_of(name, state, batch) for batch in (short, long))
    np.testing.assert_allclose(a, b, rtol=1e-5)
    np.testing.assert_allclose(more["features"], others["features"], atol=1e-5)
    for number, found in method.measure(state, short, keys).items():
        for x, y in zip(found, method.measure(state, long, keys)[number], strict=True):
            np.testing.assert_allclose(x, y, atol=1e-4)


def test_what_is_measured_is_what_the_loss_is_a_mean_of(name, state):
    keys, batch = example_keys(jax.random.key(1), 4), batch_of(12)
    measured = METHODS[name].measure(state, batch | {"bytes": jnp.asarray(LENGTHS - 1.0)}, keys)
    if name == "gpt":
        nats, pairs = measured["next-token nats"]
        assert pairs.tolist() == (LENGTHS - 1).tolist()
        np.testing.assert_allclose((nats / pairs).mean(), loss_of(name, state, batch)[0], rtol=1e-5)
        bits, count = measured["next-token bits per byte"]
        np.testing.assert_allclose(bits.sum() / count.sum(), nats.sum() / pairs.sum() / np.log(2), rtol=1e-6)
        assert 0.8 < nats.sum() / pairs.sum() / np.log(30) < 1.2  # knows nothing yet
    else:
        bits, count = measured["hidden-token bits"]
        assert count.tolist() == [4, 3, 1, 4]  # 0.3 of each
        # The masks of the loss are others; without an encoder that knows anything they cost about as much.
        np.testing.assert_allclose(bits.sum() / count.sum() * np.log(2), loss_of(name, state, batch)[0], rtol=0.05)


@pytest.mark.parametrize("name, change", [("gpt", 0), ("bert", 1)], indirect=["name"])
def test_only_bert_looks_ahead(name, state, change):
    """Whether the first token's vector changes with the last token."""
    other = jnp.asarray(TEXT).at[:, -1].set(5)
    first = [
        ENCODERS[name].apply({"params": state.params["encoder"]}, ids, method="tokens")[:, 0]
        for ids in (jnp.asarray(TEXT), other)
    ]
    assert (np.abs(first[0] - first[1]).max() > 1e-6) == change


def test_pictures_show_what_was_hidden_and_where_attention_goes(name, state):
    shown = METHODS[name].show(state, batch_of(12), example_keys(jax.random.key(1), 4))
    tokens, shade = np.asarray(shown["tokens"]), np.asarray(shown["shade"])
    valid = np.arange(12) < LENGTHS[:, None]
    assert tokens.shape == shade.shape == (4, 2 if name == "gpt" else 3, 12)
    np.testing.assert_allclose(shade[:, -1].max(axis=1), 1, rtol=1e-6)
    assert (shade[:, -1] >= 0).all()
    if name == "gpt":
        assert (tokens == batch_of(12)["tokens"][:, None]).all()
        assert (shade[:, 0] <= 0).all() and (shade[:, 0, 0] == 0).all()
    else:
        hidden = shade[:, 0] > 0
        assert hidden.sum(axis=1).tolist() == [4, 3, 1, 4] and not (hidden & ~valid).any()
        assert ((shade[:, 1] != 0) == hidden).all()
        right = tokens[:, 1] == batch_of(12)["tokens"]
        assert (right == (shade[:, 1] >= 0)).all()


def test_an_encoder_of_the_other_kind_is_refused():
    config = base_config("gpt")
    config.encoder.name = "bert_base"
    with pytest.raises(ValueError, match="method 'gpt' needs .* --config.encoder.name=gpt2"):
        build_method(config, 1)
    config = base_config("bert")
    config.encoder.name = "gpt2"
    with pytest.raises(ValueError, match="method 'bert' needs .* --config.encoder.name=bert_base"):
        build_method(config, 1)


def test_attention_is_the_same_of_scanned_blocks():
    encoders = {scan: language.GPT(**SMALL | {"depth": 2}, scan=scan) for scan in (False, True)}
    params = encoders[False].init(jax.random.key(0), jnp.asarray(TEXT))["params"]
    blocks = [params["decoder"][f"block{i}"] for i in range(2)]
    stacked = params | {"decoder": {"blocks": jax.tree.map(lambda *x: jnp.stack(x), *blocks)}}
    keys, batch = example_keys(jax.random.key(1), 4), batch_of(12)
    apart, together = (
        GPT(encoders[scan]).show(TrainState({"encoder": p}, {}, {}, {}, 0, ()), batch, keys)
        for scan, p in ((False, params), (True, stacked))
    )
    np.testing.assert_allclose(apart["shade"], together["shade"], atol=1e-5)
