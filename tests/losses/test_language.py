"""Cross-entropies of hidden and of next tokens against Hugging Face and loops, on one device and on four.

(That they are Hugging Face's losses of whole models, gradients included, is in models/test_language.py.)
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ssljax.losses import masked_token_loss, next_token_loss

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("language")


def softmax(x):
    e = np.exp(x.astype(np.float64) - x.max())
    return e / e.sum()


def loop(logits, targets, weights):
    """Value and gradient: softmax less one-hot, slot by slot."""
    total, gradient = 0.0, np.zeros(logits.shape)
    for place in np.argwhere(weights > 0):
        p, y, w = softmax(logits[*place]), targets[*place], weights[*place]
        total -= w * np.log(p[y])
        gradient[*place] = w * (p - np.eye(len(p))[y])
    return total / weights.sum(), gradient / weights.sum()


@pytest.fixture(scope="module")
def slots(numbers):
    """Logits, targets and weights; the shards of four have unequal numbers of slots that count."""
    logits = np.take_along_axis(numbers["bert.logits"], numbers["positions"][..., None], axis=1)
    assert len(set(numbers["weights"].sum(axis=1))) > 1
    return logits, numbers["targets"].astype(np.int32), numbers["weights"]


def gradient_of_logits(loss, shards, spread, *arrays):
    """Targets are integers, so only the first array has a gradient."""
    on_a_shard = jax.value_and_grad(lambda x, *rest: jax.lax.pmean(loss(x, *rest), "data"))
    return spread(on_a_shard, shards, (P(), P("data")))(*arrays)


@pytest.mark.parametrize("shards", [1, 4])
def test_masked_token_loss_equals_hugging_face_and_its_gradient_the_loop(numbers, slots, spread, shards):
    loss = partial(masked_token_loss, axis="data")
    value, gradient = gradient_of_logits(loss, shards, spread, *slots)
    close(value, numbers["bert.loss"])
    expected, of_logits = loop(*slots)
    close(value, expected)
    close(gradient, of_logits)


@pytest.mark.parametrize("shards", [1, 4])
def test_next_token_loss_equals_hugging_face_and_its_gradient_the_loop(numbers, spread, shards):
    logits, ids, valid = numbers["gpt.logits"], numbers["ids"].astype(np.int32), numbers["valid"]
    value, gradient = gradient_of_logits(partial(next_token_loss, axis="data"), shards, spread, logits, ids, valid)
    close(value, numbers["gpt.loss"])
    expected, of_logits = loop(logits[:, :-1], ids[:, 1:], valid[:, 1:].astype(np.float64))
    close(value, expected)
    close(gradient[:, :-1], of_logits)
    np.testing.assert_array_equal(gradient[:, -1], 0.0)


def test_weights_may_be_any_and_without_them_all_count(slots):
    logits, targets, _ = slots
    close(masked_token_loss(logits, targets), loop(logits, targets, np.ones(targets.shape))[0])
    weights = np.random.RandomState(0).uniform(0.1, 2.0, targets.shape)
    close(masked_token_loss(logits, targets, weights), loop(logits, targets, weights)[0])
    ids = np.random.RandomState(1).randint(logits.shape[2], size=logits.shape[:2])
    close(next_token_loss(logits, ids), loop(logits[:, :-1], ids[:, 1:], np.ones((len(ids), 2)))[0])


def test_padding_before_a_text_is_no_context_to_learn_from(numbers):
    logits, ids = numbers["gpt.logits"], numbers["ids"]
    valid = np.arange(10) >= np.array([0, 3, 6, 1])[:, None]
    pairs = (valid[:, :-1] & valid[:, 1:]).astype(np.float64)
    close(next_token_loss(logits, ids, valid), loop(logits[:, :-1], ids[:, 1:], pairs)[0])


def test_slots_of_weight_zero_do_not_count_whatever_is_in_them(slots):
    logits, targets, weights = slots
    left = weights == 0
    other = np.where(left[..., None], 100.0, logits), np.where(left, -100, targets), weights
    value, gradient = jax.value_and_grad(masked_token_loss)(*other)
    assert value == masked_token_loss(*slots)
    np.testing.assert_array_equal(gradient[left], 0.0)
    assert np.isfinite(gradient).all()


def test_without_a_slot_that_counts_the_loss_is_zero(slots, spread):
    logits, targets, weights = slots
    loss = partial(masked_token_loss, axis="data")
    value, gradient = gradient_of_logits(loss, 2, spread, logits, targets, np.zeros_like(weights))
    assert value == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("wrong", [24, -1])
def test_a_target_out_of_the_vocabulary_is_nan(slots, wrong):
    logits, targets, weights = slots
    targets = targets.copy()
    targets[0, 0] = wrong
    assert np.isnan(masked_token_loss(logits, targets, weights))


def test_falls_to_nothing_as_the_target_gets_likelier(slots):
    logits, targets, weights = slots
    push = np.eye(24)[targets]
    values = [float(masked_token_loss(logits + size * push, targets, weights)) for size in (0.0, 1.0, 3.0, 60.0)]
    assert values == sorted(values, reverse=True) and len(set(values)) == 4 and values[-1] < 1e-6


def test_half_precision_logits_are_computed_in_float32(numbers, slots):
    logits, targets, weights = slots
    half = jnp.asarray(logits, jnp.bfloat16)
    value = masked_token_loss(half, targets, weights)
    assert value.dtype == jnp.float32
    assert value == masked_token_loss(half.astype(jnp.float32), targets, weights)
    gpt = jnp.asarray(numbers["gpt.logits"], jnp.bfloat16)
    assert next_token_loss(gpt, numbers["ids"]) == next_token_loss(gpt.astype(jnp.float32), numbers["ids"])


def test_what_does_not_fit_is_refused(slots):
    logits, targets, weights = slots
    for wrong in ((logits[0], targets, weights), (logits, targets[:, :2], weights), (logits, targets, weights[:2])):
        with pytest.raises(ValueError) as error:
            masked_token_loss(*wrong)
        assert all(str(x.shape) in str(error.value) for x in wrong)
        with pytest.raises(ValueError) as error:
            next_token_loss(*wrong)
        assert all(str(x.shape) in str(error.value) for x in wrong)
    with pytest.raises(ValueError, match="with at least 2 tokens"):
        next_token_loss(logits[:, :1], targets[:, :1])
    with pytest.raises(ValueError, match="targets must be ids, but are of float32"):
        masked_token_loss(logits, weights, weights)
    with pytest.raises(ValueError, match=r"logits \(0, 3, 24\) must be .*not empty"):
        masked_token_loss(logits[:0], targets[:0])
