"""The floors that tables have: classifiers of the columns themselves, by scikit-learn with its defaults.

Each learns from a share of each class, as in `ssljax.evals.linear.linear_probe`. train, test (examples, dim): numbers
as they are scaled, and of categories zeros and a one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ssljax.evals.linear import over_draws
from ssljax.evals.scores import Score


def logistic_regression(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, labels: np.ndarray, *, share: float = 1.0
) -> Score:
    """With an L2 penalty of 1 / examples on the weights, and columns that are not standardised: unlike a
    `linear_probe`, which blows up rare categories."""
    from sklearn.linear_model import LogisticRegression

    return _judged(lambda: LogisticRegression(max_iter=1000), train, train_labels, test, labels, share)


def boosting(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, labels: np.ndarray, *, share: float = 1.0
) -> Score:
    """Histogram-based gradient boosting."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return _judged(lambda: HistGradientBoostingClassifier(random_state=0), train, train_labels, test, labels, share)


def _judged(model: Callable[[], Any], train, train_labels, test, labels, share: float) -> Score:
    def right(rows: np.ndarray) -> np.ndarray:
        return model().fit(train[rows], train_labels[rows]).predict(test) == labels

    return over_draws(right, train_labels, share)
