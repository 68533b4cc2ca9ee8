"""Two-dimensional maps of features, to look at."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE


def tsne(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """(examples, dim) -> (examples, 2), from the 50 first principal components.

    Which points are neighbours means much, how far groups are apart nothing.
    """
    components = min(50, *features.shape)
    reduced = PCA(components, random_state=seed).fit_transform(features)
    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
