"""VideoMAE's encoder, decoder and loss against Hugging Face's with the same weights."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from seeded import weight

from ssljax.collectives import example_keys
from ssljax.losses import videomae_loss
from ssljax.models.video import VideoDecoder, VideoViT, sinusoid_positions

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
ENCODER = VideoViT(width=16, depth=2, heads=2, patch=4, tubelet=2, epsilon=1e-5)
DECODER = VideoDecoder(width=8, depth=1, heads=2, pixels=96, epsilon=1e-5)

# Weights: drawn by the names and shapes of Hugging Face's -------------------------------------------------------------


def dense(name, inputs, outputs, bias=True):
    params = {"kernel": weight(f"{name}.weight", (outputs, inputs)).T}
    return params | {"bias": weight(f"{name}.bias", (outputs,))} if bias else params


def norm(name, dim):
    return {"scale": weight(f"{name}.weight", (dim,)), "bias": weight(f"{name}.bias", (dim,))}


def block(name, dim, heads):
    """Theirs has no bias of keys: zero."""
    attention = {}
    for part in ("query", "key", "value"):
        params = dense(f"{name}.attention.attention.{part}", dim, dim, bias=part != "key")
        attention[part] = {
            "kernel": params["kernel"].reshape(dim, heads, -1),
            "bias": params.get("bias", np.zeros(dim, np.float32)).reshape(heads, -1),
        }
    out = dense(f"{name}.attention.output.dense", dim, dim)
    attention["out"] = out | {"kernel": out["kernel"].reshape(heads, -1, dim)}
    return {
        "norm1": norm(f"{name}.layernorm_before", dim),
        "attention": attention,
        "norm2": norm(f"{name}.layernorm_after", dim),
        "mlp1": dense(f"{name}.intermediate.dense", dim, 4 * dim),
        "mlp2": dense(f"{name}.output.dense", 4 * dim, dim),
    }


def patch_kernel(x):
    """(width, channel, frame, row, column) -> (frame row column channel, width)"""
    return x.transpose(2, 3, 4, 1, 0).reshape(96, -1)


@pytest.fixture(scope="module")
def params():
    embed, layers = "videomae.embeddings.patch_embeddings.projection", "videomae.encoder.layer"
    kernel = patch_kernel(weight(f"{embed}.weight", (16, 3, 2, 4, 4)))
    return {
        "encoder": {
            "patch_embed": {"kernel": kernel, "bias": weight(f"{embed}.bias", (16,))},
            "encoder": {f"block{i}": block(f"{layers}.{i}", 16, 2) for i in range(2)},
            "norm": norm("videomae.layernorm", 16),
        },
        "decoder": {
            "embed": dense("encoder_to_decoder", 16, 8, bias=False),
            "mask_token": weight("mask_token", (1, 1, 8))[0, 0],
            "decoder": {"block0": block("decoder.decoder_layers.0", 8, 2)},
            "norm": norm("decoder.norm", 8),
            "pixels": dense("decoder.head", 8, 96),
        },
    }


# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("videomae")


@pytest.fixture(scope="module")
def inputs(numbers):
    """(normalised videos, indexes of visible and of hidden tokens)"""
    mask = numbers["mask"]
    indexes = (np.nonzero(m)[1].reshape(len(mask), -1) for m in (~mask, mask))
    return (numbers["videos"] - numbers["mean"]) / numbers["std"], *indexes


def reconstruct(params, videos, keep, hide):
    tokens = ENCODER.apply({"params": params["encoder"]}, videos, keep=keep, method="tokens")
    return tokens, DECODER.apply({"params": params["decoder"]}, tokens, keep, hide)


def test_from_pixels_to_loss_and_gradients_equal_hugging_face(numbers, params, inputs):
    def loss(params):
        tokens, prediction = reconstruct(params, *inputs)
        return videomae_loss(numbers["videos"], prediction, inputs[2], 2, 4), (tokens, prediction)

    (value, (tokens, prediction)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    close(tokens, numbers["encoded"])
    close(prediction, numbers["logits"])
    close(value, numbers["loss"])

    encoder, decoder = gradients["encoder"], gradients["decoder"]
    query = encoder["encoder"]["block0"]["attention"]["query"]["bias"].ravel()
    embed = "d.videomae.embeddings.patch_embeddings.projection.weight"
    close(encoder["patch_embed"]["kernel"], patch_kernel(numbers[embed]))
    close(query, numbers["d.videomae.encoder.layer.0.attention.attention.query.bias"])
    mlp2 = encoder["encoder"]["block1"]["mlp2"]["kernel"]
    close(mlp2, numbers["d.videomae.encoder.layer.1.output.dense.weight"].T)
    close(decoder["mask_token"], numbers["d.mask_token"][0, 0])
    close(decoder["embed"]["kernel"], numbers["d.encoder_to_decoder.weight"].T)
    close(decoder["pixels"]["kernel"], numbers["d.decoder.head.weight"].T)
    # The bias of keys, which theirs has not, is never moved.
    key = encoder["encoder"]["block0"]["attention"]["key"]["bias"]
    assert np.abs(key).max() < 1e-6 < 1e-4 < np.abs(query).max()


def test_positions_are_its_table(numbers):
    close(sinusoid_positions(12, 16), numbers["positions"])
    with pytest.raises(ValueError, match="need a width that 2 divides, but it is 5"):
        sinusoid_positions(12, 5)


def test_order_of_indexes_does_not_matter(params, inputs):
    videos, keep, hide = inputs
    run = jax.jit(reconstruct)
    _, expected = run(params, videos, keep, hide)
    _, turned = run(params, videos, keep[:, ::-1], hide[:, ::-1])
    close(turned[:, ::-1], expected)


def test_all_tokens_without_keep_and_features_are_their_mean(params, inputs):
    videos = inputs[0]
    run = jax.jit(partial(ENCODER.apply, {"params": params["encoder"]}), static_argnames="method")
    tokens = run(videos, method="tokens")
    close(tokens, run(videos, keep=np.tile(np.arange(12), (2, 1)), method="tokens"))
    close(ENCODER.apply({"params": params["encoder"]}, videos), np.mean(tokens, axis=1))


def test_drop_path_belongs_to_the_example(params, inputs):
    encoder = ENCODER.clone(drop_path=0.9)
    run = jax.jit(partial(encoder.apply, {"params": params["encoder"]}, train=True))
    keys = example_keys(jax.random.key(3), 2)
    close(run(inputs[0][::-1], keys=keys[::-1]), run(inputs[0], keys=keys)[::-1])
    same = jnp.tile(inputs[0][:1], (40, 1, 1, 1, 1))
    assert len(np.unique(np.round(run(same, keys=example_keys(jax.random.key(0), 40)), 4), axis=0)) > 1
    with pytest.raises(ValueError, match="needs `keys`"):
        encoder.apply({"params": params["encoder"]}, inputs[0], train=True)


def test_videos_that_cannot_be_cut_are_named():
    for shape in ((1, 5, 8, 8, 3), (1, 6, 10, 8, 3), (1, 6, 8, 10, 3)):
        with pytest.raises(ValueError, match=f"videos of {shape[1]} frames of {shape[2]}x{shape[3]} cannot be cut"):
            jax.eval_shape(lambda shape=shape: ENCODER.init(jax.random.key(0), jnp.zeros(shape)))
    with pytest.raises(ValueError, match="width 16 must be divisible by heads 3"):
        ENCODER.clone(heads=3)
