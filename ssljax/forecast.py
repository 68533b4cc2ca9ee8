"""How well a run's encoder foretells a long series, and which of its steps it did not expect, beside floors.

    python -m ssljax.forecast --workdir=runs/ts2vec --horizons=24,48,168,336,720

For a run on one long series, which nobody divided into many: configs/series/ts2vec.py:forecast is one. Prints the
errors, of channels that are scaled by the training part, beside those of a random-init encoder, the raw steps and the
last value, and writes `forecasts.json`, and `anomalies.csv`, a line for each step of the test part, into the folder.
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

from ssljax.build import modality_of, open_run
from ssljax.commands import launch, local_path
from ssljax.evals.anomalies import limit, relative
from ssljax.evals.forecasting import Errors, repeated, ridge_forecast
from ssljax.typing import Array, Batch

BATCH = 256
"""How many windows go through the encoder at once."""
HELD_OUT = 0.2
"""Share of the training steps, the last ones, that chooses the penalty where no part of the series is there for it."""


def main(workdir: str | None, horizons: list[str], context: int) -> None:
    if workdir is None or not all(horizon.isdecimal() and int(horizon) for horizon in horizons) or context < 1:
        raise ValueError(
            "--workdir is needed, the folder of a run, --horizons, numbers of steps: 24,48, and --context, 1 or more."
        )
    forecast(local_path(workdir), [int(horizon) for horizon in horizons], context)


def forecast(workdir: Path, horizons: list[int], context: int = 201) -> dict[str, Any]:
    """What is in `forecasts.json`: errors by features and horizon, how they were measured, and the steps of the test
    part that stand out.

    context: how many steps the encoder sees to represent the last of them. Raises ValueError for a run that is not of
    one long series, or of one that is too short.
    """
    config, run, state = open_run(workdir)
    method: Any = run.method
    if not hasattr(method, "last_step"):
        raise ValueError(f"method '{config.method.name}' has no representation of each step: take one for series.")
    whole = modality_of(config).long()  # type: ignore[attr-defined]
    targets = whole.values[:, : whole.values.shape[1] - whole.covariates]
    end = whole.ends.get("val", whole.ends["train"])
    fit = whole.ends["train"] if "val" in whole.ends else round((1 - HELD_OUT) * end)
    first = context - 1 if context - 1 < fit // 2 else 0
    last = jax.jit(method.last_step)
    features: dict[str, Callable[[Batch], Array]] = {
        "pretrained": partial(last, state),
        "random init": partial(last, jax.jit(run.init)()),
        "raw steps": lambda batch: jnp.nan_to_num(batch["series"][..., : targets.shape[1]]).reshape(BATCH, -1),
    }
    found: dict[str, dict[int, Errors]] = {}
    for name, vector in features.items():
        vectors = _of_windows(vector, whole.values, context)
        found[name] = {h: ridge_forecast(vectors, targets, h, fit, end, first) for h in horizons}
    found["last value"] = {h: repeated(targets, h, end) for h in horizons}
    surprise = relative(_of_windows(partial(jax.jit(method.surprise), state), whole.values, context))
    change = relative(np.abs(np.diff(np.nan_to_num(targets), axis=0, prepend=0)).sum(axis=1))
    _write_anomalies(workdir / "anomalies.csv", surprise, change, end)
    judged = len(targets) - end
    results: dict[str, Any] = {
        "step": int(state.step),
        "errors": {
            name: {str(h): {"mse": e.squared, "mae": e.absolute} for h, e in row.items()} for name, row in found.items()
        },
        "protocol": (
            f"ridge regression from the features of a step, of which the encoder sees {context} with those before it, "
            f"to {targets.shape[1]} channels of the next ones; fitted to the first {fit} steps, penalty chosen on the "
            f"{end - fit} that follow, judged on the last {judged}"
        ),
        "anomalies": np.flatnonzero(surprise[end:] > limit(surprise[:end])).tolist(),
    }
    (workdir / "forecasts.json").write_text(json.dumps(results, indent=2))
    print(f"{'mse, mae':<14}" + "".join(f"{h:>16}" for h in horizons))
    for name, row in found.items():
        print(f"{name:<14}" + "".join(f"{e.squared:>9.3f} {e.absolute:.3f} " for e in row.values()))
    print(f"protocol: {results['protocol']}")
    print(f"{len(results['anomalies'])} of {judged} test steps stand out: {workdir / 'anomalies.csv'}")
    return results


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
    CONTEXT = flags.DEFINE_integer("context", 201, "How many steps the encoder sees.")
    launch(lambda: main(WORKDIR.value, HORIZONS.value, CONTEXT.value))
