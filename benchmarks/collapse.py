"""What collapse looks like beside health: the first steps of demos, and again without what prevents it.

    python benchmarks/collapse.py [--write]

With --write the picture and the table go into docs/collapse.png and docs/collapse.md.
"""

import argparse
import runpy
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
from matplotlib.figure import Figure
from sections import DOCS, machine, paragraph, publish, table

from ssljax.build import build_run, build_source, example_batch
from ssljax.data.pipeline import train_batches
from ssljax.engine.mesh import make_mesh, to_devices
from ssljax.engine.monitors import SIGNS, alarm
from ssljax.numerics import normalize
from ssljax.report.figures import BLUE, MUTED, WRONG

ROOT = Path(__file__).parents[1]


def both_normalised(p, z):
    return normalize(p), normalize(z)


def alike(query, key, *_, **__):
    return -(normalize(query) * normalize(key)).sum(axis=-1).mean()


class Case(NamedTuple):
    """What of a demo is changed, by fields of the method or in the code, the metric that tells, and how soon."""

    name: str
    without: str
    sign: str
    fields: dict[str, Any] = {}
    patch: tuple[str, Any] | None = None
    steps: int = 150


CASES = [
    Case("simsiam", "no stop-gradient", "embedding_rank", patch=("similarity._prediction_and_target", both_normalised)),
    Case("simsiam", "no predictor", "embedding_rank", {"predictor": ()}, steps=450),
    Case("byol", "no predictor", "embedding_std", {"predictor": ()}),
    Case("vicreg", "no variance term", "output_std", {"variance": 0.0}),
    Case("moco_v2", "no negatives", "embedding_std", patch=("info_nce", alike)),
    Case("dino", "no centring", "prototypes_used", {"center_momentum": 1.0}, steps=450),
    Case("dino", "no sharpening", "target_entropy", {"teacher_temperature": 0.2}, steps=450),
]
PATCHED = {"simsiam": "ssljax.losses.", "moco_v2": "ssljax.methods.images.moco_v2."}


def first_steps(name: str, fields: dict, steps: int) -> list[dict[str, float]]:
    """The metrics of each."""
    config = runpy.run_path(str(ROOT / "configs" / "images" / f"{name}.py"))["get_config"]("demo")
    config.method.update(fields)
    if not config.method.get("predictor", True):
        config.optimizer.constant = ()  # there is none whose rate would stay
    source = build_source(config, "train")
    mesh = make_mesh(1, 1, jax.devices()[:1])
    run = build_run(config, examples=len(source), example=example_batch(config, source), mesh=mesh)
    state, found = run.init(), []
    batches = train_batches(source, batch_size=config.batch_size, seed=config.seed)
    for _ in range(steps):
        state, metrics = run.step(state, to_devices(next(batches), mesh))
        found.append(metrics)
    batches.close()
    return [{key: float(value) for key, value in metrics.items()} for metrics in found]


def changed(case: Case) -> list[dict[str, float]]:
    """The same without what prevents collapse."""
    with mock.patch(PATCHED[case.name] + case.patch[0], case.patch[1]) if case.patch else nullcontext():
        return first_steps(case.name, case.fields, case.steps)


def draw(runs: list[tuple[Case, list, list]]) -> Figure:
    """Above the loss and below the metric that tells, of each case: blue the demo, vermilion without."""
    figure = Figure((20, 5), dpi=110, facecolor="white", layout="constrained")
    for column, (case, *pair) in enumerate(runs):
        for row, metric in enumerate(("loss", case.sign)):
            axes = figure.add_subplot(2, len(runs), 1 + column + row * len(runs))
            for metrics, colour, label in zip(pair, (BLUE, WRONG), ("the demo", case.without), strict=True):
                axes.plot([m[metric] for m in metrics], color=colour, linewidth=1.4, label=label)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_title(f"{case.name}: {metric}", loc="left", fontsize=10)
            axes.tick_params(labelsize=8, colors=MUTED)
            if row == 0:
                axes.legend(frameon=False, fontsize=8)
            else:
                axes.axhline(SIGNS[case.sign].limit, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
                axes.set_xlabel("step", fontsize=8.5, color=MUTED)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()

    runs = [(case, first_steps(case.name, {}, case.steps), changed(case)) for case in CASES]
    columns = "method", "change", "steps", "alarms of the demo", "alarms with this", "first at step", "of"
    rows = []
    for case, healthy, collapsed in runs:
        said = [alarm(metrics) for metrics in collapsed]
        first = next((i for i, text in enumerate(said) if text), None)
        of = "" if first is None else f"`{said[first].split()[0]}`"
        at = "never" if first is None else first
        counts = [sum(alarm(metrics) is not None for metrics in healthy), sum(text is not None for text in said)]
        rows.append([case.name, case.without, case.steps, *counts, at, of])
    if arguments.write:
        draw(runs).savefig(DOCS / "collapse.png")
    head = """Made by `python benchmarks/collapse.py --write`: the first steps of demos, and again without what prevents
        collapse. The dashed line is where the alarm begins."""
    picture = "![Loss and health of demos, with and without what prevents collapse](collapse.png)"
    publish("collapse.md", "Beside health", [paragraph(head), picture, table(columns, rows), machine()])
    alarms = [
        [f"`{name}`", f"{'above' if sign.above else 'below'} {sign.limit:g}", sign.advice]
        for name, sign in SIGNS.items()
    ]
    signs = table(("metric", "alarm", "what it means, and what to try"), alarms)
    publish("collapse.md", "The alarms", [signs])


if __name__ == "__main__":
    main()
