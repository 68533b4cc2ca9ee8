"""CLIP's two towers, with its loss, against Hugging Face's with the same weights; where a text ends."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from seeded import weight

from ssljax.losses import clip
from ssljax.models.clip import CLIPText, CLIPViT, clip_text_b, clip_text_l
from ssljax.numerics import normalize

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
TEXT = CLIPText(vocabulary=24, positions=12, width=8, depth=2, heads=2, dim=6)
IMAGE = CLIPViT(patch=4, width=8, depth=2, heads=2)
EOT = 23
IDS = np.array([[5, 2, EOT, 1, 1, 1], [7, 3, 3, 9, 4, EOT]])


@pytest.fixture(scope="module")
def numbers(golden):
    return {k.removeprefix("model."): v for k, v in golden("image_text").items()}


@pytest.fixture(scope="module")
def params(from_huggingface):
    def make(arrays):
        return {
            "text": from_huggingface("clip_text_model", TEXT, arrays, IDS),
            "image": from_huggingface("clip", IMAGE, arrays, np.zeros((1, 8, 8, 3), np.float32)),
            "project": arrays["visual_projection.weight"].T,
            "log_scale": arrays["logit_scale"],
        }

    return make


@pytest.fixture(scope="module")
def weights(numbers, params):
    shapes = {k.removeprefix("gradient."): v.shape for k, v in numbers.items() if k.startswith("gradient.")}
    return params({k: np.log(np.float32(8)) if k == "logit_scale" else weight(k, x) for k, x in shapes.items()})


def test_features_loss_and_gradients_equal_hugging_face(numbers, params, weights):
    images, ids = numbers["images"], numbers["ids"]
    assert len(set(np.argmax(ids, axis=1))) == 3

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def run(weights):
        variables = {"params": weights["image"]}
        (tokens,) = IMAGE.apply(variables, images, last=1, norm=False, method="tokens")
        image = IMAGE.apply(variables, images) @ weights["project"]
        text = TEXT.apply({"params": weights["text"]}, ids)
        return clip(image, text, jnp.exp(weights["log_scale"])), (tokens, image, text)

    (loss, (tokens, image, text)), gradients = run(weights)
    close(tokens, numbers["vision_tokens"], atol=1e-5)
    close(normalize(image), numbers["image"])
    close(normalize(text), numbers["text"])
    close(loss, numbers["loss"])
    theirs = {k.removeprefix("gradient."): v for k, v in numbers.items() if k.startswith("gradient.")}
    expected = params(theirs)
    # The prefix is the sum of the class token and its position, so its gradient is that of either, and not their sum.
    token = theirs["vision_model.embeddings.class_embedding"]
    close(theirs["vision_model.embeddings.position_embedding.weight"][0], token)
    expected["image"]["prefix"] = token[None]
    jax.tree.map(close, gradients, expected)


@pytest.mark.parametrize("name, model", [("clip_text_b", clip_text_b), ("clip_text_l", clip_text_l)])
def test_published_sizes_have_as_many_parameters(numbers, name, model):
    shapes = jax.eval_shape(lambda: model(scan=True).init(jax.random.key(0), jnp.zeros((1, 2), int)))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == numbers[f"parameters.{name}"]


def test_what_stands_after_the_end_has_no_effect(draw):
    run = jax.jit(partial(TEXT.apply, draw(TEXT, IDS)))
    other = np.where(np.arange(6) > np.argmax(IDS, axis=1)[:, None], 8, IDS)
    close(run(other), run(IDS))
    close(run(IDS[:1, :3]), run(IDS)[:1])
    assert not np.allclose(run(np.where(IDS == 3, 4, IDS))[1], run(IDS)[1], atol=1e-3)


def test_the_end_may_be_any_id(draw):
    """Its first place counts, as it may serve as padding too."""
    model, ids = TEXT.clone(eot=1), np.array([[5, 2, 1, 1, 1, 1], [7, EOT, 3, 9, 4, 1]])
    variables = draw(model, IDS)
    whole, later = model.apply(variables, ids), np.where(np.arange(6) == 4, 7, ids)
    close(model.apply(variables, later)[0], whole[0])
    np.testing.assert_array_equal(np.isclose(whole, TEXT.apply(variables, ids)).all(axis=1), [False, False])


def test_initial_values_are_openais():
    model = CLIPText(vocabulary=64, positions=16, width=64, depth=2, heads=2, dim=48)
    leaves = traverse_util.flatten_dict(model.init(jax.random.key(0), IDS)["params"], sep="/")
    ends = 64**-0.5 / np.sqrt(2 * 2)
    stds = {"embed/tokens": 0.02, "embed/positions": 0.01, "out/": ends, "mlp2/": ends, "mlp1/": (2 * 64) ** -0.5}
    stds |= {f"{name}/kernel": 64**-0.5 for name in ("query", "key", "value", "project")}
    for name, x in leaves.items():
        if x.ndim > 1 and "bias" not in name:
            (expected,) = (std for part, std in stds.items() if part in name)
            assert abs(x.std() / expected - 1) < 5 / np.sqrt(2 * x.size), name


def test_half_precision_keeps_parameters_and_features_in_float32(draw):
    model = TEXT.clone(dtype=jnp.bfloat16)
    variables = draw(model, IDS)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype("float32")}
    half, whole = model.apply(variables, IDS), TEXT.apply(variables, IDS)
    assert half.dtype == jnp.float32 and (half != whole).any()
    np.testing.assert_allclose(half, whole, atol=0.1)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="width 9 must be divisible by heads 2"):
        TEXT.clone(width=9)
    with pytest.raises(ValueError, match="activation 'relu' is unknown; use one of gelu, gelu_tanh, quick_gelu"):
        TEXT.clone(activation="relu")
    with pytest.raises(ValueError, match=r"ids \(2, 13\) of int32 must be .* with 1 to 12 tokens"):
        jax.eval_shape(lambda: TEXT.init(jax.random.key(0), jnp.zeros((2, 13), int)))
