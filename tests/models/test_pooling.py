"""Means over parts of a clip."""

import jax.numpy as jnp
import numpy as np

from ssljax.models.pooling import segment_means


def test_means_of_parts_are_a_loops_and_padding_is_nothing():
    x, frames = np.random.RandomState(0).randn(5, 9, 3).astype(np.float32), np.array([9, 8, 5, 2, 1])
    padded = np.where(np.arange(9)[None, :, None] < frames[:, None, None], x, np.nan)
    found = segment_means(jnp.asarray(padded), jnp.asarray(frames), 4)
    assert found.shape == (5, 12)
    for row, clip, n in zip(found.reshape(5, 4, 3), x, frames, strict=True):
        for part in range(4):
            bounds = int(np.floor(part * n / 4)), int(np.ceil((part + 1) * n / 4))
            np.testing.assert_allclose(row[part], clip[slice(*bounds)].mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1].reshape(4, 3), x[1, :8].reshape(4, 2, 3).mean(axis=1), rtol=1e-5, atol=1e-6)
