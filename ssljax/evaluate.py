"""What a run's encoder is worth, beside a random-init encoder and the raw data, and a report to look at.

    python -m ssljax.evaluate --workdir=runs/simclr [--protocol=knn,linear,linear_1,finetune_1,objective]

`objective` is how well a method does on the test split what it was trained to do, where it has a number for that.
Prints the accuracies, and writes `results.json`, `report.html` and `figures/` into the run's folder.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssljax.build import build_source, modality_of, open_run
from ssljax.commands import launch, local_path
from ssljax.data.pipeline import eval_batches
from ssljax.data.sources import DataError, Source
from ssljax.engine.logs import read_metrics
from ssljax.engine.mesh import eval_batch_size, make_mesh, over_devices, process_rows, replicate
from ssljax.engine.processes import on_first
from ssljax.evals import protocols as of_features
from ssljax.evals.features import extract
from ssljax.evals.finetune import fine_tune
from ssljax.evals.linear import leave_one_out, linear_probe
from ssljax.evals.protocols import FINE_TUNED, GROUPED, LINEAR, Settings, described
from ssljax.evals.results import Scores, accuracy_lines, objective_lines, summary
from ssljax.evals.scores import Score
from ssljax.gallery import gallery
from ssljax.modalities import MODALITIES
from ssljax.modalities.modality import Judged
from ssljax.objective import objective
from ssljax.report import Report, write_report

PROTOCOLS = of_features.TITLES | {name: title for kind in MODALITIES.values() for name, title in kind.own.items()}
"""What encoders are judged by, and what that is called."""
OBJECTIVE = "objective"
"""The protocol that needs no labels: `Method.measure` on the test split of what was trained on."""


def main(workdir: str | None, protocols: list[str] | None, step: int | None) -> None:
    if workdir is None:
        raise ValueError("--workdir is needed: the folder of a run.")
    evaluate(local_path(workdir), protocols, step)


def evaluate(workdir: Path, protocols: list[str] | None = None, step: int | None = None) -> dict[str, Any]:
    """Evaluate a checkpoint, the newest or that of `step`; returns what is in `results.json`.

    protocols: some of PROTOCOLS and OBJECTIVE; None for those of the modality, if there are labels, and the objective,
    if the method has one. Raises DataError where there are none.
    """
    for protocol in protocols or ():
        if protocol not in (*PROTOCOLS, OBJECTIVE):
            raise ValueError(f"protocol '{protocol}' is unknown; use {', '.join((*PROTOCOLS, OBJECTIVE))}.")
    mesh = make_mesh()
    config, run, state = open_run(workdir, step, mesh)
    modality = modality_of(config)
    of_others = {name for other in MODALITIES.values() for name in other.own} - set(modality.own)
    if wrong := of_others.intersection(protocols or ()):
        raise ValueError(f"protocol '{min(wrong)}' is not for what method '{config.method.name}' learns from.")
    chosen = [p for p in protocols or modality.protocols if p != OBJECTIVE]
    own, probes = ([p for p in chosen if (p in modality.own) == is_own] for is_own in (True, False))
    splits = train, test, _ = _splits(config, must_have_labels=bool(protocols and probes))
    features = over_devices(run.method.features, mesh)
    if "group" not in (train.shapes or {}):
        if wrong := {protocol for protocol in protocols or () if protocol in GROUPED}:
            raise DataError(f"protocol '{min(wrong)}' needs groups, which {train.name} has not.")
        probes = [protocol for protocol in probes if protocol not in GROUPED]

    def without_encoder(floor):
        return partial(over_devices(lambda _, batch: floor(batch), mesh), ())

    states = {"pretrained": state, "random init": replicate(run.init(), mesh)}
    floors = {name: without_encoder(floor) for name, floor in modality.floors().items()}
    encoders = {name: partial(features, found) for name, found in states.items()} | floors

    results: dict[str, Any] = {"step": int(state.step), "examples": {"train": train.count}}
    if protocols is None or OBJECTIVE in protocols:
        results |= objective(run.method, config, states, mesh, must=bool(protocols))
    rows = partial(_rows, mesh)
    scores: Scores = {}
    in_words: dict[str, str] = {}
    left_out: dict[str, str] = {}
    if test is not None and probes:
        tune = partial(_fine_tuned, run.method.features, states, train, test)
        scores, in_words, counts, left_out = _scores(
            encoders, rows, train, test, probes, tune, config, must=protocols is not None
        )
        results |= {"examples": counts}
        if hasattr(run.method, "classify"):
            logits, labels = rows(partial(over_devices(run.method.classify, mesh), state), test)
            classified = Score(logits.argmax(axis=1) == labels)
            results["classifier"] = {"accuracy": classified.accuracy, "standard_error": classified.standard_error}
    judged = Judged({}, {}, {})
    if own:

        def compute(f, state, source):
            return rows(partial(over_devices(f, mesh), state), source)

        judged = modality.judge(run.method, states, compute, own)
        for name, by_protocol in judged.scores.items():
            scores[name] = scores.get(name, {}) | by_protocol
        in_words |= judged.described
    if in_words:
        results |= summary(scores, in_words)
    shown = {"pretrained": encoders["pretrained"]} | floors
    other = None if _folds(config) else test  # with folds, what is shown is near to a part of the same data
    report = Report(
        title=f"{config.method.name} · {config.encoder.name} · {config.data.source}",
        config=config.to_dict(),
        metrics=read_metrics(workdir),
        results=results,
        class_names=train.class_names,
        things=train.things,
        found=judged.pictures,
        **gallery(run.method, modality, state, mesh, shown, rows, train, other)._asdict(),
        notes=_notes(splits, results, left_out),
    )
    on_first(partial(_publish, workdir, results, report))
    return results


def _publish(workdir: Path, results: dict[str, Any], report: Report) -> None:
    if "objective" in results:
        print("\n".join(objective_lines(results["objective"])))
    if "encoders" in results:
        print("\n".join(accuracy_lines(results, PROTOCOLS)))
    part = workdir / "results.json.part"
    part.write_text(json.dumps(results, indent=2))
    part.replace(workdir / "results.json")
    for note in report.notes:
        print(f"note: {note}")
    print(f"report: {write_report(report, workdir)}")


def _splits(config: ConfigDict, *, must_have_labels: bool) -> tuple[Source, Source | None, str]:
    """Training data, and test data (the same where there are folds), or why these cannot be used."""
    other = modality_of(config).judged_by
    train = other("train") or build_source(config, "train")
    try:
        test = other("test") or build_source(config, "test")
        train.require_labels()
        test.require_labels()
        if train.class_names is not None and len(train.class_names) < 2:
            raise DataError(f"all {train.things} of {train.name} are of one class, which leaves nothing to tell apart.")
        if train.class_names != test.class_names:
            raise DataError(
                f"{train.name} and {test.name} do not have the same classes; give both splits the same class names."
            )
        if train.shapes != test.shapes:
            raise DataError(
                f"{train.name} has {_sizes(train)}, {test.name} {_sizes(test)}: pretrain with --config.data.canvas, "
                "the side that both are resized to."
            )
    except DataError as error:
        if must_have_labels:
            raise
        return train, None, str(error)
    return train, test, ""


def _sizes(source: Source) -> str:
    shapes = source.shapes or {}
    return "images that vary in size" if "size" in shapes else f"images of {shapes['image'][0][:2]} pixels"


def _rows(mesh: Mesh, encoder: Callable, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """See `ssljax.gallery.Rows`; each process makes its part of them."""
    size = eval_batch_size(mesh, about=min(256, len(source)))
    return extract(encoder, eval_batches(source, size, process_rows(size, mesh)))


def _scores(
    encoders,
    rows: Callable[[Any, Source], tuple[np.ndarray, np.ndarray]],
    train: Source,
    test: Source,
    protocols: list[str],
    tune: Callable[[str, float], Score | None],
    config: ConfigDict,
    *,
    must: bool,
) -> tuple[Scores, dict[str, str], dict[str, int], dict[str, str]]:
    """Each encoder by each protocol, the protocols in words, how many things they learn from and are tested on, and
    what is left out and why: protocols that these data do not allow, which is an error if all `must` be."""
    modality = modality_of(config)
    settings = Settings(
        config.evaluate.k, config.evaluate.temperature, modality.scaling, _folds(config), things=train.things
    )
    raw = next(iter(modality.floors()))
    scores: Scores = {}
    of_floors: Scores = {}
    if set(protocols) & set(GROUPED):
        of_group = partial(over_devices(lambda _, batch: batch["group"][:, None], make_mesh()), ())
        groups = [rows(of_group, split)[0][:, 0].astype(int) for split in (train, test)]

    def score(protocol: str, name: str, *features: np.ndarray) -> Score | None:
        if protocol in FINE_TUNED:
            return tune(name, FINE_TUNED[protocol])
        if protocol == "groups":
            return linear_probe(features[0], groups[0], features[2], groups[1], scaling=modality.scaling)[0]
        if protocol == "left_out":
            x, y = np.concatenate(features[::2]), np.concatenate(features[1::2])
            return leave_one_out(x, y, np.concatenate(groups), scaling=modality.scaling)
        return of_features.judge(protocol, settings, *features)

    left_out: dict[str, str] = {}
    for name, encoder in encoders.items():
        features = *rows(encoder, train), *rows(encoder, test)
        for protocol in protocols:
            try:
                found = score(protocol, name, *features) if protocol not in left_out else None
            except ValueError as error:
                if must:
                    raise
                left_out[protocol] = str(error)
            else:
                if found is not None:
                    scores.setdefault(name, {})[protocol] = found
        if name == raw:
            shares = {p: LINEAR[p] for p in protocols if p in LINEAR}
            for floor, classify in modality.classifiers.items() if shares else ():
                of_floors[floor] = {p: classify(*features, share=share) for p, share in shares.items()}
    scores |= of_floors
    counts = {"train": len(features[0]), "test": len(features[2])}
    in_words = {p: described(p, settings, **counts) for p in protocols if p not in left_out}
    return scores, in_words, counts, left_out


def _folds(config: ConfigDict) -> int:
    """0 where one split is for learning and another one for testing."""
    return modality_of(config).folds if config.data.train_split == config.data.test_split else 0


def _fine_tuned(features, states, train: Source, test: Source, name: str, share: float) -> Score | None:
    """Of an encoder, begun from one of the `states`; None for what has no weights. Each process does it all."""
    if name not in states:
        return None

    def examples(source: Source) -> tuple[dict[str, np.ndarray], np.ndarray]:
        parts = [{k: x[batch["mask"]] for k, x in batch.items()} for batch in eval_batches(source, 256)]
        arrays = {k: np.concatenate([part[k] for part in parts]) for k in parts[0] if k != "mask"}
        return arrays, arrays.pop("label")

    train_arrays, train_labels = examples(train)
    if train_labels.ndim > 1:
        raise ValueError(f"fine-tuning is of examples that have one label each, not of {train.things} of one example.")
    return fine_tune(features, jax.device_get(states[name]), train_arrays, train_labels, *examples(test), share=share)


def _notes(splits: tuple[Source, Source | None, str], results: dict[str, Any], left_out: dict[str, str]) -> list[str]:
    """What a reader should know of the data: why there are no accuracies, and what could not be read or is left out."""
    *sources, unjudged = splits
    notes = [f"no {'probes' if 'encoders' in results else 'accuracies'}: {unjudged}"] if unjudged else []
    notes += [f"no {PROTOCOLS[protocol]}: {why}" for protocol, why in left_out.items()]
    for source in sources:
        if source and source.skipped:
            names = ", ".join(list(source.skipped)[:3]) + (", …" if len(source.skipped) > 3 else "")
            notes.append(f"{source.name}: {len(source.skipped)} files could not be decoded and were skipped ({names})")
    return [*notes, *dict.fromkeys(note for source in sources if source for note in source.left_out)]


if __name__ == "__main__":
    WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.")
    PROTOCOL = flags.DEFINE_list(
        "protocol",
        None,
        f"Some of {', '.join((*PROTOCOLS, OBJECTIVE))} (1 and 10 per cent of the labels); by default those of the data "
        "and of the method.",
    )
    STEP = flags.DEFINE_integer("step", None, "Evaluate the checkpoint of this step; by default the newest.")
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM ends it: there is nothing to save
    launch(lambda: main(WORKDIR.value, PROTOCOL.value, STEP.value))
