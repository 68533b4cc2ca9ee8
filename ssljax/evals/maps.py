"""Two-dimensional maps of features, to look at."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np


def tsne(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """(examples, dim) -> (examples, 2), from the 50 first principal components.

    Which points are neighbours means much, how far groups are apart nothing.
    """
    from sklearn.manifold import TSNE

    components = min(50, *features.shape)
    reduced = _principal(features, components, seed)
    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)


def umap(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """(examples, dim) -> (examples, 2), from the graph of each example's 15 nearest by Euclid's distance.

    Which points are neighbours means much, how far groups are apart little. Needs the package umap-learn.

    McInnes et al., "UMAP: Uniform Manifold Approximation and Projection for Dimension Reduction", 2018.
    """
    from umap import UMAP

    neighbours = min(15, len(features) - 1)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that a seed means one thread
        return UMAP(n_neighbors=neighbours, init="pca", random_state=seed).fit_transform(features)


def pca(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """(examples, dim) -> (examples, 2), the coordinates along the two directions in which features vary most.

    Features of one dimension lie on a line.
    """
    found = _principal(features, min(2, features.shape[1]), seed)
    return np.pad(found, [(0, 0), (0, 2 - found.shape[1])])


def _principal(features: np.ndarray, components: int, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA

    return PCA(components, random_state=seed).fit_transform(features)


MAPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"t-SNE": tsne, "UMAP": umap, "PCA": pca}


def maps(features: np.ndarray) -> dict[str, np.ndarray]:
    """All `MAPS` of features (examples, dim), each (examples, 2), but UMAP where its package is not installed.

    Examples that all have the same features lie at one point; scikit-learn's t-SNE crashes on them.
    """
    kinds = [kind for kind in MAPS if kind != "UMAP" or find_spec("umap")]
    if not np.ptp(features, axis=0).any():
        return {kind: np.zeros((len(features), 2), np.float32) for kind in kinds}
    return {kind: MAPS[kind](features) for kind in kinds}
