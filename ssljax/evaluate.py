"""What a run's encoder is worth, beside a random-init encoder and the raw data, and a report to look at.

    python -m ssljax.evaluate --workdir=runs/simclr [--protocol=knn,linear,linear_1,finetune_1,objective]
        [--data=SOURCE] [--ood=SOURCE] [--tune=frozen=2,layer_decay=0.75] [--[no]scratch] [--crops=10] [--noreport]

`objective` is how well a method does on the test split what it was trained to do, where it has a number for that.
Prints what is known of that checkpoint, and writes `results.json`, `report.html` and `figures/` into the run's folder,
and, where a part of the labels is used, which that is: `label_subsets.npz`. What is found on other data (--data) has a
folder of its own in the run's `on/`, and what was found of a checkpoint that is not the newest in `at/STEP/`.
docs/evaluation.md says what each protocol does.
"""

import json
import re
import shutil
from collections.abc import Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from ssljax.build import build_source, modality_of, open_run, small_batch
from ssljax.commands import launch, local_path
from ssljax.config import recall
from ssljax.data.sources import DataError, Source, absolute
from ssljax.engine.checkpoint import Checkpoints
from ssljax.engine.logs import read_metrics
from ssljax.engine.mesh import make_mesh, over_devices, replicate
from ssljax.engine.processes import on_first
from ssljax.evals import protocols as of_features
from ssljax.evals.features import labelled
from ssljax.evals.finetune import PLAIN, Tuning
from ssljax.evals.protocols import FINE_TUNED, GROUPED, PROBES
from ssljax.evals.results import accuracy_lines, found_before, merged, objective_lines, summary
from ssljax.evals.scores import Score
from ssljax.evals.tables import ALONE, TABLES, UNLABELLED, table_lines
from ssljax.gallery import gallery
from ssljax.judging import Found, Judge, folds_of
from ssljax.methods import METHODS
from ssljax.modalities import MODALITIES
from ssljax.modalities.modality import Judged
from ssljax.objective import objective
from ssljax.report import Report, write_report
from ssljax.typing import Method, TrainState
from ssljax.wording import counted, nearest

PROTOCOLS = of_features.TITLES | {name: title for kind in MODALITIES.values() for name, title in kind.own.items()}
"""What encoders are judged by, and what that is called."""
OBJECTIVE = "objective"
"""The protocol that needs no labels: `Method.measure` on the test split of what was trained on."""
WRITTEN = "report.html", "figures", "label_subsets.npz", "results.json"
"""Into a checkpoint's folder."""
SMALL = 2**26
"""Bytes of examples on which an encoder is trained from scratch unasked."""
CROPS_UNASKED, MANY = 10, 100_000
"""Of each image, on which published heads are trained; not where there are more images than so many."""
FEW = 30
"""Of fewer test examples a note says that they are few."""
KNOWN = (*PROTOCOLS, *TABLES, OBJECTIVE)


def main(workdir: str | None, protocols: list[str] | None, step: int | None, **others: Any) -> None:
    if workdir is None:
        raise ValueError("--workdir is needed: the folder of a run.")
    evaluate(local_path(workdir), protocols, step, **others)


