"""A linear classifier on frozen features."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from ssljax.evals.scores import Score

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
"""Strengths of the L2 penalty that are tried on held-out training examples."""


def linear_probe(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    labels: np.ndarray,
    *,
    iterations: int = 50,
    seed: int = 0,
) -> tuple[Score, float]:
    """Multinomial logistic regression on standardised features, and the penalty that it took.

        minimise over W, b:  mean cross-entropy(x W + b, label) + penalty / 2 · |W|²,  at most `iterations` of L-BFGS

    The penalty is chosen on a fifth of the training examples, held out (a set too small for that takes the middle one);
    the classifier is then fitted to all of them. The test examples choose nothing.

    train (examples, dim), test (examples, dim), labels 0 … classes - 1.
    """
    mean, std = train.mean(axis=0), train.std(axis=0)
    x, x_test = ((part - mean) / np.where(std > 0, std, 1.0) for part in (train, test))
    held_out = np.random.default_rng(seed).permutation(len(x)) < len(x) // 5

    def fit(rows: np.ndarray, penalty: float) -> LogisticRegression:
        with warnings.catch_warnings():  # the number of iterations is part of the protocol
            warnings.simplefilter("ignore", ConvergenceWarning)
            return LogisticRegression(C=1 / (penalty * len(rows)), max_iter=iterations).fit(x[rows], train_labels[rows])

    kept, held = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    best = PENALTIES[len(PENALTIES) // 2]
    if len(held) and len(set(train_labels[kept])) > 1:
        best = max(PENALTIES, key=lambda penalty: fit(kept, penalty).score(x[held], train_labels[held]))
    return Score(fit(np.arange(len(x)), best).predict(x_test) == labels), best
