"""Classification from one or a few labelled examples of each class, in closed form."""

import numpy as np
import scipy

from ssljax.evals.linear import require_classes
from ssljax.evals.retrieval import unit
from ssljax.evals.scores import Score, averaged

DRAWS = 20
"""How many times the examples are drawn, for one draw of so few says little."""


def by_centroid(x: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The class whose mean is the nearest by Euclid's distance."""
    names = np.unique(labels)
    means = np.stack([x[labels == name].mean(axis=0) for name in names])
    return names[scipy.spatial.distance.cdist(queries, means).argmin(axis=1)]


def by_ridge(x: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The class that is told best from all others by ridge regression, |y - Wx - b|² + |W|², of y = ±1."""
    from sklearn.linear_model import RidgeClassifier

    return RidgeClassifier(alpha=1.0).fit(x, labels).predict(queries)


CLASSIFIERS = {"centroid": by_centroid, "ridge": by_ridge}


def few_shot(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    labels: np.ndarray,
    *,
    shots: int,
    classifier: str = "centroid",
) -> Score:
    """How often each test example is right, over DRAWS draws of so many `shots` of each class.

    Features are centred by the mean of all training examples, whose labels this does not need, and scaled to length 1
    (Wang et al., "SimpleShot", 2019; with the nearest centroid it is theirs, CL2N).

    train (examples, dim), test (examples, dim), labels 0 … classes - 1; classifier: of CLASSIFIERS. Raises ValueError
    if a class has fewer examples than shots, or the training labels are all the same.
    """
    require_classes(train_labels)
    x, queries = unit(train - train.mean(axis=0)), unit(test - train.mean(axis=0))

    def right(seed: int) -> np.ndarray:
        rows = draw_shots(train_labels, shots, seed)
        return CLASSIFIERS[classifier](x[rows], train_labels[rows], queries) == labels

    return averaged([right(seed) for seed in range(DRAWS)])


def draw_shots(labels: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Places, ascending, of so many examples of each class, drawn by the seed. Raises ValueError if one has fewer."""
    order = np.random.default_rng(seed).permutation(len(labels))
    classes, counts = np.unique(labels, return_counts=True)
    if (fewest := counts.min()) < shots:
        raise ValueError(
            f"{shots} shots need as many labelled training examples of each class, of which class number "
            f"{classes[counts.argmin()]}, counted from 0, has {fewest}: label more."
        )
    return np.sort(np.concatenate([order[labels[order] == k][:shots] for k in classes]))
