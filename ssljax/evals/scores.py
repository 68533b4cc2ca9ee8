"""Accuracies with their uncertainty, and differences of two classifiers on the same examples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROUNDING = 1e-6
"""Of numbers in [0, 1], also of 32 bits."""


@dataclass(frozen=True)
class Score:
    """correct: which test examples a classifier got right, bool (examples,); or, of several classifiers, how many:
    floats. draws: the accuracy of each of these. chosen: what was, on held-out training examples, in words."""

    correct: np.ndarray
    draws: tuple[float, ...] = ()
    chosen: str = ""

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    @property
    def standard_error(self) -> float:
        """√(p (1 - p) / n + s² / m), of n test examples and m draws whose accuracies have the standard deviation s.

        p and n are counted with two more examples that are right and two that are wrong, so that a few examples that
        are all right, or all wrong, leave some doubt (Agresti and Coull, 1998).
        """
        n = len(self.correct) + 4
        p = (float(self.correct.sum()) + 2) / n
        return float(np.sqrt(p * (1 - p) / n + _of_draws(self.draws)))


def averaged(right: Sequence[np.ndarray]) -> Score:
    """Of several classifiers, which test examples each got right, bool (examples,)."""
    return Score(np.mean(right, axis=0), tuple(float(each.mean()) for each in right))


def bootstrap(values: np.ndarray, *, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Between what 95 % of the means lie of `draws` samples, with replacement, of as many values: (examples,).

    Efron, 1979; the percentiles 2.5 and 97.5. Samples are drawn by how often each of the distinct values comes.
    """
    distinct, counts = np.unique(values, return_counts=True)
    random, means = np.random.default_rng(seed), []
    for part in np.array_split(np.arange(draws), max(1, draws * len(distinct) // 10**7)):
        means.append(random.multinomial(len(values), counts / len(values), size=len(part)) @ distinct / len(values))
    low, high = np.percentile(np.concatenate(means), (2.5, 97.5))
    return float(low), float(high)


def margin(score: Score, floor: Score) -> tuple[float, float]:
    """How much better `score` is than `floor`, and the standard error of that.

    The test examples are the same, so the error is that of the mean of paired differences, which is smaller than that
    of two independent accuracies; so are the draws of labels, if both have as many. It is 0 where all differences are
    the same but for rounding.
    """
    difference = score.correct.astype(np.float64) - floor.correct.astype(np.float64)
    spread = difference.std(ddof=min(1, len(difference) - 1)) if np.ptp(difference) > ROUNDING else 0.0
    if len(score.draws) == len(floor.draws):
        drawn = _of_draws(np.subtract(score.draws, floor.draws))
    else:
        drawn = _of_draws(score.draws) + _of_draws(floor.draws)
    return float(difference.mean()), float(np.sqrt(spread**2 / len(difference) + drawn))


def _of_draws(values: Sequence[float] | np.ndarray) -> float:
    """The squared standard error of the mean of these; 0 where one value says nothing of it, or none differs."""
    return float(np.var(values, ddof=1) / len(values)) if len(values) > 1 and np.ptp(values) > ROUNDING else 0.0


def share_of(right: np.ndarray) -> dict[str, float]:
    """Of examples, bool (examples,), as a number of a table; the error is `Score`'s."""
    score = Score(right)
    return {"value": score.accuracy, "standard_error": score.standard_error}


def mean_of(sums: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Σ sums / Σ counts over examples, and its standard error, √(Σ (sum - mean · count)²) / Σ count."""
    sums, counts = np.asarray(sums, np.float64), np.asarray(counts, np.float64)
    mean = np.sum(sums) / np.sum(counts)
    return {
        "value": float(mean),
        "standard_error": float(np.sqrt(np.square(sums - mean * counts).sum()) / counts.sum()),
    }


def written(number: dict[str, float]) -> str:
    """For instance "1.884 ± 0.008"."""
    return f"{number['value']:.3f}" + (f" ± {number['standard_error']:.3f}" if "standard_error" in number else "")
