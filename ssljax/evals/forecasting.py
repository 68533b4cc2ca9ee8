"""Forecasts of the next steps of a series by ridge regression from a vector for each step."""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import Ridge

PENALTIES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
"""Of the ridge, as TS2Vec's authors try them."""


@dataclass(frozen=True)
class Errors:
    """Mean squared and mean absolute error, over all steps of the horizon and all channels."""

    squared: float
    absolute: float


def ridge_forecast(features: np.ndarray, values: np.ndarray, horizon: int, train: int, test: int) -> Errors:
    """What is known at step t, features[t] (dim,), foretells values[t + 1 … t + horizon], all channels at once.

    features (steps, dim), values (steps, channels), NaN where missing: such targets are left out. The ridge is fitted
    to forecasts that end before step `train`; its penalty is the best for those that begin in [train, test), by the sum
    of both errors; and it is judged by those that begin at `test` and later.

    Raises ValueError if a part is shorter than the horizon.
    """
    x, y, begins = _pairs(features, values, horizon)
    parts = begins + horizon <= train, (begins >= train) & (begins + horizon <= test), begins >= test
    if not all(part.any() for part in parts):
        raise ValueError(
            f"{len(values)} steps, of which {train} are to fit and those from {test} on to test, are too few to "
            f"foretell {horizon}: take a longer series or a smaller horizon."
        )
    fit, choose, judge = ((x[part], y[part]) for part in parts)
    models = [Ridge(penalty).fit(*fit) for penalty in PENALTIES]

    def total(model: Ridge) -> float:
        found = errors(model.predict(choose[0]), choose[1])
        return np.sqrt(found.squared) + found.absolute

    return errors(min(models, key=total).predict(judge[0]), judge[1])


def repeated(values: np.ndarray, horizon: int, test: int) -> Errors:
    """The floor that learns nothing: that the last step stays, for forecasts that begin at `test` and later."""
    x, y, begins = _pairs(np.nan_to_num(values), values, horizon)
    return errors(np.tile(x, horizon)[begins >= test], y[begins >= test])


def errors(found: np.ndarray, expected: np.ndarray) -> Errors:
    return Errors(float(np.square(found - expected).mean()), float(np.abs(found - expected).mean()))


def _pairs(features: np.ndarray, values: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is known, what follows (n, horizon · channels), and the steps at which that begins (n,)."""
    windows = np.lib.stride_tricks.sliding_window_view(values, horizon, axis=0)[1:]  # (n, channels, horizon)
    targets = windows.swapaxes(1, 2).reshape(len(windows), -1)
    there = ~np.isnan(targets).any(axis=1)
    return features[: len(targets)][there], targets[there], 1 + np.flatnonzero(there)
