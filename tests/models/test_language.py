"""BERT with its head and GPT against Hugging Face's with the same weights; padding, order, dropout, initial values."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from seeded import weight

from ssljax.collectives import example_keys
from ssljax.losses import masked_token_loss, next_token_loss
from ssljax.models.language import BERT, GPT, MLMHead, bert_base, bert_large, gpt2

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
TINY = {"vocabulary": 24, "positions": 12, "width": 8, "depth": 2, "heads": 2}
bert, gpt = partial(BERT, **TINY), partial(GPT, **TINY)
MODELS = {"bert": bert(), "bert_cls": bert(pool="cls"), "gpt": gpt(), "gpt_mean": gpt(pool="mean")}
IDS = np.random.RandomState(0).randint(24, size=(3, 10))
VALID = np.arange(10) < np.array([10, 7, 4])[:, None]


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("language")


# Weights, and gradients by them, of Hugging Face under our names ------------------------------------------------------


def gradients_of(numbers, model):
    prefix = f"{model}.gradient."
    return {k.removeprefix(prefix): v for k, v in numbers.items() if k.startswith(prefix)}


def weights_of(numbers, model):
    return {name: weight(name, x.shape) for name, x in gradients_of(numbers, model).items()}


def dense(arrays, name):
    return {"kernel": arrays[f"{name}.weight"].T, "bias": arrays[f"{name}.bias"]}


def norm(arrays, name):
    return {"scale": arrays[f"{name}.weight"], "bias": arrays[f"{name}.bias"]}


@pytest.fixture(scope="module")
def bert_params(from_huggingface):
    """(encoder's, head's)"""

    def make(arrays):
        head = "cls.predictions.transform"
        parts = {"dense": dense(arrays, f"{head}.dense"), "norm": norm(arrays, f"{head}.LayerNorm")}
        encoder = from_huggingface("bert", bert(), arrays, IDS)
        return encoder, parts | {"bias": arrays["cls.predictions.bias"]}

    return make


def test_berts_logits_loss_and_gradients_equal_hugging_face(numbers, bert_params):
    """The head sees slots, of which some are left over; Hugging Face's every token."""
    ids, valid, types, positions, targets, weights = (
        numbers[k] for k in ("ids", "valid", "types", "positions", "targets", "weights")
    )
    assert len(set(weights.sum(axis=1))) > 1

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def run(params):
        encoder, head = params
        tokens = bert().apply({"params": encoder}, ids, valid=valid, types=types, method="tokens")
        logits = MLMHead().apply({"params": head}, tokens, positions, encoder["embed"]["tokens"])
        return masked_token_loss(logits, targets, weights), logits

    (loss, logits), gradients = run(bert_params(weights_of(numbers, "bert")))
    close(logits, np.take_along_axis(numbers["bert.logits"], positions[..., None], axis=1), atol=1e-5)
    close(loss, numbers["bert.loss"])
    jax.tree.map(close, gradients, bert_params(gradients_of(numbers, "bert")))


def test_gpts_logits_loss_and_gradients_equal_hugging_face(numbers, from_huggingface):
    ids, valid = numbers["ids"], numbers["valid"]

    def params(arrays):
        return from_huggingface("gpt2", gpt(), arrays, IDS)

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def run(params):
        logits = gpt().apply({"params": params}, ids, valid=valid, method="logits")
        return next_token_loss(logits, ids, valid), logits

    (loss, logits), gradients = run(params(weights_of(numbers, "gpt")))
    close(logits[valid], numbers["gpt.logits"][valid], atol=1e-5)
    close(loss, numbers["gpt.loss"])
    jax.tree.map(close, gradients, params(gradients_of(numbers, "gpt")))


@pytest.mark.parametrize("name, model", [("bert_base", bert_base), ("bert_large", bert_large), ("gpt2", gpt2)])
def test_published_sizes_have_as_many_parameters(numbers, name, model):
    shapes = jax.eval_shape(lambda: model().init(jax.random.key(0), jnp.zeros((1, 2), int)))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == numbers[f"parameters.{name}"]


# Padding and order ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_padding_changes_nothing(draw, name):
    """Neither what stands in it, nor how much of it there is."""
    model = MODELS[name]
    variables = draw(model, IDS)
    other = np.where(VALID, IDS, (IDS + 5) % 24)
    for method in ("tokens", "__call__"):
        run = partial(model.apply, variables, method=method)
        expected = run(IDS, valid=VALID)
        padded, alone = run(other, valid=VALID), run(IDS[2:, :4])
        if method == "tokens":
            assert not np.allclose(run(other)[2, :4], expected[2, :4]) or name.startswith("gpt")
            expected, padded, alone = expected[VALID], padded[VALID], alone[0]
        close(padded, expected)
        close(alone, expected[-len(alone) :])


