"""What can be seen in the patches of images: where attention lies, and which patches are alike."""

import numpy as np


def held(attention: np.ndarray, share: float = 0.6) -> np.ndarray:
    """Attention (…, patches) -> bool, the same shape: the fewest patches that hold more than `share` of it.

    So DINO's `visualize_attention.py` draws it, with the same share. What is not on patches does not count.
    """
    order = np.argsort(attention, axis=-1, kind="stable")
    rising = np.take_along_axis(attention, order, axis=-1).astype(np.float64)
    below = np.cumsum(rising, axis=-1) / rising.sum(axis=-1, keepdims=True)
    mask = np.empty(attention.shape, bool)
    np.put_along_axis(mask, order, below > 1 - share, axis=-1)
    return mask


def principal_colours(tokens: np.ndarray) -> np.ndarray:
    """Patches (images, patches, dim) -> red, green and blue (images, patches, 3) in [0, 1]: their first three principal
    components, each stretched from its least to its greatest value over all images.

    As DINOv2 shows patches, but without leaving out the background first. Oquab et al., "DINOv2", 2023, figure 1.
    """
    from sklearn.decomposition import PCA

    rows = tokens.reshape(-1, tokens.shape[-1])
    if not np.ptp(rows, axis=0).any():
        return np.zeros((*tokens.shape[:-1], 3))
    components = min(3, *rows.shape)
    found = PCA(components, random_state=0).fit_transform(rows)
    low, high = found.min(axis=0), found.max(axis=0)
    colours = np.pad((found - low) / np.maximum(high - low, 1e-12), [(0, 0), (0, 3 - components)])
    return colours.reshape(*tokens.shape[:-1], 3)
