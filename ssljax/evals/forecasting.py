"""Forecasts of the next steps of a series by ridge regression from a vector for each step."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy

PENALTIES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
"""Of the ridge, as TS2Vec's authors try them."""


@dataclass(frozen=True)
class Errors:
    """Mean squared and mean absolute error, over all steps of the horizon and all channels."""

    squared: float
    absolute: float


def ridge_forecast(
    features: np.ndarray, values: np.ndarray, horizon: int, train: int, test: int, first: int = 0
) -> Errors:
    """What is known at step t, features[t] (dim,), foretells values[t + 1 … t + horizon], all channels at once.

    features (steps, dim), values (steps, channels), NaN where missing: such targets are left out. The ridge is fitted
    to forecasts from steps `first` on that end before step `train`; its penalty is the best for those that begin and
    end in [train, test), by the sum of both errors; and it is judged by those that begin at `test` and later.

    Raises ValueError if a part is shorter than the horizon.
    """
    x, y, begins = _pairs(features, values, horizon)
    fit = (begins > first) & (begins + horizon <= train)
    parts = fit, (begins >= train) & (begins + horizon <= test), begins >= test
    if not all(part.any() for part in parts):
        raise ValueError(
            f"{len(values)} steps, of which {train} are to fit, {first} of these to begin with, and those from {test} "
            f"on to test, are too few to foretell {horizon}: take a longer series or a smaller horizon."
        )
    foretell = _ridge(x[fit], y[fit])
    choose, judge = ((x[part], y[part]) for part in parts[1:])

    def total(penalty: float) -> float:
        found = errors(foretell(choose[0], penalty), choose[1])
        return np.sqrt(found.squared) + found.absolute

    return errors(foretell(judge[0], min(PENALTIES, key=total)), judge[1])


def _ridge(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray, float], np.ndarray]:
    """Ridge regression with an intercept, which is not penalised, of any penalty: one decomposition serves all."""
    x_mean, y_mean = x.mean(axis=0, dtype=np.float64), y.mean(axis=0, dtype=np.float64)
    centred = x - x_mean
    values, vectors = scipy.linalg.eigh(centred.T @ centred)
    along = (vectors.T @ (centred.T @ (y - y_mean))).astype(y.dtype)

    def foretell(new: np.ndarray, penalty: float) -> np.ndarray:
        shares = (new - x_mean) @ vectors / (np.maximum(values, 0) + penalty)
        return shares.astype(y.dtype) @ along + y_mean.astype(y.dtype)

    return foretell


def repeated(values: np.ndarray, horizon: int, test: int) -> Errors:
    """The floor that learns nothing: that the last step stays, for forecasts that begin at `test` and later."""
    x, y, begins = _pairs(np.nan_to_num(values), values, horizon)
    judged = begins >= test
    return errors(np.tile(x[judged], horizon), y[judged])


def errors(found: np.ndarray, expected: np.ndarray) -> Errors:
    return Errors(float(np.square(found - expected).mean()), float(np.abs(found - expected).mean()))


def _pairs(features: np.ndarray, values: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is known, what follows (n, horizon · channels), and the steps at which that begins (n,)."""
    windows = np.lib.stride_tricks.sliding_window_view(values, horizon, axis=0)[1:]  # (n, channels, horizon)
    targets = windows.swapaxes(1, 2).reshape(len(windows), -1)
    there = ~np.isnan(targets).any(axis=1)
    return features[: len(targets)][there], targets[there], 1 + np.flatnonzero(there)
