"""A linear classifier on frozen features."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ssljax.evals.scores import Score, averaged

PENALTIES = {"standard": (1e-3, 1e-2, 1e-1, 1.0), "unit": (1e-5, 1e-4, 1e-3, 1e-2)}
"""Strengths of the L2 penalty that are tried on held-out training examples, for each way to scale: features to mean 0
and standard deviation 1, or examples to length 1."""


FOLDS, FEW = 5, 2000
"""The penalty is chosen on a fifth of the training examples; of fewer than so many, on each fifth in turn."""
OF_ONE_THREAD = 2**25
"""Numbers in features for which several threads wait for each other more than they help, where others use them too."""
DRAWS = 5
"""How many times a part of the labels is drawn, for one draw says little."""


def linear_probe(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    labels: np.ndarray,
    *,
    share: float = 1.0,
    scaling: str = "standard",
    iterations: int = 50,
    seed: int = 0,
) -> tuple[Score, float]:
    """Multinomial logistic regression on scaled features, and the penalty that it took (the last draw's).

        minimise over W, b:  mean cross-entropy(x W + b, label) + penalty / 2 · |W|²,  at most `iterations` of L-BFGS

    The penalty is chosen on a fifth of the training examples, held out, or where they are FEW by the mean over all
    fifths (a set too small for that takes the middle one); the classifier is then fitted to all of them. The test
    examples choose nothing.

    train (examples, dim), test (examples, dim), labels 0 … classes - 1. share: of the labels that are used: see
    `over_draws`. scaling: of `PENALTIES`; "unit" is for features of which most are zero, such as words of a text.
    """
    taken = []

    def right(rows: np.ndarray) -> np.ndarray:
        held = fifths(len(rows), seed)
        predicted, best = _fitted(train[rows], train_labels[rows], test, scaling, iterations, held=held)
        taken.append(best)
        return predicted == labels

    score = over_draws(right, train_labels, share)
    return replace(score, chosen=f"L2 penalty {', '.join(f'{best:g}' for best in sorted(set(taken)))}"), taken[-1]


def leave_one_out(
    x: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, scaling: str = "standard", iterations: int = 50
) -> Score:
    """How often the examples of each group are right by a `linear_probe` that has learnt from all other groups; its
    penalty is chosen by holding out the next group, too.

    x (examples, dim), labels and groups (examples,). Raises ValueError if there are fewer than three groups, or
    the examples of all but one are of one class.
    """
    names = np.unique(groups)
    if len(names) < 3:
        raise ValueError(f"to leave one of the groups out, there must be at least 3, not {len(names)}.")
    right = np.zeros(len(x), bool)
    for name, following in zip(names, np.roll(names, -1), strict=True):
        out = groups == name
        require_classes(labels[~out])
        held = [groups[~out] == following]
        predicted, _ = _fitted(x[~out], labels[~out], x[out], scaling, iterations, held=held)
        right[out] = predicted == labels[out]
    return Score(right)


def over_draws(right: Callable[[np.ndarray], np.ndarray], labels: np.ndarray, share: float) -> Score:
    """How often each test example is right: `right(rows)` says it of a classifier that has learnt from those training
    examples. With a share below 1, the mean over DRAWS of so much of each class, one example at least.

    labels: of the training examples. Raises ValueError if they are all the same.
    """
    require_classes(labels)
    if share == 1:
        return Score(right(np.arange(len(labels))))
    return averaged([right(class_share(labels, share, seed)) for seed in range(DRAWS)])


def require_classes(labels: np.ndarray) -> None:
    """Raises ValueError if the labels to learn from are all the same."""
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"all {len(labels)} labels to learn from are the same, which leaves nothing to tell apart: label training "
            "examples of two classes or more."
        )


def class_share(labels: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """Places, ascending, of a share of the examples of each class, one at least, drawn by the seed."""
    order = np.random.default_rng(seed).permutation(len(labels))
    of_classes = (order[labels[order] == k] for k in np.unique(labels))
    return np.sort(np.concatenate([places[: max(1, round(share * len(places)))] for places in of_classes]))


def fifths(count: int, seed: int) -> list[np.ndarray]:
    """Of so many examples, which are in each part that is held out in turn, bool (count,): all FOLDS parts, or one."""
    place = np.random.default_rng(seed).permutation(count)
    bounds = [k * count // FOLDS for k in range(FOLDS + 1)]
    held = [(start <= place) & (place < end) for start, end in zip(bounds, bounds[1:], strict=False)]
    return held[: FOLDS if count < FEW else 1]


def _fitted(x, labels, x_test, scaling: str, iterations: int, held: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """(predictions for the test examples, the penalty), which is chosen on the parts that are held out in turn."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if scaling == "unit":
        x, x_test = (part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in (x, x_test))
    else:
        mean, std = x.mean(axis=0), x.std(axis=0)
        x, x_test = ((part - mean) / np.where(std > 0, std, 1.0) for part in (x, x_test))

    def fit(rows: np.ndarray, penalty: float) -> Any:
        with threadpool_limits(1 if x.size <= OF_ONE_THREAD else None), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the number of iterations is part of the protocol
            return LogisticRegression(C=1 / (penalty * len(rows)), max_iter=iterations).fit(x[rows], labels[rows])

    def held_out_accuracy(penalty: float) -> float:
        return float(np.mean([fit(kept, penalty).score(x[part], labels[part]) for kept, part in folds]))

    folds = [(np.flatnonzero(~part), np.flatnonzero(part)) for part in held]
    best = PENALTIES[scaling][2]
    if all(len(fold) and len(set(labels[kept])) > 1 for kept, fold in folds):
        best = max(PENALTIES[scaling], key=held_out_accuracy)
    return fit(np.arange(len(x)), best).predict(x_test), best