def evaluate(
    workdir: Path,
    protocols: list[str] | None = None,
    step: int | None = None,
    *,
    data: str = "",
    ood: str = "",
    tuning: Tuning = PLAIN,
    scratch: bool | None = False,
    crops: int | None = 0,
    draw: bool = True,
) -> dict[str, Any]:
    """Evaluate a checkpoint, the newest or that of `step`; returns what is in `results.json`.

    protocols: some of KNOWN; None for those of the modality, if there are labels, and the objective, if the method has
    one. What others found of the same checkpoint before stays. data: a source of the same kind to judge by, instead of
    the run's own; ood: one that the protocol `ood` tells from it. tuning: of fine-tuning; scratch: whether an encoder
    that was drawn, trained with the same labels, is a floor (None: where the examples to learn from are SMALL);
    crops: of each training image, on which the heads of `probe_` are trained, instead of the image as it is (0); None:
    CROPS_UNASKED of those that papers train, of images that are not MANY. draw: whether a report is made.
    Raises DataError where there are no labels, and for data that the encoder does not take.
    """
    if protocols is not None and not protocols:
        raise ValueError(f"--protocol is empty: leave it out, or give some of {', '.join(KNOWN)}.")
    for protocol in protocols or ():
        if protocol not in KNOWN:
            raise ValueError(f"protocol '{protocol}' is unknown; {nearest(protocol, KNOWN)}use {', '.join(KNOWN)}.")
    if "ood" in (protocols or ()) and not ood:
        raise ValueError("protocol 'ood' tells other data from the run's: say which by --ood=SOURCE.")
    if tuning != PLAIN and not FINE_TUNED.keys() & set(protocols or ()):
        raise ValueError(f"--tune is of fine-tuning: ask for it by --protocol, with some of {', '.join(FINE_TUNED)}.")
    if crops and not PROBES.keys() & set(protocols or ()):
        raise ValueError(f"--crops is of heads: ask for them by --protocol, with some of {', '.join(PROBES)}.")
    config = recall(workdir)
    _must_suit(config, protocols or ())
    tuning.require_images(modality_of(config).shapes())
    mesh = make_mesh()
    own_config, run, state = open_run(workdir, step, mesh)
    config, folder = own_config, _folder_at(workdir, int(state.step))
    if data:
        folder = _folder_on(folder, data)
        config = modality_of(config).on_other_data(absolute(data))
    modality = modality_of(config)
    chosen = [p for p in protocols or modality.protocols if p != OBJECTIVE]
    chosen += ["ood"] if ood and "ood" not in chosen else []
    of_kind, probes = ([p for p in chosen if (p in modality.own) == is_own] for is_own in (True, False))
    by_itself = [p for p in probes if p in ALONE]
    splits = train, test, _ = _splits(config, must_have_labels=bool(protocols and probes and not by_itself))
    left_out: list[str] = []
    if test is None and by_itself:
        if set(by_itself) - set(UNLABELLED):
            try:
                _require_classes(train)
            except DataError:
                by_itself = [p for p in by_itself if p in UNLABELLED]
                if protocols and not by_itself:
                    raise
        if by_itself:
            left_out = [p for p in probes if p not in by_itself]
            probes = by_itself
    outside = None
    if ood and absolute(ood) == config.data.source:
        raise ValueError(f"--ood={ood} is what encoders are judged by: give other data, which is to be told from it.")
    if ood:
        other = modality_of(modality.on_other_data(absolute(ood)))
        outside = other.judged_by("test") or other.open("test")
    for source in filter(None, (train if data else None, test if data else None, outside)):
        _must_fit(run.method, state, config, source)
    are_images = "image" in (train.shapes or {})
    if crops is None:
        published = set(probes) & set(PROBES) - {"probe_grid"}
        crops = CROPS_UNASKED if published and are_images and len(train) <= MANY else 0
    if crops < 0:
        raise ValueError(f"--crops={crops} must be a number of crops of each image, or 0 for the images as they are.")
    if crops and not are_images:
        raise ValueError(f"--crops={crops} is of images: leave it out for {train.things}.")
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
    must = protocols is not None
    if scratch is None:
        # Nodes are all of one example, and are not trained on.
        scratch = 1 < len(train) and train.nbytes <= SMALL and not folds_of(config)
    judge = Judge(config, run, mesh, encoders, states, train, test, outside, tuning, scratch, crops, must)

    results: dict[str, Any] = {"step": int(state.step), "examples": {"train": train.count}}
    results |= {"data": data} if data else {}
    if protocols is None or OBJECTIVE in protocols:
        results |= objective(run.method, config, states, mesh, must=bool(protocols))
    found = Found({}, {}, {}, {}, {}, {})
    if probes and (test is not None or by_itself):
        found = judge.by(probes)
        results |= {"examples": found.counts}
        if test is not None and hasattr(run.method, "classify") and not data:
            logits, labels = judge.rows(partial(over_devices(run.method.classify, mesh), state), test)
            kept = labelled(labels)
            classified = Score(logits[kept].argmax(axis=1) == labels[kept])
            results["classifier"] = {"accuracy": classified.accuracy, "standard_error": classified.standard_error}
    scores, in_words = found.scores, found.described
    judged = Judged({}, {}, {})
    if of_kind:

        def compute(f, state, source):
            return judge.rows(partial(over_devices(f, mesh), state), source)

        judged = modality.judge(run.method, states, compute, of_kind)
        for name, by_protocol in judged.scores.items():
            scores[name] = scores.get(name, {}) | by_protocol
        in_words |= judged.described
    if in_words:
        results |= summary(scores, in_words)
    if found.tables:
        results["tables"] = found.tables
    before = found_before(folder, data)
    if (of_step := before.get("step", results["step"])) != results["step"]:
        on_first(partial(_set_aside, folder, workdir / "at" / str(of_step) / folder.relative_to(workdir)))
        before = {}
    results = merged(before, results)
    on_first(partial(_keep, folder, results, found.subsets, bool(before)))
    pictures = None
    if draw:
        shown = {"pretrained": encoders["pretrained"]} | floors
        held = None if folds_of(config) else test  # with folds, what is shown is near to a part of the same data
        pictures = gallery(run.method, modality, state, mesh, shown, judge.rows, train, held, other=bool(data))
    # Of files that are broken, too, which who reads them finds.
    notes = _notes(splits, results, found, left_out, bool(by_itself))
    notes += [*_few(test, outside), *_replaced(before, found)] if probes else []
    report = None
    if pictures is not None:
        elsewhere = f", on {data}" if data else ""
        report = Report(
            title=f"{config.method.name} · {config.encoder.name} · {own_config.data.source}{elsewhere}",
            config=own_config.to_dict(),
            metrics=read_metrics(workdir),
            results=results,
            class_names=train.class_names,
            things=train.things,
            found=judged.pictures,
            **pictures._asdict(),
            notes=notes,
        )
    on_first(partial(_publish, folder, report, notes))
    return results


