"""What a run's encoder is worth, beside a random-init encoder and the raw data, and a report to look at.

    python -m ssljax.evaluate --workdir=runs/simclr [--protocol=knn,linear,linear_1,finetune_1,objective]

`objective` is how well a method does on the test split what it was trained to do, where it has a number for that.
Prints the accuracies, and writes `results.json`, `report.html` and `figures/` into the run's folder.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssljax.build import Run, build_source, modality_of, open_run
from ssljax.collectives import example_keys
from ssljax.commands import launch, local_path
from ssljax.data.pipeline import eval_batches
from ssljax.data.sources import DataError, Source
from ssljax.data.subset import Subset
from ssljax.engine.logs import read_metrics
from ssljax.engine.mesh import eval_batch_size, make_mesh, over_devices, process_rows, replicate
from ssljax.engine.processes import on_first
from ssljax.evals.boosting import boosting
from ssljax.evals.features import extract
from ssljax.evals.finetune import BATCH, EPOCHS, PATIENCE, RATE, fine_tune
from ssljax.evals.folds import cross_validated
from ssljax.evals.knn import knn, nearest, one_nearest
from ssljax.evals.linear import DRAWS, FEW, leave_one_out, linear_probe
from ssljax.evals.maps import tsne
from ssljax.evals.scores import Score, margin, mean_of, written
from ssljax.evals.svm import INNER_FOLDS, svm
from ssljax.modalities import MODALITIES
from ssljax.modalities.modality import Judged
from ssljax.report import Report, write_report
from ssljax.typing import TrainState

LINEAR = {"linear_1": 0.01, "linear_10": 0.1, "linear": 1.0}
"""Linear probes, and the share of the labels that they use."""
FINE_TUNED = {"finetune_1": 0.01, "finetune_10": 0.1, "finetune": 1.0}
"""The same of training encoders on."""
GROUPED = ("groups", "left_out")
"""Linear probes where it is known which group an example is of, such as who speaks: of the groups, and of the classes
in each group by a classifier that has learnt from the others."""
PROTOCOLS = {
    "knn": "k-NN",
    "linear_1": "linear, 1 %",
    "linear_10": "linear, 10 %",
    "linear": "linear",
    "finetune_1": "tuned, 1 %",
    "finetune_10": "tuned, 10 %",
    "finetune": "tuned",
    "groups": "linear, groups",
    "left_out": "left-out groups",
    "nn1": "1-NN",
    "svm": "SVM",
}
"""What encoders are judged by, and what that is called."""
PROTOCOLS |= {protocol: title for modality in MODALITIES.values() for protocol, title in modality.own.items()}
OBJECTIVE = "objective"
"""The protocol that needs no labels: `Method.measure` on the test split of what was trained on."""
BOOSTED = "gradient boosting"
GALLERY_BANK, GALLERY_TEST, FEWEST_MAPPED, QUERIES, NEIGHBOURS, PANELS, THUMBNAIL = 2000, 800, 10, 8, 6, 8, 64

Scores = dict[str, dict[str, Score]]


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
    encoders = {
        **{name: partial(features, found) for name, found in states.items()},
        **{name: without_encoder(floor) for name, floor in modality.floors().items()},
    }

    results: dict[str, Any] = {"step": int(state.step), "examples": {"train": train.count}}
    if protocols is None or OBJECTIVE in protocols:
        results |= _objective(run, config, states, mesh, must=bool(protocols))
    scores: Scores = {}
    described: dict[str, str] = {}
    if test is not None and probes:
        batches = partial(_batches, mesh=mesh)
        tune = partial(_fine_tuned, run.method.features, states, train, test)
        scores, described, counts = _scores(encoders, batches(train), batches(test), probes, tune, config, train.things)
        results |= {"examples": counts}
        if hasattr(run.method, "classify"):
            logits, labels = extract(partial(over_devices(run.method.classify, mesh), state), batches(test)())
            classified = Score(logits.argmax(axis=1) == labels)
            results["classifier"] = {"accuracy": classified.accuracy, "standard_error": classified.standard_error}
    judged = Judged({}, {}, {})
    if own:
        judged = modality.judge(run.method, states, partial(_compute, mesh), own)
        for name, by_protocol in judged.scores.items():
            scores[name] = scores.get(name, {}) | by_protocol
        described |= judged.described
    if described:
        results |= _summary(scores, described)
    report = _report(workdir, config, run, state, mesh, encoders, splits, results, judged.pictures)
    on_first(partial(_publish, workdir, results, report))
    return results


def _publish(workdir: Path, results: dict[str, Any], report: Report) -> None:
    if "objective" in results:
        print("\n".join(_objective_table(results["objective"])))
    if "encoders" in results:
        print("\n".join(_table(results)))
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


def _objective(
    run: Run, config: ConfigDict, states: dict[str, TrainState], mesh: Mesh, *, must: bool
) -> dict[str, Any]:
    """What the method says of itself on the test split, of each state and beside floors; nothing where it has no such
    number or there is no such split, which is an error if it `must` be."""
    measure = getattr(run.method, "measure", None)
    if measure is None:
        if must:
            raise ValueError(f"method '{config.method.name}' has no objective that is measured on test data.")
        return {}
    try:
        train, test = (build_source(config, split) for split in ("train", "test"))
    except DataError:
        if must:
            raise
        return {}
    size = eval_batch_size(mesh, about=min(16, len(test)))

    def of_batch(given, batch):
        state, number = given
        key = jax.random.fold_in(jax.random.key(0), number)
        found = measure(state, batch, example_keys(key, size))
        names[:] = sorted(found)
        return jnp.stack([jnp.stack(found[name], axis=-1) for name in names], axis=1)

    names: list[str] = []
    compute = over_devices(of_batch, mesh)

    def measured(state) -> dict[str, dict[str, float]]:
        rows = []
        for number, batch in enumerate(eval_batches(test, size, process_rows(size, mesh))):
            found, _, mask = compute((state, replicate(np.int32(number), mesh)), batch)
            rows.append(found[mask])
        return {name: mean_of(*of.T) for name, of in zip(names, np.concatenate(rows).transpose(1, 0, 2), strict=True)}

    found = {name: measured(state) for name, state in states.items()}
    floors = modality_of(config).objective_floors(train, test)
    found |= {
        floor: {name: {"value": value} for name, value in of.items() if name in names} for floor, of in floors.items()
    }
    text = f"the {len(test)} test {test.things} of {test.name}, ± the standard error over them"
    return {"objective": {"measured on": text, "of": {name: of for name, of in found.items() if of}}}


def _objective_table(objective: dict[str, Any]) -> list[str]:
    """Lines to print."""
    names = list(objective["of"]["pretrained"])
    lines = ["", f"{'objective':<18}" + "".join(f"{name:>27}" for name in names)]
    for encoder, of in objective["of"].items():
        cells = (written(of[name]) if name in of else "" for name in names)
        lines.append(f"{encoder:<18}" + "".join(f"{cell:>27}" for cell in cells))
    return [*lines, f"objective protocol: {objective['measured on']}"]


def _sizes(source: Source) -> str:
    shapes = source.shapes or {}
    return "images that vary in size" if "size" in shapes else f"images of {shapes['image'][0][:2]} pixels"


def _compute(mesh: Mesh, f: Callable, state: Any, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """See `ssljax.modalities.modality.Compute`."""
    return extract(partial(over_devices(f, mesh), state), _batches(source, mesh)())


def _batches(source: Source, mesh: Mesh) -> Callable[[], Iterator[dict[str, np.ndarray]]]:
    """What iterates over this process's rows of a split."""
    size = eval_batch_size(mesh, about=min(256, len(source)))
    return lambda: eval_batches(source, size, process_rows(size, mesh))


