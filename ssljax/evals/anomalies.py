"""Which steps of a series stand out, from a score for each."""

import numpy as np

WINDOW, DEVIATIONS = 21, 4.0
"""TS2Vec's: scores are taken relative to the mean of so many before; a step stands out by so many deviations."""


def relative(scores: np.ndarray) -> np.ndarray:
    """(score - m) / m with the mean m of the WINDOW scores before it, (steps,); 0 for the first step.

    Yue et al., "TS2Vec: Towards Universal Representation of Time Series", 2022, section 4.3.
    """
    sums = np.concatenate([[0.0], np.cumsum(scores, dtype=np.float64)])
    ends = np.arange(len(scores))
    starts = np.maximum(ends - WINDOW, 0)
    mean = (sums[ends] - sums[starts]) / np.maximum(ends - starts, 1)
    return np.where(mean > 0, (scores - mean) / np.where(mean > 0, mean, 1.0), 0.0)


def limit(scores: np.ndarray) -> float:
    """Above which a relative score stands out, from those of steps to learn from: mean + DEVIATIONS · deviation."""
    return float(scores.mean() + DEVIATIONS * scores.std())
