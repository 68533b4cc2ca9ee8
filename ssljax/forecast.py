"""How well a run's encoder foretells a long series, and which of its steps it did not expect, beside floors.

    python -m ssljax.forecast --workdir=runs/ts2vec --horizons=24,48

For a run on one long series (`csv:` without a column `series`, `--config.data.length` steps a piece). Prints the
errors, of channels that are scaled by the training split, beside those of a random-init encoder, the raw steps and the
last value, and writes `forecasts.json`, and `anomalies.csv`, a line for each step of the test split, into the folder.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from ssljax.build import build_source, open_run
from ssljax.commands import launch, local_path
from ssljax.data.series import SeriesSource
from ssljax.data.sources import Source
from ssljax.evals.anomalies import limit, relative
from ssljax.evals.forecasting import repeated, ridge_forecast
from ssljax.typing import Array, Batch

CONTEXT, BATCH = 201, 256
"""How many steps an encoder sees to represent the last of them, at most; how many such windows go through at once."""
HELD_OUT = 0.2
"""Part of the training steps, the last ones, that chooses the penalty."""


def main(workdir: str | None, horizons: list[str]) -> None:
    if workdir is None or not all(horizon.isdecimal() and int(horizon) for horizon in horizons):
        raise ValueError("--workdir is needed, the folder of a run, and --horizons, numbers of steps: 24,48.")
    forecast(local_path(workdir), [int(horizon) for horizon in horizons])


def forecast(workdir: Path, horizons: list[int]) -> dict[str, Any]:
    """What is in `forecasts.json`: errors by features and horizon, how they were measured, and the steps of the test
    split that stand out.

    Raises ValueError for a run that is not of one long series, or of one that is too short.
    """
    config, run, state = open_run(workdir)
    method: Any = run.method
    if not hasattr(method, "each_step"):
        raise ValueError(f"method '{config.method.name}' has no representation of each step: take one for series.")
    train, test = (_whole(build_source(config, split)) for split in ("train", "test"))
    values, end = np.concatenate([train, test]), len(train)
    context = min(CONTEXT, config.data.shape[0])
    last = jax.jit(lambda state, batch: method.each_step(state, batch)[:, -1])
    features = {
        "pretrained": _of_windows(partial(last, state), values, context),
        "random init": _of_windows(partial(last, jax.jit(run.init)()), values, context),
        "raw steps": _of_windows(lambda batch: jnp.nan_to_num(batch["series"]).reshape(BATCH, -1), values, context),
    }
    fit = round((1 - HELD_OUT) * end)
    rows = {
        name: {h: ridge_forecast(vectors, values, h, fit, end) for h in horizons} for name, vectors in features.items()
    }
    rows["last value"] = {h: repeated(values, h, end) for h in horizons}
    surprise = relative(_of_windows(partial(jax.jit(method.surprise), state), values, context))
    change = relative(np.abs(np.diff(np.nan_to_num(values), axis=0, prepend=0)).sum(axis=1))
    _write_anomalies(workdir / "anomalies.csv", surprise, change, end)
    results: dict[str, Any] = {
        "step": int(state.step),
        "errors": {
            name: {str(h): {"mse": e.squared, "mae": e.absolute} for h, e in row.items()} for name, row in rows.items()
        },
        "protocol": (
            f"ridge regression from the features of a step, of which the encoder sees {context} with those before it, "
            f"to all channels of the next; fitted to {fit} steps, penalty chosen on {end - fit}, judged on the last "
            f"{len(test)}"
        ),
        "anomalies": np.flatnonzero(surprise[end:] > limit(surprise[:end])).tolist(),
    }
    (workdir / "forecasts.json").write_text(json.dumps(results, indent=2))
    print(f"{'mse, mae':<14}" + "".join(f"{h:>16}" for h in horizons))
    for name, row in rows.items():
        print(f"{name:<14}" + "".join(f"{e.squared:>9.3f} {e.absolute:.3f} " for e in row.values()))
    print(f"protocol: {results['protocol']}")
    print(f"{len(results['anomalies'])} of {len(test)} test steps stand out: {workdir / 'anomalies.csv'}")
    return results


def _whole(source: Source) -> np.ndarray:
    """The pieces of one long series together, (steps, channels)."""
    if not isinstance(source, SeriesSource):
        raise ValueError(f"{source.name} is no time series: forecasts need one.")
    pieces = [source[i] for i in range(len(source))]
    lengths = [int(piece["valid"].sum()) for piece in pieces]
    if source.has_labels or any(length < lengths[0] for length in lengths[:-1]):
        raise ValueError(f"{source.name} has many series: forecasts need one long one, csv:PATH without labels.")
    return np.concatenate([piece["series"][piece["valid"]] for piece in pieces])


def _of_windows(vector: Callable[[Batch], Array], values: np.ndarray, context: int) -> np.ndarray:
    """`vector` of the `context` steps that end with each step, or as many as there are before it: (steps, …)."""
    padded = np.pad(values, [(context - 1, 0), (0, 0)])
    windows, found = np.lib.stride_tricks.sliding_window_view(padded, context, axis=0).swapaxes(1, 2), []
    for at in range(0, len(values), BATCH):
        ends = np.minimum(np.arange(at, at + BATCH), len(values) - 1)  # one shape for the last batch too
        valid = np.arange(context) >= context - 1 - ends[:, None]
        found.append(np.asarray(vector({"series": jnp.asarray(windows[ends]), "valid": jnp.asarray(valid)})))
    return np.concatenate(found)[: len(values)]


def _write_anomalies(path: Path, surprise: np.ndarray, change: np.ndarray, end: int) -> None:
    """Of each test step both relative scores, the encoder's and the floor's, the change of the raw values, and whether
    they are above their limits, which the training steps set."""
    most = limit(surprise[:end]), limit(change[:end])
    lines = ["step,score,stands_out,change,change_stands_out"]
    for i, (a, b) in enumerate(zip(surprise[end:], change[end:], strict=True)):
        lines.append(f"{i},{a:.4f},{int(a > most[0])},{b:.4f},{int(b > most[1])}")
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.")
    HORIZONS = flags.DEFINE_list("horizons", ["24", "48"], "How many steps to foretell.")
    launch(lambda: main(WORKDIR.value, HORIZONS.value))