def _scores(
    encoders, train, test, protocols, tune: Callable[[str, float], Score | None], config: ConfigDict, things: str
) -> tuple[Scores, dict[str, str], dict[str, int]]:
    """Each encoder by each protocol, the protocols in words, and how many things they learn from and are tested on."""
    modality, settings = modality_of(config), config.evaluate
    raw = next(iter(modality.floors()))
    scores: Scores = {}
    if set(protocols) & set(GROUPED):
        of_group = partial(over_devices(lambda _, batch: batch["group"][:, None], make_mesh()), ())
        groups = [extract(of_group, split())[0][:, 0].astype(int) for split in (train, test)]
    for name, encoder in encoders.items():
        features = *extract(encoder, train()), *extract(encoder, test())
        for protocol in protocols:
            if protocol in FINE_TUNED:
                found = tune(name, FINE_TUNED[protocol])
            elif protocol == "groups":
                of_groups = features[0], groups[0], features[2], groups[1]
                found, _ = linear_probe(*of_groups, scaling=modality.scaling)
            elif protocol == "left_out":
                x, y = np.concatenate(features[::2]), np.concatenate(features[1::2])
                found = leave_one_out(x, y, np.concatenate(groups), scaling=modality.scaling)
            else:
                judge = partial(_judged, protocol, modality.scaling, settings)
                folds = _folds(config)
                found = cross_validated(judge, *features[:2], folds) if folds else judge(*features)
            if found is not None:
                scores.setdefault(name, {})[protocol] = found
        if modality.boosted and name == raw:
            boosted = {p: boosting(*features, share=LINEAR[p]) for p in protocols if p in LINEAR}
    if modality.boosted:
        scores[BOOSTED] = boosted
    counts = {"train": len(features[0]), "test": len(features[2])}
    return scores, {protocol: _described(protocol, config, things, **counts) for protocol in protocols}, counts


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