def test_features_are_the_tokens_that_pool_names(draw):
    model = MODELS["bert"]
    variables = draw(model, IDS)
    tokens = np.asarray(model.apply(variables, IDS, valid=VALID, method="tokens"))
    means = [tokens[i, : VALID[i].sum()].mean(axis=0) for i in range(3)]
    close(model.apply(variables, IDS, valid=VALID), means)
    close(MODELS["bert_cls"].apply(variables, IDS, valid=VALID), tokens[:, 0])
    variables = draw(MODELS["gpt"], IDS)
    tokens = np.asarray(MODELS["gpt"].apply(variables, IDS, valid=VALID, method="tokens"))
    close(MODELS["gpt"].apply(variables, IDS, valid=VALID), [tokens[0, 9], tokens[1, 6], tokens[2, 3]])
    close(MODELS["gpt"].apply(variables, IDS), MODELS["gpt"].apply(variables, IDS, method="tokens")[:, -1])
    means = [tokens[i, : VALID[i].sum()].mean(axis=0) for i in range(3)]
    close(MODELS["gpt_mean"].apply(variables, IDS, valid=VALID), means)


def test_a_text_without_tokens_has_finite_features(draw):
    """Evaluation fills its last batch up with such."""
    for model in MODELS.values():
        assert np.isfinite(model.apply(draw(model, IDS), IDS, valid=np.zeros_like(VALID))).all()


@pytest.mark.parametrize("name", ["bert", "gpt"])
def test_gpt_sees_only_what_came_before_and_bert_all(draw, name):
    model = MODELS[name]
    run = partial(model.apply, draw(model, IDS), method="tokens")
    other = IDS.copy()
    other[:, 5] = (IDS[:, 5] + 1) % 24
    changed = np.abs(run(other) - run(IDS)).max(axis=(0, 2)) > 1e-5
    np.testing.assert_array_equal(changed, np.arange(10) >= (5 if name == "gpt" else 0))


# Fields ---------------------------------------------------------------------------------------------------------------


def test_gpts_last_kernels_of_branches_are_drawn_small():
    model = GPT(vocabulary=24, positions=12, width=64, depth=3, heads=2)
    params = traverse_util.flatten_dict(model.init(jax.random.key(0), IDS)["params"], sep="/")
    for name, x in params.items():
        if name.endswith("kernel") or name.startswith("embed"):
            ends = "/out/" in name or "/mlp2/" in name
            expected = 0.02 / np.sqrt(2 * 3) if ends else 0.02
            assert abs(x.std() / expected - 1) < 5 / np.sqrt(2 * x.size), name


def test_berts_norms_and_first_weights(draw):
    """With norms before its branches there is one after the last; the kernels and tables are drawn as said."""
    model = bert(norm="pre", width=64, initial=0.1)
    params = model.init(jax.random.key(0), IDS)["params"]
    flat = traverse_util.flatten_dict(params, sep="/")
    drawn = {name: x for name, x in flat.items() if name.startswith("embed/") or name.endswith("kernel")}
    assert all(0.2 >= abs(x).max() > 0.19 and 0.08 < x.std() < 0.1 for x in drawn.values()) and len(drawn) == 14
    tokens = np.asarray(model.apply({"params": params}, IDS, method="tokens"))
    assert np.abs(tokens.mean(axis=2)).max() < 1e-5 and "last_norm" in params and "last_norm" not in draw(bert(), IDS)
    with pytest.raises(ValueError, match="norm 'none' is unknown; use 'post' or 'pre'"):
        bert(norm="none")


def test_gpt_without_biases_has_none():
    shapes = jax.eval_shape(lambda: gpt(bias=False).init(jax.random.key(0), IDS))
    names = set(traverse_util.flatten_dict(shapes["params"], sep="/"))
    assert not any(name.endswith("bias") for name in names)
    assert {"norm/scale", "decoder/block1/mlp2/kernel"} <= names


def test_bert_without_segments_has_no_embedding_of_them(draw):
    model = bert(types=0)
    variables = draw(model, IDS)
    assert "types" not in variables["params"]
    with_types = draw(bert(), IDS)
    with_types["params"] |= variables["params"] | {"types": np.zeros((2, 8), np.float32)}
    close(bert().apply(with_types, IDS), model.apply(variables, IDS))


@pytest.mark.parametrize("model", [bert, gpt])
def test_scanned_and_rematerialised_layers_give_the_same(draw, model):
    variables = draw(model(), IDS)["params"]
    stack = "encoder" if model is bert else "decoder"
    blocks = variables[stack]
    stacked = jax.tree.map(lambda *x: np.stack(x), *(blocks[f"block{i}"] for i in range(2)))
    scanned = {"params": variables | {stack: {"blocks": stacked}}}
    close(model(scan=True, remat="products").apply(scanned, IDS), model().apply({"params": variables}, IDS))


