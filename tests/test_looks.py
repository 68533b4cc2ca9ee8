"""What a report shows of an encoder and a decoder is what the method itself computes."""

import jax
import numpy as np
import pytest

from ssljax.build import modality_of
from ssljax.collectives import example_keys
from ssljax.looks import looks
from ssljax.methods import METHODS

HEADS = 2


@pytest.fixture
def shown(config, method, batches_of):
    """(method, state, batch, what there is to see by its heading) of four examples."""
    kind = METHODS[config.method.name].modality
    batch = {name: x[:4] for name, x in batches_of(kind)[0].items() if name not in ("label", "index")}
    state = jax.jit(method.init)(jax.random.key(0), batches_of(kind)[0])
    # A target that is not the online network shows which of both is looked at.
    state = state.replace(target=jax.tree.map(lambda x: 1.5 * x + 0.1, state.target))
    seen = looks(method, modality_of(config), state, batch, example_keys(jax.random.key(0), 4))
    return method, state, batch, {heading: (caption, pictures) for heading, caption, pictures in seen}


@pytest.mark.parametrize("name", ["mae", "dino", "ijepa", "clip"], indirect=True)
def test_attention_is_of_the_encoder_that_is_evaluated(shown):
    method, state, batch, seen = shown
    caption, pictures = seen["What the encoder looks at"]
    side = method.augmentations[0].size
    assert pictures.shape == (4, 2, 1 + HEADS, side, side, 3) and pictures.min() >= 0 and pictures.max() <= 1
    assert ("the class token's attention" if method.encoder.cls_token else "no class token") in caption
    images, attention, patches = method.look(state, batch)
    np.testing.assert_allclose(pictures[:, 0, 0], images, rtol=1e-5, atol=1e-5)
    assert attention.shape[:2] == (4, HEADS) and (np.sum(attention, axis=-1) < 1 + 1e-5).all()
    if method.encoder.pool == "mean":
        np.testing.assert_allclose(patches.mean(axis=1), method.features(state, batch), rtol=1e-4, atol=1e-5)
    elsewhere = state.replace(params={}) if state.target else state
    np.testing.assert_array_equal(method.look(elsewhere, batch)[1], attention)


@pytest.mark.parametrize("name", ["mae", "videomae"], indirect=True)
def test_reconstructions_hide_more_and_more(shown):
    method, _, _, seen = shown
    caption, pictures = seen["Reconstructions"]
    assert "50 %, 75 %, 90 % hidden" in caption
    whole, *rest = np.moveaxis(pictures[:, 0], 1, 0)
    seen_parts, painted = rest[0::2], rest[1::2]
    assert len(seen_parts) == len(painted) == 3
    side = method.encoder.patch  # by patches, for a pixel may happen to look like what hides it
    n, h, w, _ = whole.shape
    same = ((part == whole).reshape(n, h // side, side, w // side, side, 3).all(axis=(2, 4, 5)) for part in seen_parts)
    left = [of.repeat(side, axis=1).repeat(side, axis=2) for of in same]
    shares = [part.mean() for part in left]
    assert shares == sorted(shares, reverse=True) and shares[0] < 0.7
    for more, less in zip(left, left[1:], strict=False):
        assert (more | ~less).all()  # what is hidden stays hidden
    for part, paint in zip(left, painted, strict=True):
        np.testing.assert_allclose(np.where(part[..., None], paint, 0), np.where(part[..., None], whole, 0), atol=1e-5)


@pytest.mark.parametrize("name", ["simclr", "bert"], indirect=True)
def test_others_have_nothing_to_look_at(shown):
    assert shown[-1] == {}