def _keep(folder: Path, results: dict[str, Any], subsets: dict[str, np.ndarray], keep: bool) -> None:
    """Prints and writes what was found, before anything is drawn.

    keep: whether the subsets of labels that are there already are those of results, too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if "objective" in results:
        print("\n".join(objective_lines(results["objective"])))
    if "encoders" in results:
        print("\n".join(accuracy_lines(results, PROTOCOLS)))
    for protocol, table in results.get("tables", {}).items():
        print("\n".join(table_lines(TABLES[protocol], table)))
    drawn = folder / "label_subsets.npz"
    if keep and drawn.exists():
        with np.load(drawn, allow_pickle=False) as before:
            subsets = dict(before) | subsets
    drawn.unlink(missing_ok=True)
    if subsets:
        np.savez_compressed(drawn, allow_pickle=False, **subsets)
    part = folder / "results.json.part"
    part.write_text(json.dumps(results, indent=2))
    part.replace(folder / "results.json")


def _publish(folder: Path, report: Report | None, notes: list[str]) -> None:
    for note in notes:
        print(f"note: {note}")
    print(f"report: {write_report(report, folder)}" if report else f"results: {folder / 'results.json'}")


def _folder_at(workdir: Path, step: int) -> Path:
    """Of what is found of the checkpoint of that step: the run's own if there is none after it."""
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return workdir if step == checkpoints.latest else workdir / "at" / str(step)


def _folder_on(folder: Path, data: str) -> Path:
    """In a checkpoint's folder, of what is found on those data: none that other data have already."""
    name, places = re.sub(r"[^\w.-]+", "-", data).strip("-"), count(2)
    on = folder / "on" / name
    while (on / "results.json").exists() and not found_before(on, data):
        on = folder / "on" / f"{name}-{next(places)}"
    return on


def _set_aside(folder: Path, older: Path) -> None:
    """Moves what was found of another checkpoint, while there was none after it, to that one's folder."""
    older.mkdir(parents=True, exist_ok=True)
    for name in WRITTEN:
        if (folder / name).is_dir():
            shutil.rmtree(older / name, ignore_errors=True)
        if (folder / name).exists():
            (folder / name).replace(older / name)
    print(f"note: what was found of an older checkpoint is in {older} now")


def _must_suit(config: ConfigDict, protocols: Sequence[str]) -> None:
    """Raises ValueError if one of the protocols is of other kinds of data alone than the method."""
    here = modality_of(config).own
    kinds = {name: [kind for kind, other in MODALITIES.items() if name in other.own] for name in PROTOCOLS}
    for protocol in protocols:
        if (of := kinds.get(protocol)) and protocol not in here:
            there = ", ".join(name for name in KNOWN if not kinds.get(name) or name in here)
            raise ValueError(
                f"protocol '{protocol}' is for {' and '.join(of)}, and method '{config.method.name}' learns from "
                f"{METHODS[config.method.name].modality}: use {there}."
            )


def _must_fit(method: Method, state: TrainState, config: ConfigDict, source: Source) -> None:
    """Raises DataError if the encoder does not take examples of such shapes; nothing is computed."""
    if source.shapes is None:
        return
    try:
        jax.eval_shape(method.features, state, small_batch(config, source.shapes))
    except (ValueError, TypeError, flax.errors.FlaxError) as error:
        here = ", ".join(f"{name} {shape}" for name, (shape, _) in source.shapes.items())
        there = ", ".join(f"{name} {shape}" for name, (shape, _) in modality_of(config).shapes().items())
        raise DataError(
            f"{source.name} has examples with {here}, which the run's encoder, trained on {there}, does not take: give "
            f"data of the same shapes ({str(error).splitlines()[0]})"
        ) from None


def _splits(config: ConfigDict, *, must_have_labels: bool) -> tuple[Source, Source | None, str]:
    """Training data, and test data (the same where there are folds), or why these cannot be used."""
    other = modality_of(config).judged_by
    train = other("train") or build_source(config, "train")
    try:
        try:
            test = other("test") or build_source(config, "test")
        except DataError as error:
            raise DataError(f"{error} (`--protocol=knn` judges each training example by all others.)") from None
        _require_classes(train)
        test.require_labels()
        if train.class_names != test.class_names:
            raise DataError(
                f"{train.name} and {test.name} do not have the same classes; give both splits the same class names."
            )
        if train.shapes != test.shapes:
            images = "image" in (train.shapes or {})
            mend = "pretrain with --config.data.canvas, a side that both are resized to" if images else "make them one"
            raise DataError(f"{train.name} has {_sizes(train)}, {test.name} {_sizes(test)}: {mend}.")
    except DataError as error:
        if must_have_labels:
            raise
        return train, None, str(error)
    return train, test, ""


