"""A linear classifier on frozen features."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ssljax.evals.scores import Score

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Values of C, the inverse of the L2 penalty, that are tried on held-out training examples."""


def linear_probe(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, labels: np.ndarray, *, iterations: int = 100, seed: int = 0
) -> tuple[Score, float]:
    """Multinomial logistic regression (L-BFGS) on standardised features, and the C that it took.

    C is chosen on a fifth of the training examples, held out; the classifier is then fitted to all of them. The test
    examples choose nothing.
    """
    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    order = np.random.default_rng(seed).permutation(len(train))
    held_out, fitted = np.split(order, [max(1, len(train) // 5)])

    def fit(rows, penalty):
        return LogisticRegression(C=penalty, max_iter=iterations).fit(train[rows], train_labels[rows])

    best = max(PENALTIES, key=lambda c: fit(fitted, c).score(train[held_out], train_labels[held_out]))
    return Score(fit(order, best).predict(test) == labels), best
