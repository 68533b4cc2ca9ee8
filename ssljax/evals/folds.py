"""Cross-validation, where a set has no test split."""

from collections.abc import Callable

import numpy as np

from ssljax.evals.scores import Score


def cross_validated(
    judge: Callable[..., Score], features: np.ndarray, labels: np.ndarray, folds: int, seed: int = 0
) -> Score:
    """Whether each example is right when it is held out: `judge(train, train_labels, test, labels)` for each of
    `folds` parts, in which classes are as frequent as in the whole.

    Raises ValueError if a class has fewer examples than there are folds.
    """
    from sklearn.model_selection import StratifiedKFold

    if (fewest := np.min(np.unique(labels, return_counts=True)[1])) < folds:
        raise ValueError(f"a class has only {fewest} examples, too few for {folds} folds: give it more, or drop it.")
    correct = np.zeros(len(labels), float)
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(features, labels):
        correct[test] = judge(features[train], labels[train], features[test], labels[test]).correct
    return Score(correct)
