"""The attention of a ViT's last block: what a loop over heads and tokens gives, and what is known beforehand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.models.vit import ViT, attention_of_patches

IMAGES = np.random.RandomState(0).standard_normal((2, 16, 24, 3)).astype(np.float32)
tiny = partial(ViT, patch=8, width=16, depth=3, heads=2)


def by_hand(block, x, heads):
    """softmax(q kᵀ / √d) of one example's tokens (tokens, width), a head, a query and a key at a time."""
    mean, variance = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
    y = (x - mean) / np.sqrt(variance + 1e-6) * block["norm1"]["scale"] + block["norm1"]["bias"]
    found = np.zeros((heads, len(x), len(x)))
    for head in range(heads):
        project = lambda name: (  # noqa: E731
            y @ block["attention"][name]["kernel"][:, head] + block["attention"][name]["bias"][head]  # noqa: B023
        )
        q, k = project("query"), project("key")
        for i in range(len(x)):
            weights = [np.exp(q[i] @ k[j] / np.sqrt(q.shape[1])) for j in range(len(x))]
            found[head, i] = np.array(weights) / sum(weights)
    return found


@pytest.mark.parametrize("registers", [0, 2])
def test_attention_is_that_of_a_loop(draw, registers):
    vit = tiny(registers=registers)
    variables = draw(vit, IMAGES)
    attention, patches = attention_of_patches(vit, variables["params"], IMAGES)
    before, _ = vit.apply(variables, IMAGES, last=2, norm=False, method="tokens")
    block = jax.tree.map(np.asarray, variables["params"]["encoder"]["block2"])
    first = 1 + registers
    for i in range(len(IMAGES)):
        expected = by_hand(block, np.asarray(before[i], np.float64), heads=2)
        np.testing.assert_allclose(attention[i], expected[:, 0, first:], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(patches, vit.apply(variables, IMAGES, method="tokens")[:, first:], rtol=1e-5, atol=1e-6)


def test_without_a_class_token_it_is_the_mean_of_the_patches(draw):
    vit = tiny(cls_token=False, pool="mean")
    variables = draw(vit, IMAGES)
    attention, _ = attention_of_patches(vit, variables["params"], IMAGES)
    before, _ = vit.apply(variables, IMAGES, last=2, norm=False, method="tokens")
    block = jax.tree.map(np.asarray, variables["params"]["encoder"]["block2"])
    expected = by_hand(block, np.asarray(before[0], np.float64), heads=2).mean(axis=1)
    np.testing.assert_allclose(attention[0], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.sum(attention, axis=-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("remat", ["", "products"])
def test_attention_is_the_same_with_scan_and_remat(draw, remat):
    plain = tiny()
    variables = draw(plain, IMAGES)
    blocks = variables["params"]["encoder"]
    stacked = jax.tree.map(lambda *layers: jnp.stack(layers), *(blocks[f"block{i}"] for i in range(3)))
    params = variables["params"] | {"encoder": {"blocks": stacked}}
    expected = attention_of_patches(plain, variables["params"], IMAGES)
    for got, wanted in zip(attention_of_patches(tiny(scan=True, remat=remat), params, IMAGES), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_attention_is_on_the_only_bright_patch_by_as_much_as_the_logits_say():
    """One block, whose keys are 0 but for that patch: its weight is eˡ / (eˡ + others), at any place."""
    vit = tiny(depth=1, heads=1, positions="learned")
    images = np.zeros((6, 16, 24, 3), np.float32)
    for place in range(6):
        row, column = divmod(place, 3)
        images[place, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1.0
    params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), vit.init(jax.random.key(0), images)["params"])
    sign = np.where(np.arange(16) % 2, -1.0, 1.0).astype(np.float32)  # of mean 0 and variance 1: the norm keeps it
    params["patch_embed"]["kernel"][:] = 100 * sign
    block = params["encoder"]["block0"]
    block["norm1"]["scale"][:] = 1.0
    block["attention"]["query"]["bias"][0, 0] = 8.0
    block["attention"]["key"]["kernel"][0, 0, 0] = 1.0
    logit = 8.0 / np.sqrt(16)
    attention, _ = attention_of_patches(vit, params, images)
    bright, other = np.exp(logit) / (np.exp(logit) + 6), 1 / (np.exp(logit) + 6)
    np.testing.assert_allclose(attention[:, 0], np.where(np.eye(6), bright, other), rtol=1e-5)
