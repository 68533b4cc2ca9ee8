"""What collapse looks like beside health: the first steps of four demos, and again without what prevents it.

    python benchmarks/collapse.py [--write] [--steps=300]

With --write the picture and the table go into docs/collapse.png and docs/collapse.md.
"""

import argparse
import runpy
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import jax
from matplotlib.figure import Figure
from sections import DOCS, machine, publish

from ssljax.build import build_run, build_source, example_batch
from ssljax.data.pipeline import train_batches
from ssljax.engine.mesh import make_mesh, to_devices
from ssljax.engine.monitors import SIGNS, alarm
from ssljax.losses import similarity
from ssljax.numerics import normalize
from ssljax.report.figures import BLUE, MUTED, WRONG

ROOT = Path(__file__).parents[1]
CASES = {
    "simsiam": ("stop-gradient", None, "embedding_rank"),
    "byol": ("predictor", {"predictor": ()}, "embedding_std"),
    "vicreg": ("variance term", {"variance": 0.0}, "output_std"),
    "dino": ("centring", {"center_momentum": 1.0}, "prototypes_used"),
}
"""What is switched off, by which fields of the method (a stop-gradient is none), and the metric that tells."""


def first_steps(name: str, fields: dict, steps: int) -> list[dict[str, float]]:
    """The metrics of each."""
    config = runpy.run_path(str(ROOT / "configs" / "images" / f"{name}.py"))["get_config"]("demo")
    config.method.update(fields)
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


def broken(name: str, fields: dict | None, steps: int) -> list[dict[str, float]]:
    """The same without what prevents collapse."""
    both = mock.patch.object(similarity, "_prediction_and_target", lambda p, z: (normalize(p), normalize(z)))
    with both if fields is None else nullcontext():
        return first_steps(name, fields or {}, steps)


def draw(pairs: dict[str, tuple[list, list]]) -> Figure:
    """Above the loss and below the metric that tells, of each method: blue healthy, vermilion without."""
    figure = Figure((12, 5), dpi=120, facecolor="white", layout="constrained")
    for column, (name, runs) in enumerate(pairs.items()):
        without, _, sign = CASES[name]
        for row, metric in enumerate(("loss", sign)):
            axes = figure.add_subplot(2, len(pairs), 1 + column + row * len(pairs))
            for metrics, colour, label in zip(runs, (BLUE, WRONG), ("the demo", f"without {without}"), strict=True):
                axes.plot([m[metric] for m in metrics], color=colour, linewidth=1.4, label=label)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_title(f"{name}: {metric}", loc="left", fontsize=10)
            axes.tick_params(labelsize=8, colors=MUTED)
            if row == 0:
                axes.legend(frameon=False, fontsize=8)
            else:
                axes.axhline(SIGNS[sign].limit, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
                axes.set_xlabel("step", fontsize=8.5, color=MUTED)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()

    pairs = {
        name: (first_steps(name, {}, arguments.steps), broken(name, fields, arguments.steps))
        for name, (_, fields, _) in CASES.items()
    }
    lines = [
        f"Made by `python benchmarks/collapse.py --write --steps={arguments.steps}`: the first steps of four demos,",
        "and again without what prevents collapse. The dashed line is where the alarm begins.",
        "",
        "![Loss and health of four demos, with and without what prevents collapse](collapse.png)",
        "",
        "| method | without | alarms of the demo | alarms without | first at step | of |",
        "|---|---|---|---|---|---|",
    ]
    for name, (healthy, collapsed) in pairs.items():
        said = [alarm(metrics) for metrics in collapsed]
        first = next((i for i, text in enumerate(said) if text), None)
        of = "" if first is None else f"`{said[first].split()[0]}`"
        counts = [sum(alarm(metrics) is not None for metrics in healthy), sum(text is not None for text in said)]
        lines.append(f"| {name} | {CASES[name][0]} | {counts[0]} | {counts[1]} | {first} | {of} |")
    lines += ["", machine()]
    if arguments.write:
        draw(pairs).savefig(DOCS / "collapse.png")
    publish("collapse.md", "Beside health", lines)
    alarms = [
        f"| `{name}` | {'above' if sign.above else 'below'} {sign.limit:g} | {sign.advice} |"
        for name, sign in SIGNS.items()
    ]
    publish(
        "collapse.md", "The alarms", ["| metric | alarm | what it means, and what to try |", "|---|---|---|", *alarms]
    )


if __name__ == "__main__":
    main()
