"""wav2vec 2.0's encoder, quantiser and loss against Hugging Face's with the same weights; padding, dropout, codes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from seeded import normal, weight

from ssljax.collectives import example_keys
from ssljax.losses import wav2vec2
from ssljax.models.quantizer import GumbelQuantizer, Wav2Vec2Head, gumbel_softmax
from ssljax.models.transformer import Block, Stack
from ssljax.models.wav2vec import Wav2Vec2, frames, scale_gradient, wav2vec2_base, wav2vec2_large
from ssljax.weights import ARCHITECTURES
from ssljax.weights.rows import write

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
LAYERS = ((8, 4, 3), (8, 3, 2), (8, 2, 1))
tiny = partial(Wav2Vec2, LAYERS, width=16, depth=2, heads=2, hidden=24, positional_kernel=6, positional_groups=4)
ENCODERS = {"base": tiny(feature_gradient=1.0), "large": tiny(norm="layer", bias=True, stable=True)}
HEAD = Wav2Vec2Head(dim=12, groups=2, entries=5, codebook_dim=8)

# Weights of the head: (name of Hugging Face's, its shape, our path, how its value becomes ours)


def dense(name, inputs, outputs, path):
    yield f"{name}.weight", (outputs, inputs), (*path, "kernel"), np.transpose
    yield f"{name}.bias", (outputs,), (*path, "bias"), np.asarray


def head_weights():
    yield from dense("quantizer.weight_proj", 8, 10, ("quantizer", "logits"))
    yield "quantizer.codevectors", (1, 10, 4), ("quantizer", "codebook"), lambda x: x.reshape(2, 5, 4)
    yield from dense("project_hid", 16, 12, ("context",))
    yield from dense("project_q", 8, 12, ("targets",))


def tree(rows):
    params = {}
    for name, shape, path, ours in rows:
        at = params
        for part in path[:-1]:
            at = at.setdefault(part, {})
        at[path[-1]] = ours(weight(name, shape))
    return params


# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("wav2vec2")


def theirs_of(layout, params):
    """An encoder's parameters, or gradients by them, under Hugging Face's names."""
    tensors = write({"params": params}, ARCHITECTURES["wav2vec2"].rows(ENCODERS[layout]))
    return {f"wav2vec2.{name}": x for name, x in tensors.items()}


@pytest.fixture(scope="module")
def params(numbers, from_huggingface):
    def encoder(layout):
        module, audio = ENCODERS[layout], numbers["audio"]
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), audio))["params"]
        theirs = theirs_of(layout, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))
        drawn = {name: weight(name, x.shape) for name, x in theirs.items()}
        return from_huggingface("wav2vec2", module, drawn, audio)

    return {layout: {"encoder": encoder(layout), "head": tree(head_weights())} for layout in ENCODERS}


@pytest.fixture(scope="module")
def hidden(numbers):
    """Indexes of the hidden frames, and of their distractors among these."""
    mask, negatives = numbers["mask"], numbers["negatives"]
    index = np.nonzero(mask)[1].reshape(len(mask), -1)
    place = np.cumsum(mask, axis=1) - 1
    return index, place.ravel()[negatives[mask]].reshape(*index.shape, -1)


def contrast(layout, params, numbers, hidden):
    index, distractors = hidden
    encoded = ENCODERS[layout].apply({"params": params["encoder"]}, numbers["audio"], mask=numbers["mask"])
    context, local = (jnp.take_along_axis(x, index[:, :, None], axis=1) for x in (encoded.context, encoded.local))
    compared = HEAD.apply({"params": params["head"]}, context, local)
    return wav2vec2(compared.predictions, compared.targets, distractors), (encoded, compared)


@pytest.mark.parametrize("layout", ENCODERS)
def test_from_audio_to_loss_and_gradients_equal_hugging_face(numbers, params, hidden, layout):
    run = jax.jit(jax.value_and_grad(partial(contrast, layout), has_aux=True))
    given = {name: numbers[name] for name in ("audio", "mask")}
    (loss, (encoded, compared)), gradients = run(params[layout], given, hidden)
    theirs = {k.removeprefix(f"{layout}."): v for k, v in numbers.items() if k.startswith(f"{layout}.")}
    close(encoded.context, theirs["context"])
    close(encoded.local, theirs["local"])
    close(compared.predictions, theirs["predictions"][numbers["mask"]].reshape(compared.predictions.shape))
    close(compared.targets, theirs["targets"][numbers["mask"]].reshape(compared.targets.shape))
    masked = hidden[0].size
    close(loss * masked, theirs["contrastive"])

    found = theirs_of(layout, gradients["encoder"])
    for name, _, path, ours in head_weights():
        if f"d.{name}" in theirs:
            theirs[f"d.{name}"], gradient = ours(theirs[f"d.{name}"]), gradients["head"]
            for key in path:
                gradient = gradient[key]
            found[name] = gradient
    seen, scale = 0, 0.1 if layout == "large" else 1.0  # ENCODERS["large"] has the paper's gradient into convolutions
    for name, gradient in found.items():
        if f"d.{name}" in theirs:
            expected = theirs[f"d.{name}"] * (scale if ".feature_extractor." in name else 1.0)
            peak = np.abs(expected).max()
            close(gradient * masked, expected, atol=2e-6 * peak)  # float32's sums of what cancels
            assert peak > 1e-3
            seen += 1
    assert seen == 9


@pytest.mark.parametrize("layout", ENCODERS)
def test_quantised_vectors_are_hugging_faces(numbers, params, layout):
    quantizer = GumbelQuantizer(groups=2, entries=5, dim=8)
    quantized = quantizer.apply({"params": params[layout]["head"]["quantizer"]}, numbers[f"{layout}.local"])
    close(quantized.vectors, numbers[f"{layout}.vectors"])
    np.testing.assert_array_equal(quantized.codes, np.argmax(quantized.probabilities, axis=-1))
    close(quantized.probabilities.sum(axis=-1), 1.0)


@pytest.mark.parametrize(
    "name, encoder, head",
    [
        ("base", wav2vec2_base(scan=True), Wav2Vec2Head()),
        ("large", wav2vec2_large(scan=True), Wav2Vec2Head(dim=768, codebook_dim=768, dropout=0.0)),
    ],
)
def test_published_sizes_have_hugging_faces_numbers_of_parameters(numbers, name, encoder, head):
    audio = jnp.zeros((1, 800))
    shapes = jax.eval_shape(lambda: encoder.init_with_output(jax.random.key(0), audio))
    encoded, shapes = shapes
    context, local = (jnp.zeros(x.shape) for x in (encoded.context, encoded.local))
    shapes = shapes, jax.eval_shape(lambda: head.init(jax.random.key(0), context, local))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == numbers[f"{name}.parameters"]


def test_frames_are_those_that_come_out(numbers):
    assert frames(16000) == 49 and frames(400) == 1 and frames(399) == 0 and frames(250_000) == 781
    assert ENCODERS["base"].frames(numbers["audio"].shape[1]) == numbers["mask"].shape[1]


def test_scale_gradient_leaves_the_value():
    x = np.float32([0.1, -3.7, 1e-20])
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(scale_gradient(x, 0.1) * jnp.arange(3)))(x)
    np.testing.assert_array_equal(scale_gradient(x, 0.1), x)
    close(gradient, [0.0, 0.1, 0.2])


@pytest.mark.parametrize("layout", ENCODERS)
def test_padding_changes_no_frame_of_the_audio_but_without_lengths_it_does(numbers, params, layout):
    run = jax.jit(partial(ENCODERS[layout].clone(depth=1).apply, {"params": params[layout]["encoder"]}))
    audio, mask, samples = numbers["audio"][:2], numbers["mask"][:2], 60
    count = frames(samples, LAYERS)
    alone = run(audio[:, :samples], mask=mask[:, :count])
    padded = np.concatenate([audio[:, :samples], 7.0 * audio[:, samples:]], axis=1)
    known, unknown = (run(padded, mask=mask, lengths=np.array([length] * 2)) for length in (samples, 90))
    for ours, heard, expected in zip(known, unknown, alone, strict=True):
        close(ours[:, :count], expected)
        apart = np.abs(heard[:, :count] - expected).max()
        assert apart > 1e-2 or (layout == "large" and ours is not known.context)


@pytest.mark.parametrize("layout", ENCODERS)
def test_the_transformer_hears_nothing_of_hidden_frames(numbers, params, layout):
    mask = np.ones_like(numbers["mask"][:2])
    run = jax.jit(partial(ENCODERS[layout].clone(depth=1).apply, {"params": params[layout]["encoder"]}))
    encoded = run(numbers["audio"][:2], mask=mask)
    np.testing.assert_array_equal(encoded.context[0], encoded.context[1])
    assert np.abs(encoded.local[0] - encoded.local[1]).max() > 0.1


def test_dropout_belongs_to_the_example_and_to_training(numbers, params):
    apply = partial(ENCODERS["base"].clone(depth=1).apply, {"params": params["base"]["encoder"]})
    train, evaluate = jax.jit(partial(apply, train=True)), jax.jit(apply)
    audio, keys = numbers["audio"][:2], example_keys(jax.random.key(0), 2)
    trained = train(audio, keys=keys).context
    close(train(audio[::-1], keys=keys[::-1]).context, trained[::-1])
    changed = train(audio, keys=keys.at[0].set(keys[1])).context
    close(changed[1], trained[1])
    assert np.abs(changed[0] - trained[0]).max() > 0.1
    np.testing.assert_array_equal(evaluate(audio, keys=keys).context, evaluate(audio).context)


def test_head_draws_by_example_and_only_in_training(numbers, params):
    run = jax.jit(partial(HEAD.apply, {"params": params["base"]["head"]}))
    context, local = (numbers[f"base.{name}"][:2] for name in ("context", "local"))
    keys = example_keys(jax.random.key(0), 2)
    drawn = run(context, local, 2.0, keys)
    close(run(context[::-1], local[::-1], 2.0, keys[::-1]).targets, drawn.targets[::-1])
    assert (drawn.codes != run(context, local).codes).any()


def test_layer_drop_leaves_out_blocks_by_example(draw):
    """A stack of two blocks gives one of four results for an example; each comes as often as it should."""
    keys = example_keys(jax.random.key(0), 400)
    x = jnp.tile(jax.random.normal(jax.random.key(1), (1, 3, 4)), (len(keys), 1, 1))
    stack = Stack(2, Block(heads=1, hidden=4), layer_drop=0.3)
    params = draw(stack, x[:1])["params"]
    apply = jax.jit(lambda params, x: stack.block.apply({"params": params}, x))
    block = [partial(apply, params[f"block{i}"]) for i in range(2)]
    possible = [x[0], block[0](x[:1])[0], block[1](x[:1])[0], block[1](block[0](x[:1]))[0]]
    y = jax.jit(stack.apply)({"params": params}, x, keys=keys)
    distance = np.stack([np.abs(y - p).max(axis=(1, 2)) for p in possible])
    assert (np.sort(distance, axis=0)[0] < 1e-5).all() and (np.sort(distance, axis=0)[1] > 1e-3).all()
    often = np.bincount(distance.argmin(axis=0), minlength=4) / len(keys)
    np.testing.assert_allclose(often, [0.09, 0.21, 0.21, 0.49], atol=0.08)
    close(jax.jit(stack.apply)({"params": params}, x[:1]), possible[3][None])
    stacked = {"blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), params["block0"], params["block1"])}
    scanned = Stack(2, stack.block, scan=True, layer_drop=0.3)
    close(jax.jit(scanned.apply)({"params": stacked}, x, keys=keys), y)


def test_gumbel_softmax_and_its_gradient_equal_torch(numbers):
    logits, toward = 2 * normal("logits", (3, 7, 2, 5)), normal("toward", (3, 7, 2, 5))
    noise = numbers["gumbel.noise"]
    close(gumbel_softmax(logits, noise, 0.7), numbers["gumbel.hard"])
    gradient = jax.grad(lambda logits: jnp.sum(gumbel_softmax(logits, noise, 0.7) * toward))(logits)
    close(gradient, numbers["gumbel.gradient"])
    assert set(np.unique(gumbel_softmax(logits, noise, 0.7))) == {0.0, 1.0}  # equal codes give equal vectors


def test_codes_are_drawn_by_their_probabilities_whatever_the_temperature(draw):
    """Five standard errors over 12 numbers."""
    count = 4000
    quantizer, x = GumbelQuantizer(groups=3, entries=4, dim=6), jnp.ones((1, 1, 2))
    variables = draw(quantizer, x)
    keys = example_keys(jax.random.key(0), count)
    drawn = jax.jit(quantizer.apply)(variables, jnp.tile(x, (count, 1, 1)), 0.5, keys)
    often = jax.nn.one_hot(drawn.codes, 4).mean(axis=(0, 1))
    p = drawn.probabilities[0, 0]
    assert (np.abs(often - p) < 5 * np.sqrt(p * (1 - p) / count)).all()
    codebook = variables["params"]["codebook"]
    expected = np.stack([codebook[g, drawn.codes[:, 0, g]] for g in range(3)], axis=1)
    np.testing.assert_array_equal(drawn.vectors[:, 0], expected.reshape(count, 6))


def test_half_precision_keeps_parameters_and_results_in_float32(numbers):
    encoder = tiny(dtype=jnp.bfloat16)
    encoded, variables = jax.eval_shape(lambda: encoder.init_with_output(jax.random.key(0), numbers["audio"]))
    assert {x.dtype for x in jax.tree.leaves((encoded, variables))} == {jnp.dtype("float32")}


def test_what_does_not_fit_is_named(numbers):
    audio = jnp.zeros((2, 90))

    def run(encoder, *inputs, **options):
        jax.eval_shape(lambda: encoder.init(jax.random.key(0), *inputs, **options))

    with pytest.raises(ValueError, match=r"audio \(2, 10\) must be \(batch, samples\), with enough"):
        run(tiny(), audio[:, :10])
    with pytest.raises(ValueError, match=r"mask \(2, 12\) must be \(batch, frames\), which is \(2, 13\)"):
        run(tiny(), audio, mask=jnp.ones((2, 12), bool))
    with pytest.raises(ValueError, match="needs `keys`"):
        run(tiny(), audio, train=True)
    with pytest.raises(ValueError, match="norm 'batch' is unknown; use 'group'"):
        tiny(norm="batch")
    with pytest.raises(ValueError, match="width 16 must be divisible by heads 3"):
        Wav2Vec2(LAYERS, width=16, heads=3)
    with pytest.raises(ValueError, match="dim 7 of the codebook must be divisible by groups 2"):
        run(GumbelQuantizer(groups=2, entries=5, dim=7), audio[:, :, None])
