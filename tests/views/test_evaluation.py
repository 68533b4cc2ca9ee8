"""Random crops and masks, as evaluation sees them."""

import jax
import numpy as np

from ssljax.collectives import example_keys
from ssljax.views.evaluation import cropped, masks_in_view

IGNORED = 255


def test_crops_are_parts_of_the_image():
    """Of a picture whose pixels say where they are: within it, of its ratio or near, mirrored half of the time."""
    rows, columns = np.mgrid[:24, :32] / 32
    images = np.stack([rows, columns, 0 * rows], axis=-1)[None].repeat(200, axis=0).astype(np.float32)
    keys = example_keys(jax.random.key(0), 200)
    found = cropped(keys, {"image": images, "size": np.full((200, 2), [48, 64])})
    assert found["image"].shape == (200, 24, 24, 3) and found["size"].tolist() == [[24, 24]] * 200
    across, down = (np.ptp(np.asarray(found["image"])[..., i], axis=(1, 2)) for i in (1, 0))
    assert across.min() < 0.4 and across.max() > 0.8 and 0.05 < (across * down / (23 * 31 / 32**2)).mean() < 0.6
    mirrored = np.asarray(found["image"])[:, 12, 0, 1] > np.asarray(found["image"])[:, 12, -1, 1]
    assert 0.3 < mirrored.mean() < 0.7


def test_masks_are_seen_as_their_images_are():
    """The central square, in another size; no class between two others comes from mixing them."""
    masks = np.zeros((3, 8, 12), np.uint8)
    masks[:, :, 6:], masks[1:, :4] = 7, IGNORED
    view = masks_in_view(masks, 16, 1.0)
    assert view.shape == (3, 16, 16) and set(np.unique(view)) == {0, 7, IGNORED}
    assert (view[0, :, :8] == 0).all() and (view[0, :, 8:] == 7).all() and (view[2, :8] == IGNORED).all()