def _judged(protocol: str, scaling: str, settings: ConfigDict, *features: np.ndarray) -> Score:
    """features: of the training examples, their labels, and of the test examples."""
    if protocol == "knn":
        return knn(*features, k=settings.k, temperature=settings.temperature)
    if protocol == "nn1":
        return one_nearest(*features)
    if protocol == "svm":
        return svm(*features)
    return linear_probe(*features, share=LINEAR[protocol], scaling=scaling)[0]


def _folds(config: ConfigDict) -> int:
    """0 where one split is for learning and another one for testing."""
    return modality_of(config).folds if config.data.train_split == config.data.test_split else 0


def _described(protocol: str, config: ConfigDict, things: str, train: int, test: int) -> str:
    """A protocol in words."""
    folds = _folds(config)
    tested = f"{folds}-fold cross-validation over {test} {things}" if folds else f"{test} test {things}"
    train = round(train * (1 - 1 / folds)) if folds else train
    if protocol == "knn":
        settings = config.evaluate
        return (
            f"weighted k-NN, k = {min(settings.k, train)}, cosine similarity, T = {settings.temperature}; un-augmented "
            f"features of {train} training {things}; {tested}"
        )
    if protocol == "nn1":
        return f"the nearest of {train} training {things}, Euclid's distance of un-augmented features; {tested}"
    if protocol == "svm":
        return (
            f"support vector machine with an RBF kernel on un-augmented, frozen features; C chosen on {INNER_FOLDS} "
            f"folds of {train} training {things}; {tested}"
        )
    if protocol in FINE_TUNED:
        share = FINE_TUNED[protocol]
        part = "" if share == 1 else f", {share:.0%} of each class, mean of {DRAWS} draws"
        return (
            f"all weights and a linear classifier, Adam at {RATE} in batches of {BATCH}, until {PATIENCE} epochs (of "
            f"{EPOCHS}) brought nothing on a held-out fifth of {train} training {things}{part}; {test} test {things}"
        )
    scaled = {"standard": "standardised", "unit": "unit-length"}[modality_of(config).scaling]
    if protocol == "left_out":
        return (
            f"logistic regression (50 iterations of L-BFGS) on {scaled}, un-augmented, frozen features: {things} of "
            "each group by a classifier that has learnt from the other groups, of which one is held out to choose the "
            f"L2 penalty; {train + test} {things} of both splits. Pretraining had the training {things} of all groups, "
            "without labels"
        )
    share = LINEAR.get(protocol, 1.0)
    part = ", of which the groups are told" if protocol == "groups" else ""
    part = part if share == 1 else f", {share:.0%} of each class, mean of {DRAWS} draws"
    fifths = "each fifth in turn" if share * train < FEW else "a fifth"
    return (
        f"logistic regression (50 iterations of L-BFGS) on {scaled}, un-augmented, frozen features; L2 penalty chosen "
        f"on {fifths} of {train} training {things}{part}, held out; {tested}"
    )


def _summary(scores: Scores, described: dict[str, str]) -> dict[str, Any]:
    """Accuracies, and the margins of the pretrained encoder over both floors, for `results.json`."""
    pretrained, *floors = scores
    margins: dict[str, dict] = {protocol: {} for protocol in described}
    for protocol in described:
        for floor in floors:
            if protocol not in scores[floor]:
                continue
            difference, error = margin(scores[pretrained][protocol], scores[floor][protocol])
            margins[protocol][floor] = {"difference": difference, "standard_error": error}
    accuracies = {
        name: {p: {"accuracy": s.accuracy, "standard_error": s.standard_error} for p, s in by_protocol.items()}
        for name, by_protocol in scores.items()
    }
    return {"protocols": described, "encoders": accuracies, "margins": margins}


def _percent(score: dict[str, float]) -> str:
    return f"{100 * score['accuracy']:.1f} ± {100 * score['standard_error']:.1f}"