def _require_classes(source: Source) -> None:
    """Raises DataError where there are no labels, or names of one class only."""
    source.require_labels()
    if source.class_names is not None and len(source.class_names) < 2:
        raise DataError(f"all {source.things} of {source.name} are of one class, which leaves nothing to tell apart.")


def _sizes(source: Source) -> str:
    shapes = source.shapes or {}
    if "image" not in shapes:
        return ", ".join(f"{name} {shape}" for name, (shape, _) in shapes.items())
    return "images that vary in size" if "size" in shapes else f"images of {shapes['image'][0][:2]} pixels"


def _notes(
    splits: tuple[Source, Source | None, str], results: dict[str, Any], found: Found, left_out: list[str], alone: bool
) -> list[str]:
    """What a reader should know of the data: why there are no accuracies, and what could not be read or is left out.
    left_out: protocols for which the test split is missing; alone: whether there were some that need none."""
    *sources, unjudged = splits
    missing = "test examples" if alone else "probes" if "encoders" in results else "accuracies"
    missing = ", ".join((PROTOCOLS | TABLES)[protocol] for protocol in left_out) or missing
    notes = [f"no {missing}: {unjudged}"] if unjudged else []
    notes += [f"no {(PROTOCOLS | TABLES)[protocol]}: {why}" for protocol, why in found.left_out.items()]
    notes += found.notes
    for source in sources:
        if source and source.skipped:
            names = ", ".join(list(source.skipped)[:3]) + (", …" if len(source.skipped) > 3 else "")
            files = f"{counted(len(source.skipped), 'files')} that could not be decoded"
            notes.append(f"{source.name}: {files} {'was' if len(source.skipped) == 1 else 'were'} skipped ({names})")
    return [*notes, *dict.fromkeys(note for source in sources if source for note in source.left_out)]


def _few(*judged_by: Source | None) -> list[str]:
    """A note of each source that has too few examples to judge by."""
    return [
        f"{source.name} has only {counted(source.count, source.things)} to judge by, too few to say much: give it a "
        "split 'test' of its own, or more of them."
        for source in judged_by
        if source and source.count < FEW
    ]


def _replaced(before: dict[str, Any], found: Found) -> list[str]:
    """A note of each number that was found by other settings before."""
    told = before.get("protocols", {})
    notes = [
        f"what was found by {PROTOCOLS[protocol]} with other settings before is replaced"
        for protocol, now in found.described.items()
        if told.get(protocol, now) != now
    ]
    if "ood" in found.tables and "ood" in before.get("tables", {}):
        notes.append("what was found of other data by distances before is replaced: there is one such table")
    return notes


if __name__ == "__main__":
    WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.")
    PROTOCOL = flags.DEFINE_list(
        "protocol",
        None,
        f"Some of {', '.join(KNOWN)} (1 and 10 per cent of the labels); by default those of the data "
        "and of the method.",
    )
    STEP = flags.DEFINE_integer("step", None, "Evaluate the checkpoint of this step; by default the newest.")
    DATA = flags.DEFINE_string("data", "", "Judge by this source, of the same kind, instead of by the run's own data.")
    OOD = flags.DEFINE_string("ood", "", "A source that is told from the data by distances of features.")
    TUNE = flags.DEFINE_list("tune", [], "How fine-tuning differs from its default, such as frozen=2,layer_decay=0.75.")
    SCRATCH = flags.DEFINE_bool(
        "scratch",
        None,
        "Whether an encoder is trained from scratch, too, with the same labels; by default where all examples to learn "
        f"from have at most {SMALL // 2**20} MiB.",
    )
    CROPS = flags.DEFINE_integer(
        "crops",
        None,
        "Train the heads of probe_… on so many random crops and flips of each image, or on the images as they are (0); "
        f"by default {CROPS_UNASKED} for published heads, and 0 for the grid or more than {MANY:,} images.",
    )
    REPORT = flags.DEFINE_bool("report", True, "Whether a report is drawn, or only results.json is written.")
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM ends it: there is nothing to save
    launch(
        lambda: main(
            WORKDIR.value,
            PROTOCOL.value,
            STEP.value,
            data=DATA.value,
            ood=OOD.value,
            tuning=Tuning.of(TUNE.value),
            scratch=SCRATCH.value,
            crops=CROPS.value,
            draw=REPORT.value,
        )
    )
