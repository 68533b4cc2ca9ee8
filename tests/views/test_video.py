"""Crops of clips: all frames alike, where VideoMAE's code puts them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ssljax.collectives import example_keys
from ssljax.views.video import PLACES, MultiScaleCrop


def test_places_are_the_thirteen_of_the_authors():
    """`GroupMultiScaleCrop.fill_fix_offset`, more of them: quarters of the room, as (across, down)."""
    corners, sides = [(0, 0), (4, 0), (0, 4), (4, 4), (2, 2)], [(0, 2), (4, 2), (2, 4), (2, 0)]
    between = [(1, 1), (3, 1), (1, 3), (3, 3)]
    assert {(x, y) for y, x in (4 * PLACES).astype(int).tolist()} == {*corners, *sides, *between}
    assert len(PLACES) == 13


def test_crops_have_neighbouring_scales_and_known_places_and_are_of_all_frames():
    """A ramp over rows and columns shows the box by its value in the middle and its slope; enlarged, it is straight."""
    rows, columns = np.mgrid[0:40, 0:60] / 100
    frame = np.stack([rows, columns, np.zeros_like(rows)], axis=-1)
    video = jnp.asarray(np.tile(frame, (64, 2, 1, 1, 1)), jnp.float32).at[:, 1, :, :, 2].set(1.0)
    crop = MultiScaleCrop(size=80)
    clips = np.asarray(crop(example_keys(jax.random.key(0), 64), {"video": video}))
    assert clips.shape == (64, 2, 80, 80, 3)
    np.testing.assert_array_equal(clips[:, 0, :, :, :2], clips[:, 1, :, :, :2])
    np.testing.assert_allclose(clips[:, 1, ..., 2] - clips[:, 0, ..., 2], 1.0, atol=1e-5)
    boxes = set()
    for clip in clips[:, 0]:
        down, across = 100 * clip[:, 40, 0] + 0.5, 100 * clip[40, :, 1] + 0.5
        height, width = (round(80 * np.diff(line[20:60]).mean()) for line in (down, across))
        top, left = down[39:41].mean() - height / 2, across[39:41].mean() - width / 2
        boxes.add((height, width))
        place = [top / max(40 - height, 1), left / max(60 - width, 1)]
        if height < 40:
            assert np.abs(PLACES - place).max(axis=1).min() < 0.05, place
    sides = (40, 35, 30, 26)
    near = {(a, b) for i, a in enumerate(sides) for j, b in enumerate(sides) if abs(i - j) <= 1}
    assert boxes <= near and len(boxes) > 6


def test_boxes_are_in_pixels_of_the_original():
    """A square of a wide clip is the middle of its canvas, which is squeezed."""
    ramp = jnp.tile((jnp.arange(32) + 0.5)[None, None, None, :, None] / 32, (1, 2, 32, 1, 3))
    crop = MultiScaleCrop(size=16)
    middle = crop.center({"video": ramp, "size": jnp.array([[100, 200]])})[0, 0, 8, :, 0]
    np.testing.assert_allclose([middle[4:12].mean(), middle[11] - middle[4]], [0.5, 7 / 16 / 2], atol=1e-3)


def test_a_central_square_is_pillows():
    video = np.random.RandomState(0).randint(70, 180, (1, 3, 24, 40, 3)).astype(np.uint8)
    found = np.asarray(MultiScaleCrop(size=12).center({"video": jnp.asarray(video)}))[0]
    for frame, expected in zip(found, video[0], strict=True):
        resized = Image.fromarray(expected[:, 8:32]).resize((12, 12), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(255 * frame, resized, atol=1.1)


def test_mean_and_deviation_are_taken_and_given_back():
    crop = MultiScaleCrop(size=4)
    videos = jnp.full((1, 2, 4, 4, 3), 0.5)
    np.testing.assert_allclose(crop.normalize(videos)[0, 0, 0, 0], [0.0655, 0.1964, 0.4178], atol=1e-4)
    np.testing.assert_allclose(crop.unnormalize(crop.normalize(videos)), videos, atol=1e-6)


@pytest.mark.parametrize("fields", [{"size": 0}, {"scales": (1.2,)}, {"scales": ()}])
def test_numbers_out_of_range_are_named(fields):
    with pytest.raises(ValueError, match="config.views.size=.* must be at least 1, and scales=.* parts above 0"):
        MultiScaleCrop(**fields)