def _table(results: dict[str, Any]) -> list[str]:
    """Lines to print: accuracies, the margins in standard errors, and the protocols."""
    titles = PROTOCOLS
    protocols = list(results["protocols"])
    lines = ["", f"{'accuracy, %':<18}" + "".join(f"{titles[p]:>16}" for p in protocols)]
    for name, row in results["encoders"].items():
        cells = (_percent(row[p]) if p in row else "" for p in protocols)
        lines.append(f"{name:<18}" + "".join(f"{cell:>16}" for cell in cells))
    lines.append("")
    if own := results.get("classifier"):
        lines.append(f"the run's own classifier: {_percent(own)} % of the test examples")
    for protocol, floors in results["margins"].items():
        parts = []
        for floor, m in floors.items():
            size = (
                f"{m['difference'] / m['standard_error']:.1f} standard errors" if m["standard_error"] else "no spread"
            )
            parts.append(f"{100 * m['difference']:+.1f} points over {floor} ({size})")
        lines.append(f"{titles[protocol]}: pretrained is {', '.join(parts)}")
    return [*lines, *(f"{titles[p]} protocol: {text}" for p, text in results["protocols"].items()), ""]


def _report(
    workdir: Path, config: ConfigDict, run: Run, state: TrainState, mesh: Mesh, encoders, splits, results, retrieved
) -> Report:
    """What there is to see. It needs no labels, and without test images a part of the training images stands in."""
    modality, (train, test, _) = modality_of(config), splits
    test = None if _folds(config) else test  # pictures show what a part of the data is near to in the rest
    held_back = 0 if test else min(GALLERY_TEST, len(train) // 4)
    shown = Subset(test or train, GALLERY_TEST if test else max(held_back, 1))
    bank = Subset(train, GALLERY_BANK, skip=held_back)

    def gallery(encoder, source):
        return extract(encoder, _batches(source, mesh)())

    def thumbnail(_, batch):
        pixels = modality.thumbnails(batch, THUMBNAIL)
        return pixels.reshape(*pixels.shape[:-3], -1)

    def pictures(source):
        pixels, labels = gallery(partial(over_devices(thumbnail, mesh), ()), source)
        return (pixels.reshape(-1, THUMBNAIL, THUMBNAIL, 3) * 255).round().astype(np.uint8), labels

    (bank_images, bank_labels), (images, labels) = pictures(bank), pictures(shown)
    queries = np.linspace(0, len(images) - 1, min(QUERIES, len(images))).astype(int)
    maps, neighbours, neighbour_labels = {}, {}, {}
    for name in ("pretrained", *modality.floors()):
        bank_features, features = gallery(encoders[name], bank)[0], gallery(encoders[name], shown)[0]
        if len(features) >= FEWEST_MAPPED:
            maps[name] = tsne(features)
        _, found = nearest(bank_features, features[queries], NEIGHBOURS)
        neighbours[name] = np.concatenate([images[queries, None], bank_images[found]], axis=1)
        neighbour_labels[name] = np.concatenate([labels[queries, None], bank_labels[found]], axis=1)

    examples = next(eval_batches(Subset(train, PANELS), min(PANELS, len(train))))
    batch = {name: jnp.asarray(examples[name]) for name in examples if name not in ("mask", "label")}
    keys = example_keys(jax.random.key(0), len(examples["mask"]))
    here = jax.device_get(state)
    return Report(
        title=f"{config.method.name} · {config.encoder.name} · {config.data.source}",
        config=config.to_dict(),
        metrics=read_metrics(workdir),
        results=results,
        panels=(run.method.caption, modality.pictures(jax.jit(run.method.show)(here, batch, keys))),
        maps=maps,
        map_images=images,
        map_labels=labels if train.has_labels else None,
        class_names=train.class_names,
        neighbours=neighbours,
        neighbour_labels=neighbour_labels if train.has_labels else None,
        notes=_notes(splits, results),
        things=train.things,
        shown=f"test {train.things}" if test else f"held-back {train.things} (which pretraining has seen)",
        found=retrieved,
    )


def _notes(splits: tuple[Source, Source | None, str], results: dict[str, Any]) -> list[str]:
    """What a reader should know of the data: why there are no accuracies, and what could not be read."""
    *sources, unjudged = splits
    notes = [f"no {'probes' if 'encoders' in results else 'accuracies'}: {unjudged}"] if unjudged else []
    for source in sources:
        if source and source.skipped:
            names = ", ".join(list(source.skipped)[:3]) + (", …" if len(source.skipped) > 3 else "")
            notes.append(f"{source.name}: {len(source.skipped)} files could not be decoded and were skipped ({names})")
    return notes


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
