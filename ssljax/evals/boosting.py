"""The floor that tables have: gradient boosting on the raw columns."""

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from ssljax.evals.linear import over_draws
from ssljax.evals.scores import Score


def boosting(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, labels: np.ndarray, *, share: float = 1.0
) -> Score:
    """scikit-learn's histogram-based gradient boosting with its defaults, on a share of each class as in
    `linear_probe`. train, test (examples, dim)."""

    def right(rows: np.ndarray) -> np.ndarray:
        model = HistGradientBoostingClassifier(random_state=0)
        return model.fit(train[rows], train_labels[rows]).predict(test) == labels

    return over_draws(right, train_labels, share)
