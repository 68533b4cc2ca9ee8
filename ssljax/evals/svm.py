"""A support vector machine on frozen features."""

import numpy as np

from ssljax.evals.linear import require_classes
from ssljax.evals.scores import Score

PENALTIES = tuple(10.0**k for k in range(-4, 5))
"""Values of C that are tried."""
INNER_FOLDS, MOST = 5, 10_000
"""The folds of the training examples on which C is chosen, and how many of the examples are used at most."""


def svm(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> Score:
    """RBF kernel, exp(-γ |x - y|²) with γ = 1 / (dim · variance of the features), the features as they are.

    C is the best of `PENALTIES` on stratified folds of the training examples (of a class with fewer examples than
    folds, as many as it has; with a class of one the middle C is taken). Of more than MOST training examples a part is
    drawn. TS2Vec's and GraphCL's authors do so, with slightly other grids.

    train (examples, dim), test (examples, dim), labels 0 … classes - 1. Raises ValueError if those of training are all
    the same.
    """
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.svm import SVC

    require_classes(train_labels)
    if len(train) > MOST:
        rows = np.random.default_rng(seed).permutation(len(train))[:MOST]
        train, train_labels = train[rows], train_labels[rows]
    model = SVC(C=1.0, gamma="scale")
    folds = min(INNER_FOLDS, int(np.min(np.unique(train_labels, return_counts=True)[1])))
    if folds > 1:
        splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
        model = GridSearchCV(model, {"C": list(PENALTIES)}, cv=splits)
    return Score(model.fit(train, train_labels).predict(test) == labels)
