"""wav2vec 2.0's contrastive and diversity losses against Hugging Face, CPC's against a loop, on one shard and four."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from ssljax.losses import cpc, ctc, diversity, wav2vec2

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("wav2vec2")


# wav2vec 2.0 ----------------------------------------------------------------------------------------------------------


def masked_frames(numbers, name):
    """(predictions, targets, distractors) of the hidden frames, and what the loss and its gradients must be."""
    mask, negatives = numbers["mask"], numbers["negatives"]
    place = np.cumsum(mask, axis=1) - 1
    shape = len(mask), mask[0].sum(), -1

    def rows(what):
        return numbers[f"{name}.{what}"][mask].reshape(shape)

    inputs = rows("predictions"), rows("targets"), place.ravel()[negatives[mask]].reshape(shape)
    return inputs, (numbers[f"{name}.contrastive"], rows("d.predictions"), rows("d.targets"))


@pytest.fixture(scope="module")
def masked(numbers):
    return masked_frames(numbers, "base")[0]


@pytest.mark.parametrize("name, shards", [("base", 1), ("base", 4), ("large", 1)])
def test_wav2vec2_and_its_gradients_equal_hugging_face(numbers, spread, name, shards):
    """Theirs is a sum over hidden frames, ours their mean."""
    inputs, (expected, *gradients) = masked_frames(numbers, name)
    count = inputs[2].shape[0] * inputs[2].shape[1]

    def on_a_shard(p, t, d):
        def loss(p, t):
            return jax.lax.pmean(wav2vec2(p, t, d), "data")

        return jax.value_and_grad(loss, argnums=(0, 1))(p, t)

    value, ours = spread(on_a_shard, shards, (P(), P("data")))(*inputs)
    close(value * count, expected)
    for gradient, theirs in zip(ours, gradients, strict=True):
        close(gradient * count, theirs, atol=1e-5)


def wav2vec2_loop(context, targets, distractors, temperature, excluded=True):
    losses = []
    for c, q, d in zip(context.astype(np.float64), targets.astype(np.float64), distractors, strict=True):
        for t, others in enumerate(d):
            candidates = [q[t]] + [q[k] for k in others if not (excluded and (q[k] == q[t]).all())]
            logits = [c[t] @ v / np.linalg.norm(c[t]) / np.linalg.norm(v) / temperature for v in candidates]
            losses.append(np.log(np.exp(logits).sum()) - logits[0])
    return np.mean(losses)


def test_distractors_equal_to_the_target_do_not_count(masked):
    close(wav2vec2(*masked, 0.3), wav2vec2_loop(*masked, 0.3))
    assert abs(wav2vec2_loop(*masked, 0.3) - wav2vec2_loop(*masked, 0.3, excluded=False)) > 0.01


def test_equal_codes_do_what_equal_targets_do(masked):
    predictions, targets, distractors = masked
    codes = np.unique(targets.reshape(-1, targets.shape[-1]), axis=0, return_inverse=True)[1]
    codes = codes.reshape(*targets.shape[:2], 1)
    noisy = targets * (1 + 1e-6 * np.arange(targets.shape[1])[:, None]).astype(np.float32)
    expected = wav2vec2(predictions, targets, distractors)
    close(wav2vec2(predictions, noisy, distractors, codes=codes), expected, rtol=1e-4)
    assert abs(wav2vec2(predictions, noisy, distractors) - expected) > 0.01


def test_where_all_distractors_are_equal_the_loss_is_zero_and_so_is_its_gradient(masked):
    predictions, targets, distractors = masked
    same = np.broadcast_to(targets[:, :1], targets.shape)
    value, gradient = jax.jit(jax.value_and_grad(wav2vec2))(predictions, same, distractors)
    assert value == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


def test_wav2vec2_falls_as_predictions_approach_their_targets(masked):
    predictions, targets, distractors = masked
    values = [float(wav2vec2((1 - s) * predictions + s * targets, targets, distractors)) for s in (0.0, 0.5, 1.0)]
    assert values == sorted(values, reverse=True) and len(set(values)) == 3


def test_wav2vec2_in_half_precision_is_computed_in_float32(masked):
    predictions, targets, distractors = masked
    half = [jnp.asarray(x, jnp.bfloat16) for x in (predictions, targets)]
    value = wav2vec2(*half, distractors)
    assert value.dtype == jnp.float32
    assert value == wav2vec2(*(x.astype(jnp.float32) for x in half), distractors)


@pytest.mark.parametrize(
    "context, targets, distractors, named",
    [
        ((2, 3, 4), (2, 3, 5), (2, 3, 6), "context (2, 3, 4) and targets (2, 3, 5) must both be (batch, K, dim)"),
        ((3, 4), (3, 4), (3, 6), "context (3, 4) and targets (3, 4)"),
        ((2, 3, 4), (2, 3, 4), (2, 1, 6), "distractors (2, 1, 6) of int32 must be (batch, K, count) integers"),
        ((2, 3, 4), (2, 3, 4), (2, 3), "the first two dimensions of context (2, 3, 4)"),
    ],
)
def test_wav2vec2_names_shapes_that_do_not_fit(context, targets, distractors, named):
    with pytest.raises(ValueError) as error:
        jax.eval_shape(wav2vec2, jnp.zeros(context), jnp.zeros(targets), jnp.zeros(distractors, jnp.int32))
    assert named in str(error.value)


def test_wav2vec2_refuses_other_arguments_that_make_no_sense():
    x, index = np.ones((2, 3, 4), np.float32), np.zeros((2, 3, 6), np.int32)
    with pytest.raises(ValueError, match="of float32 must be"):
        wav2vec2(x, x, index.astype(np.float32))
    with pytest.raises(ValueError, match="temperature must be positive, but is 0"):
        wav2vec2(x, x, index, 0)
    with pytest.raises(ValueError, match=r"codes \(2, 1, 2\) must be \(batch, K, groups\)"):
        wav2vec2(x, x, index, codes=np.zeros((2, 1, 2), np.int32))


# Diversity ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 4])
def test_diversity_and_its_gradient_equal_hugging_face(numbers, value_and_gradients, shards):
    mask = numbers["diversity.mask"].ravel()
    p, expected = numbers["diversity.p"][mask], numbers["diversity.gradient"][mask]
    value, (gradient,) = value_and_gradients(partial(diversity, axis="data"), shards, p)
    close(value, numbers["diversity"])
    close(gradient, expected)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("name", ["base", "large"])
def test_diversity_of_chosen_codes_is_hugging_faces_in_evaluation(numbers, name):
    """Theirs is times the number of hidden frames."""
    vectors, mask = numbers[f"{name}.vectors"], numbers["mask"]
    groups = vectors[mask].reshape(mask.sum(), 2, -1)
    chosen = [np.unique(groups[:, g], axis=0, return_inverse=True)[1].ravel() for g in range(2)]
    one_hot = jax.nn.one_hot(np.stack(chosen, axis=1), 5)
    close(diversity(one_hot) * mask.sum(), numbers[f"{name}.diversity"])


def test_fairseqs_epsilon_is_within_the_logarithm(numbers):
    p = numbers["diversity.p"]
    mean = p.astype(np.float64).mean(axis=0)
    perplexity = np.exp(-(mean * np.log(mean + 0.01)).sum(axis=-1)).sum()
    close(diversity(p, epsilon=0.01), (10 - perplexity) / 10)
    assert abs(diversity(p, epsilon=0.01) - diversity(p)) > 1e-3


def test_diversity_is_zero_where_all_are_used_alike_and_finite_where_some_never_are():
    close(diversity(np.full((3, 2, 5), 0.2)), 0.0)
    value, gradient = jax.value_and_grad(diversity)(jax.nn.one_hot(np.zeros((3, 2), int), 5))
    close(value, (10 - 2) / 10)
    assert np.isfinite(gradient).all()
    with pytest.raises(ValueError, match=r"probabilities \(5,\) must be \(…, groups, entries\)"):
        diversity(np.ones(5))


def test_diversity_falls_as_probabilities_even_out():
    logits = np.random.RandomState(0).standard_normal((6, 2, 5))
    values = [float(diversity(jax.nn.softmax(sharpness * logits + sharpness))) for sharpness in (4.0, 1.0, 0.2)]
    assert values == sorted(values, reverse=True) and len(set(values)) == 3


# CPC ------------------------------------------------------------------------------------------------------------------

BATCH, WINDOWS, STEPS, DIM, COUNT = 4, 5, 3, 6, 7


@pytest.fixture(scope="module")
def frames():
    random = np.random.RandomState(0)
    predictions = 3 * random.standard_normal((BATCH, WINDOWS, STEPS, DIM)).astype(np.float32)
    encodings = random.standard_normal((BATCH, WINDOWS + STEPS, DIM)).astype(np.float32)
    negatives = random.randint(0, BATCH * (WINDOWS + STEPS), (BATCH, WINDOWS, COUNT))
    return predictions, encodings, negatives


def cpc_loop(predictions, encodings, negatives):
    flat = encodings.reshape(-1, DIM)
    total = 0.0
    for k in range(STEPS):
        losses = []
        for b in range(BATCH):
            for t in range(WINDOWS):
                candidates = [encodings[b, t + k + 1]] + [flat[i] for i in negatives[b, t]]
                scores = [np.mean(predictions[b, t, k] * z) for z in candidates]
                losses.append(np.log(np.exp(scores).sum()) - scores[0])
        total += np.mean(losses)
    return total


@pytest.mark.parametrize("shards", [1, 4])
def test_cpc_and_its_gradients_equal_the_loop(frames, spread, shards):
    predictions, encodings, negatives = frames
    exact = [x.astype(np.float64) for x in (predictions, encodings)]

    def on_a_shard(p, z, n):
        def loss(p, z):
            return jax.lax.pmean(cpc(p, z, n, axis="data"), "data")

        return jax.value_and_grad(loss, argnums=(0, 1))(p, z)

    value, gradients = spread(on_a_shard, shards, (P(), P("data")))(*frames)
    close(value, cpc_loop(*exact, negatives))
    close(cpc(*frames), value)
    close(cpc(*frames, convention="mean") * STEPS, value)
    random = np.random.RandomState(1)
    for i in range(2):
        for _ in range(3):  # central differences along random directions
            direction = random.standard_normal(exact[i].shape)
            ends = [cpc_loop(*(x + s * direction if j == i else x for j, x in enumerate(exact)), negatives)
                    for s in (1e-5, -1e-5)]  # fmt: skip
            close(np.sum(gradients[i] * direction), (ends[0] - ends[1]) / 2e-5, rtol=1e-4)


def test_cpc_falls_as_predictions_approach_what_comes(frames):
    predictions, encodings, negatives = frames
    ahead = np.stack([encodings[:, k + 1 : k + 1 + WINDOWS] for k in range(STEPS)], axis=2)
    values = [float(cpc(predictions + nearer * ahead, encodings, negatives)) for nearer in (0.0, 2.0, 4.0)]
    assert values == sorted(values, reverse=True) and len(set(values)) == 3


def test_cpc_in_half_precision_is_computed_in_float32(frames):
    half = [jnp.asarray(x, jnp.bfloat16) for x in frames[:2]]
    value = cpc(*half, frames[2])
    assert value.dtype == jnp.float32
    assert value == cpc(*(x.astype(jnp.float32) for x in half), frames[2])


@pytest.mark.parametrize(
    "predictions, encodings, negatives, named",
    [
        ((2, 5, 4), (2, 8, 4), (2, 5, 7), "predictions (2, 5, 4) must be (batch, windows, K, dim)"),
        ((2, 5, 3, 4), (2, 7, 4), (2, 5, 7), "which is (2, 8, 4), but these are (2, 7, 4)"),
        ((2, 5, 3, 4), (2, 8, 4), (2, 8, 7), "negatives (2, 8, 7) of int32 must be (batch, windows, count) integers"),
    ],
)
def test_cpc_names_shapes_that_do_not_fit(predictions, encodings, negatives, named):
    with pytest.raises(ValueError) as error:
        jax.eval_shape(cpc, jnp.zeros(predictions), jnp.zeros(encodings), jnp.zeros(negatives, jnp.int32))
    assert named in str(error.value)


def test_cpc_names_conventions(frames):
    with pytest.raises(ValueError, match="convention 'total' is unknown; use 'sum' or 'mean'"):
        cpc(*frames, convention="total")


# CTC ------------------------------------------------------------------------------------------------------------------

LENGTHS = np.array([9, 7, 6, 3])
SPELT = np.array([[1, 2, 2, 3], [3, 3, 0, 0], [2, 0, 0, 0], [1, 2, 1, 0]], np.int32)


@pytest.fixture
def said():
    """Logits of clips of 9, 7, 6 and 3 frames, which come after the end, and texts of 4, 2, 1 and 3 letters; the last
    fits its frames in one way."""
    logits = np.random.RandomState(0).randn(4, 9, 4).astype(np.float32)
    return logits, np.arange(9) >= LENGTHS[:, None], SPELT, SPELT == 0


@pytest.mark.parametrize("shards", [1, 4])
def test_ctc_is_optaxs(said, shards, value_and_gradients):
    """Value and gradient; frames after the end have none."""
    logits, after, labels, padding = said
    expected = optax.ctc_loss(*(x.astype(np.float32) if x.dtype == bool else x for x in said))
    close(ctc(*said), expected)
    loss = lambda logits, *rest: ctc(logits, *rest).mean()  # noqa: E731
    on_a_shard = jax.jit(jax.grad(lambda x: optax.ctc_loss(x, after * 1.0, labels, padding * 1.0).mean()))
    value, (gradient, *_) = spread_over_logits(loss, shards, value_and_gradients, said)
    close(value, expected.mean())
    close(gradient, on_a_shard(logits))
    assert (np.asarray(gradient)[after] == 0).all()


def spread_over_logits(loss, shards, value_and_gradients, said):
    """Only logits have gradients: what else there is goes along as floats."""
    logits, *rest = said
    kinds = [x.dtype for x in rest]

    def of_floats(logits, *rest):
        return loss(logits, *(x.astype(kind) for x, kind in zip(rest, kinds, strict=True)))

    return value_and_gradients(of_floats, shards, logits, *(x.astype(np.float32) for x in rest))


def test_a_text_that_is_too_long_is_never_said_and_one_way_is_one_product(said):
    logits, after, labels, padding = said
    chance = jax.nn.log_softmax(logits[3, :3])
    close(ctc(*said)[3], -(chance[0, 1] + chance[1, 2] + chance[2, 1]))
    after = after.copy()
    after[0, 4:] = True  # a b b c needs five frames
    assert ctc(logits, after, labels, padding)[0] == np.float32(1e30)
    gradient = np.abs(jax.jit(jax.grad(lambda x: ctc(x, after, labels, padding).sum()))(logits))
    assert (gradient[0] == 0).all() and (gradient[1:].max(axis=(1, 2)) > 0.1).all()
    more = np.concatenate([logits, np.full((4, 2, 4), 50.0)], axis=1)
    close(ctc(more, np.pad(said[1], ((0, 0), (0, 2)), constant_values=True), labels, padding), ctc(*said))


def test_half_precision_is_computed_in_float32(said):
    logits = jnp.asarray(said[0], jnp.bfloat16)
    close(ctc(logits, *said[1:]), ctc(logits.astype(jnp.float32), *said[1:]))


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({0: np.zeros((4, 9))}, r"logits \(4, 9\) must be"),
        ({1: np.zeros((4, 8), bool)}, r"and after \(4, 8\) the first two"),
        ({2: np.ones((3, 4), int)}, r"labels \(3, 4\) and padding"),
        ({3: np.ones((4, 5), bool)}, r"padding \(4, 5\) must be"),
    ],
)
def test_ctc_of_shapes_that_do_not_fit(change, sentence, said):
    with pytest.raises(ValueError, match=sentence):
        ctc(*(change.get(i, x) for i, x in enumerate(said)))
