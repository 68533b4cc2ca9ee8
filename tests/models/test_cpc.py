"""CPC's encoder against a loop in NumPy; what it hears of the future and of padding; the predictors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ssljax.models.cpc import LAYERS, ChannelNorm, CPCEncoder, CPCPredictor

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
ENCODER, SAMPLES = CPCEncoder(width=6, context_width=5), 1000
AUDIO = np.random.RandomState(0).standard_normal((4, SAMPLES)).astype(np.float32)


@pytest.fixture(scope="module")
def variables(draw):
    return draw(ENCODER, AUDIO)


@pytest.fixture(scope="module")
def encode(variables):
    return jax.jit(partial(ENCODER.apply, variables))


def loop(params, audio):
    """One example, step by step, in float64: (context, encodings)."""
    x = audio.astype(np.float64)[:, None]
    for i, (kernel, stride, padding) in enumerate(LAYERS):
        conv, norm = params[f"conv{i}"], params[f"norm{i}"]
        x = np.pad(x, ((padding, padding), (0, 0)))
        rows = []
        for start in range(0, len(x) - kernel + 1, stride):
            y = np.einsum("kc,kco->o", x[start : start + kernel], conv["kernel"]) + conv["bias"]
            y = (y - y.mean()) / np.sqrt(y.var(ddof=1) + 1e-5)
            rows.append(np.maximum(y * norm["scale"] + norm["bias"], 0.0))
        x = np.stack(rows)

    gru, h, contexts = params["gru"], np.zeros(5), []
    for z in x:

        def gate(part, z=z, h=h):
            return z @ gru[f"i{part}"]["kernel"] + gru[f"i{part}"]["bias"] + h @ gru[f"h{part}"]["kernel"]

        reset, update = (1 / (1 + np.exp(-gate(part))) for part in "rz")
        new = z @ gru["in"]["kernel"] + gru["in"]["bias"]
        new = np.tanh(new + reset * (h @ gru["hn"]["kernel"] + gru["hn"]["bias"]))
        h = (1 - update) * new + update * h
        contexts.append(h)
    return np.stack(contexts), x


def test_equals_the_loop(variables, encode):
    encoded = encode(AUDIO)
    for i in range(2):
        context, encodings = loop(variables["params"], AUDIO[i])
        close(encoded.context[i], context)
        close(encoded.encodings[i], encodings)
    assert np.abs(encoded.context[0, -1] - encoded.context[0, 0]).max() > 0.01


def test_channel_norm_has_unbiased_variance_as_torch():
    x = np.array([[[1.0, 2.0, 3.0, 6.0]]], np.float32)
    params = {"scale": np.ones(4), "bias": np.zeros(4)}
    close(ChannelNorm().apply({"params": params}, x)[0, 0], np.array([-2.0, -1.0, 0.0, 3.0]) / np.sqrt(14 / 3))


def test_a_window_of_the_paper_has_128_frames():
    assert ENCODER.frames(20480) == 128
    assert ENCODER.frames(SAMPLES) == loop_frames(SAMPLES)


def loop_frames(samples):
    for kernel, stride, padding in LAYERS:
        samples = len(range(0, samples + 2 * padding - kernel + 1, stride))
    return samples


def test_nothing_of_the_future_is_heard(encode):
    """The last samples, changed, are in the last frames alone."""
    changed = AUDIO.copy()
    changed[:, -200:] += 1.0
    for ours, expected in zip(encode(changed), encode(AUDIO), strict=True):
        np.testing.assert_array_equal(ours[:, :3], expected[:, :3])
        assert np.abs(ours[:, -1] - expected[:, -1]).max() > 0.01


def test_padding_changes_no_frame_of_the_audio(encode):
    samples = 640
    padded = np.full_like(AUDIO, 7.0)
    padded[:, :samples] = AUDIO[:, :samples]
    alone = encode(AUDIO[:, :samples])
    known, unknown = (encode(padded, np.full(4, length)) for length in (samples, SAMPLES))
    for ours, heard, expected in zip(known, unknown, alone, strict=True):
        close(ours[:, : ENCODER.frames(samples)], expected)
        assert np.abs(heard[:, : ENCODER.frames(samples)] - expected).max() > 1e-3


def test_gradient_on_four_shards_is_that_on_one(variables, spread):
    def on_a_shard(audio):
        def loss(params):
            encoded = ENCODER.apply({"params": params}, audio)
            return jax.lax.pmean(jnp.mean(encoded.context**2), "data")

        return jax.grad(loss)(variables["params"])

    one, four = (spread(on_a_shard, shards, P())(AUDIO) for shards in (1, 4))
    jax.tree.map(partial(close, atol=1e-6), four, one)
    assert np.abs(four["conv0"]["kernel"]).max() > 1e-4


def test_predictors_are_a_matrix_for_each_step(draw):
    predictor = CPCPredictor(steps=3, width=6)
    context = AUDIO[:, :10].reshape(4, 2, 5)
    variables = draw(predictor, context)
    predicted = predictor.apply(variables, context)
    kernel = variables["params"]["steps"]["kernel"]
    assert kernel.shape == (5, 3, 6) and predicted.shape == (4, 2, 3, 6)
    for k in range(3):
        close(predicted[:, :, k], context @ kernel[:, k])


def test_audio_of_no_frame_is_refused():
    with pytest.raises(ValueError, match=r"audio \(1, 20\) must be \(batch, samples\), with enough"):
        jax.eval_shape(lambda: ENCODER.init(jax.random.key(0), jnp.zeros((1, 20))))