@pytest.mark.parametrize("model", [bert(dropout=0.5), gpt(dropout=0.5)])
def test_dropout_has_a_key_for_each_example_and_is_off_in_evaluation(draw, model):
    variables = draw(model, IDS)
    run = jax.jit(partial(model.apply, variables, train=True))
    keys = example_keys(jax.random.key(0), 3)
    dropped = run(IDS, keys=keys)
    other = np.where(np.arange(3)[:, None] == 1, IDS, (IDS + 1) % 24)
    close(run(other, keys=keys)[1], dropped[1])
    assert not np.allclose(run(IDS, keys=keys[::-1])[0], dropped[0], atol=1e-3)
    evaluated = model.apply(variables, IDS, keys=keys)
    np.testing.assert_array_equal(evaluated, model.apply(variables, IDS))
    assert not np.allclose(evaluated, dropped, atol=1e-3)


def test_half_precision_keeps_parameters_and_outputs_in_float32(draw):
    for model, method in ((bert(dtype=jnp.bfloat16), "__call__"), (gpt(dtype=jnp.bfloat16), "logits")):
        variables = draw(model, IDS)
        assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype("float32")}
        half = model.apply(variables, IDS, method=method)
        assert half.dtype == jnp.float32
        whole = model.clone(dtype=jnp.float32).apply(variables, IDS, method=method)
        np.testing.assert_allclose(half, whole, atol=0.15)
        assert (half != whole).any()


def test_the_head_predicts_at_the_given_positions(draw):
    tokens = np.random.RandomState(1).standard_normal((2, 6, 8)).astype(np.float32)
    table = np.random.RandomState(2).standard_normal((24, 8)).astype(np.float32)
    positions = np.array([[4, 1], [0, 0]])
    variables = draw(MLMHead(), tokens, positions, table)
    params = variables["params"]
    for row, slot in np.ndindex(2, 2):
        x = tokens[row, positions[row, slot]] @ params["dense"]["kernel"] + params["dense"]["bias"]
        x = np.asarray(nn.gelu(x, approximate=False))
        x = (x - x.mean()) / x.std() * params["norm"]["scale"] + params["norm"]["bias"]
        logits = MLMHead().apply(variables, tokens, positions, table)[row, slot]
        close(logits, table @ x + params["bias"], atol=1e-5)


# What cannot be -------------------------------------------------------------------------------------------------------


def test_ids_out_of_the_vocabulary_are_nan(draw):
    """And not another token's vector, as an index too large or below zero would be."""
    for model in (MODELS["bert_cls"], MODELS["gpt"]):
        variables = draw(model, IDS)
        for wrong in (24, -1):
            ids = IDS.copy()
            ids[1, 4] = wrong
            features = model.apply(variables, ids)
            np.testing.assert_array_equal(np.isnan(features).all(axis=1), [False, True, False])


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"width": 9}, "width 9 must be divisible by heads 2"),
        ({"activation": "relu"}, "activation 'relu' is unknown; use one of gelu"),
        ({"pool": "max"}, "pool 'max' is unknown"),
    ],
)
def test_fields_that_make_no_sense_are_refused(fields, message):
    for model in (bert, gpt):
        with pytest.raises(ValueError, match=message):
            model(**fields)


@pytest.mark.parametrize("model", [bert(dropout=0.1), gpt(dropout=0.1)])
def test_inputs_that_do_not_fit_are_refused(model):
    def call(ids, **options):
        jax.eval_shape(lambda: model.init(jax.random.key(0), ids, **options))

    with pytest.raises(ValueError, match=r"ids \(3, 13\) of int32 must be .* with 1 to 12 tokens"):
        call(jnp.zeros((3, 13), int))
    with pytest.raises(ValueError, match=r"ids \(3, 10\) of float32 must be integers"):
        call(jnp.zeros((3, 10)))
    with pytest.raises(ValueError, match=r"valid \(3, 9\) must have the shape of ids, \(batch, tokens\) = \(3, 10\)"):
        call(IDS, valid=VALID[:, :9])
    with pytest.raises(ValueError, match="dropout=0.1 in train mode needs `keys`"):
        call(IDS, train=True)


def test_the_head_refuses_what_does_not_fit():
    tokens, positions, table = jnp.zeros((2, 6, 8)), jnp.zeros((2, 3), int), jnp.zeros((24, 8))
    for wrong in ((tokens[0], positions, table), (tokens, positions[:1], table), (tokens, positions, table.T)):
        with pytest.raises(ValueError) as error:
            jax.eval_shape(lambda wrong=wrong: MLMHead().init(jax.random.key(0), *wrong))
        assert all(str(x.shape) in str(error.value) for x in wrong)
