"""What a run's encoder is worth, beside a random-init encoder and raw pixels, and a report to look at.

    python -m ssljax.evaluate --workdir=runs/simclr [--protocol=knn,linear]

Prints the accuracies, and writes `results.json`, `report.html` and `figures/` into the run's folder.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from ssljax.build import Run, build_source, canvas_of
from ssljax.collectives import example_keys
from ssljax.commands import launch, quiet_logs
from ssljax.data.pipeline import eval_batches
from ssljax.data.sources import DataError, Source
from ssljax.data.subset import Subset
from ssljax.encoder import open_run
from ssljax.engine.logs import read_metrics
from ssljax.evals.features import extract, raw_pixels
from ssljax.evals.knn import knn, nearest
from ssljax.evals.linear import linear_probe
from ssljax.evals.maps import tsne
from ssljax.evals.scores import Score, margin
from ssljax.report import Report, write_report
from ssljax.typing import TrainState
from ssljax.views.images import center_view

PROTOCOLS = ("knn", "linear")
BATCH = 256
GALLERY_BANK, GALLERY_TEST, QUERIES, NEIGHBOURS, PANELS, THUMBNAIL = 2000, 800, 8, 6, 8, 64

Scores = dict[str, dict[str, Score]]


def main(workdir: str | None, protocols: list[str] | None) -> None:
    if workdir is None:
        raise ValueError("--workdir is needed: the folder of a run.")
    quiet_logs()
    evaluate(Path(workdir), protocols)


def evaluate(workdir: Path, protocols: list[str] | None = None) -> dict[str, Any]:
    """Evaluate the newest checkpoint by `protocols` (None: all that the labels allow); returns its `results.json`."""
    for protocol in protocols or ():
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol '{protocol}' is unknown; use {', '.join(PROTOCOLS)}.")
    config, run, state = open_run(workdir)
    train, test, unjudged = _splits(config, must_have_labels=bool(protocols))
    encoders = {"pretrained": _encoder(run, state), "random init": _encoder(run, run.init()), "raw pixels": raw_pixels}

    results: dict[str, Any] = {"step": int(state.step), "examples": {"train": len(train)}}
    if test is not None and not unjudged:
        canvas = canvas_of(config, train)
        scores, described = _scores(encoders, train, test, canvas, protocols or PROTOCOLS, config.evaluate)
        results |= _summary(scores, described)
        results["examples"]["test"] = len(next(iter(scores["pretrained"].values())).correct)
        print("\n".join(_table(results)))
    notes = [f"no accuracies: {unjudged}"] if unjudged else []
    notes += [
        f"{len(s.skipped)} of the files could not be decoded, such as {next(iter(s.skipped))}."
        for s in (train, test)
        if s and s.skipped
    ]
    for note in notes:
        print(f"note: {note}")
    part = workdir / "results.json.part"
    part.write_text(json.dumps(results, indent=2))
    part.replace(workdir / "results.json")
    print(f"report: {_report(config, run, state, encoders, train, test, results, notes, workdir)}")
    return results


def _splits(config: ConfigDict, *, must_have_labels: bool) -> tuple[Source, Source | None, str]:
    """Training data, test data if there are any, and why no accuracies can be had of them, or ""."""
    train = build_source(config, "train")
    try:
        test = build_source(config, "test")
        train.require_labels()
        test.require_labels()
        if train.class_names != test.class_names:
            raise DataError(
                f"{train.name} and {test.name} do not have the same classes; give both splits the same class names."
            )
    except DataError as error:
        if must_have_labels:
            raise
        try:
            return train, build_source(config, "test"), str(error)
        except DataError:
            return train, None, str(error)
    return train, test, ""


def _encoder(run: Run, state: TrainState):
    return partial(jax.jit(run.method.features), state)


def _scores(encoders, train, test, canvas, protocols, settings) -> tuple[Scores, dict[str, str]]:
    """Each encoder by each protocol, and the protocols in words."""
    scores: Scores = {}
    described = {}
    for name, encoder in encoders.items():
        bank = extract(encoder, eval_batches(train, BATCH, canvas))
        queries = extract(encoder, eval_batches(test, BATCH, canvas))
        scores[name] = {}
        if "knn" in protocols:
            scores[name]["knn"] = knn(*bank, *queries, k=settings.k, temperature=settings.temperature)
            described["knn"] = (
                f"weighted k-NN, k = {min(settings.k, len(bank[0]))}, cosine similarity, T = {settings.temperature}; "
                f"un-augmented features of {len(bank[0])} training images; {len(queries[0])} test images"
            )
        if "linear" in protocols:
            scores[name]["linear"], _ = linear_probe(*bank, *queries)
            described["linear"] = (
                "logistic regression (50 iterations of L-BFGS) on standardised, un-augmented, frozen features; L2 "
                "penalty chosen on a "
                f"held-out fifth of the {len(bank[0])} training images; {len(queries[0])} test images"
            )
    return scores, described


def _summary(scores: Scores, described: dict[str, str]) -> dict[str, Any]:
    """Accuracies, and the margins of the pretrained encoder over both floors, for `results.json`."""
    pretrained, *floors = scores
    margins: dict[str, dict] = {protocol: {} for protocol in described}
    for protocol in described:
        for floor in floors:
            difference, error = margin(scores[pretrained][protocol], scores[floor][protocol])
            margins[protocol][floor] = {"difference": difference, "standard_error": error}
    accuracies = {
        name: {p: {"accuracy": s.accuracy, "standard_error": s.standard_error} for p, s in by_protocol.items()}
        for name, by_protocol in scores.items()
    }
    return {"protocols": described, "encoders": accuracies, "margins": margins}


def _table(results: dict[str, Any]) -> list[str]:
    """Lines to print: accuracies, the margins in standard errors, and the protocols."""
    titles = {"knn": "k-NN", "linear": "linear"}
    protocols = list(results["protocols"])
    lines = ["", f"{'accuracy, %':<16}" + "".join(f"{titles[p]:>16}" for p in protocols)]
    for name, row in results["encoders"].items():
        cells = (f"{100 * row[p]['accuracy']:.1f} ± {100 * row[p]['standard_error']:.1f}" for p in protocols)
        lines.append(f"{name:<16}" + "".join(f"{cell:>16}" for cell in cells))
    lines.append("")
    for protocol, floors in results["margins"].items():
        parts = []
        for floor, m in floors.items():
            size = (
                f"{m['difference'] / m['standard_error']:.1f} standard errors" if m["standard_error"] else "no spread"
            )
            parts.append(f"{100 * m['difference']:+.1f} points over {floor} ({size})")
        lines.append(f"{titles[protocol]}: pretrained is {', '.join(parts)}")
    return [*lines, *(f"{titles[p]} protocol: {text}" for p, text in results["protocols"].items()), ""]


def _report(config, run, state, encoders, train, test, results, notes, workdir) -> Path:
    """Draw what there is to see; pictures need no labels."""
    canvas = canvas_of(config, train)
    shown = Subset(train if test is None else test, GALLERY_TEST)
    thumbnails = jax.jit(partial(center_view, size=THUMBNAIL, fraction=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))

    def gallery(encoder, source):
        return extract(encoder, eval_batches(source, BATCH, canvas))

    def pictures(source):
        pixels, labels = gallery(lambda b: thumbnails(b).reshape(len(b["image"]), -1), source)
        return (pixels.reshape(-1, THUMBNAIL, THUMBNAIL, 3) * 255).round().astype(np.uint8), labels

    bank = Subset(train, GALLERY_BANK)
    (bank_images, bank_labels), (images, labels) = pictures(bank), pictures(shown)
    compared = {name: encoders[name] for name in ("pretrained", "raw pixels")}
    features = {name: (gallery(encoder, bank)[0], gallery(encoder, shown)[0]) for name, encoder in compared.items()}
    queries = np.linspace(0, len(images) - 1, min(QUERIES, len(images))).astype(int)
    k = min(NEIGHBOURS, len(bank_images))
    found = {name: nearest(b, q[queries], k)[1] for name, (b, q) in features.items()}

    batch = next(eval_batches(Subset(train, PANELS), min(PANELS, len(train)), canvas))
    batch.pop("mask"), batch.pop("label")
    labelled = train.has_labels and (test is None or test.has_labels)
    return write_report(
        Report(
            title=f"{config.method.name} · {config.encoder.name} · {config.data.source}",
            config=config.to_dict(),
            metrics=read_metrics(workdir),
            results=results,
            panels=_panels(run, state, batch),
            maps={name: tsne(q) for name, (_, q) in features.items()} if len(images) >= 10 else {},
            map_images=images,
            map_labels=labels if labelled else None,
            class_names=train.class_names,
            neighbours={n: np.concatenate([images[queries, None], bank_images[i]], axis=1) for n, i in found.items()},
            neighbour_labels={
                n: np.concatenate([labels[queries, None], bank_labels[i]], axis=1) for n, i in found.items()
            }
            if labelled
            else None,
            notes=notes,
        ),
        workdir,
    )


def _panels(run: Run, state: TrainState, batch: dict[str, np.ndarray]) -> tuple[str, np.ndarray]:
    keys = example_keys(jax.random.key(0), len(batch["image"]))
    return run.method.caption, np.asarray(jax.jit(run.method.show)(state, jax.tree.map(jnp.asarray, batch), keys))


if __name__ == "__main__":
    WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.")
    PROTOCOL = flags.DEFINE_list(
        "protocol", None, "knn, linear; by default all that the labels allow, else fail without."
    )
    launch(lambda: main(WORKDIR.value, PROTOCOL.value))
