"""Pretrain from a config.

    python -m ssljax.train --config=configs/images/simclr.py:demo --workdir=runs/simclr [--config.batch_size=512 …]

The same command again goes on where the run stopped.
"""

import contextlib
import importlib.util
import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from ssljax.build import (
    Run,
    build_run,
    build_source,
    example_batch,
    modality_of,
    needs_labels,
    settle,
    training_source,
)
from ssljax.commands import AGAIN, launch, local_path
from ssljax.config import remember
from ssljax.data.pipeline import (
    all_examples,
    batch_indices,
    eval_batches,
    index_batches,
    train_batches,
    train_dataset,
)
from ssljax.data.sources import DataError, Source
from ssljax.data.subset import Subset
from ssljax.engine.checkpoint import Checkpoints
from ssljax.engine.lock import hold
from ssljax.engine.logs import Logs
from ssljax.engine.mesh import eval_batch_size, over_devices, process_rows, replicate
from ssljax.engine.processes import on_first
from ssljax.engine.step import make_several
from ssljax.engine.trainer import Every, Profile, fit
from ssljax.evals.features import extract, labelled
from ssljax.evals.protocols import Settings, judge
from ssljax.evals.same_class import same_class
from ssljax.evals.tables import TABLES, VIEWED, by_k, of_geometry, viewed
from ssljax.typing import TrainState

FEW_STEPS = 100


def main(config: ConfigDict | None, workdir: str | None) -> int:
    if config is None or workdir is None:
        raise ValueError(
            "--config and --workdir are both needed, for instance --config=configs/images/simclr.py:demo "
            "--workdir=runs/simclr."
        )
    return train(config, local_path(workdir))


def train(config: ConfigDict, workdir: Path) -> int:
    """Pretrain as `config` says into `workdir`; 0 when complete, AGAIN when it was told to stop before.

    Of several processes each runs this: all of them see `workdir`, and the first one writes what is not a checkpoint.
    """
    # Everything that a config can get wrong is found here, before the first compilation.
    if config.log.wandb and not importlib.util.find_spec("wandb"):
        raise ValueError("--config.log.wandb needs its package: `pip install wandb`, or leave the field empty.")
    config = config.copy_and_resolve_references()  # what it leaves open is settled below
    profile = _profile(config, workdir)
    source = training_source(config)
    settle(config, source)
    run = build_run(config, examples=len(source), example=example_batch(config, source))
    several = _several(config, run, source)
    with contextlib.ExitStack() as stack:

        def claim() -> None:
            stack.enter_context(hold(workdir))
            remember(config, workdir)

        on_first(claim)
        folder, keep, best = workdir / "checkpoints", config.checkpoint.keep, next(iter(config.evaluate.online), "")
        checkpoints = stack.enter_context(Checkpoints(folder, keep=keep, best=best))
        state = checkpoints.restore(run.abstract) or run.start()
        start = int(state.step)
        logs = Logs(workdir, total=run.total, start=start, wandb=config.log.wandb, config=config.to_dict())
        stack.callback(logs.close)
        logs.say(_headline(config, run, source, start))
        for note in _notes(config, run, start):
            logs.say(f"note: {note}")
        data = {
            "batch_size": config.batch_size,
            "seed": config.seed,
            "rows": process_rows(config.batch_size, run.mesh),
        }
        labels = needs_labels(config)
        if config.data.resident:
            batches = index_batches(len(source), start_step=start, **data)
        else:
            batches = train_batches(source, start_step=start, labels=labels, **data)
        stack.callback(batches.close)
        _, complete = fit(
            state,
            run.step,
            batches,
            mesh=run.mesh,
            total=run.total,
            batch_size=config.batch_size,
            every=Every(config.log.every, config.evaluate.every, config.checkpoint.every),
            logs=logs,
            checkpoints=checkpoints,
            evaluate=online(config, run, source, logs),
            replay=lambda step: train_dataset(source, labels=labels, **data)[step],
            post_mortem=partial(post_mortem, config, source, workdir),
            profile=profile,
            several=several,
            steps_per_call=config.train.steps_per_call,
            stop=getattr(run.method, "stop", None),
        )
    if jax.process_index() == 0:
        print(f"{'complete' if complete else 'stopped and saved; the same command goes on'}: {workdir}")
    return 0 if complete else AGAIN


def _several(config: ConfigDict, run: Run, source: Source) -> Callable | None:
    """What makes several steps at once, and takes their examples from the devices if they are resident; None if neither
    is asked for."""
    at_once = config.train.steps_per_call
    for name in ("log", "evaluate", "checkpoint"):
        if config[name].every % at_once:
            raise ValueError(
                f"--config.{name}.every={config[name].every} must be a multiple of --config.train.steps_per_call="
                f"{at_once}: nothing can be seen of the steps between."
            )
    if not config.data.resident:
        return partial(make_several(run.step, run.mesh), {}) if at_once > 1 else None
    held = jax.local_devices()[0].memory_stats() or {}
    most = held["bytes_limit"] // 2 if "bytes_limit" in held else None
    examples = all_examples(source, labels=needs_labels(config), most=most)
    return partial(make_several(run.step, run.mesh), replicate(examples, run.mesh))


def _profile(config: ConfigDict, workdir: Path) -> Profile | None:
    steps = tuple(config.profile)
    if not steps:
        return None
    if len(steps) != 2 or not 1 <= steps[0] <= steps[1]:
        raise ValueError(f"--config.profile={steps} must be the first and the last step to trace, as in 10,15.")
    return Profile(*steps, folder=workdir / "profile")


def _headline(config: ConfigDict, run: Run, source: Source, start: int) -> str:
    parameters = sum(x.size for x in jax.tree.leaves(run.abstract.params))
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return (
        f"{config.method.name}: {config.encoder.name} and heads, {parameters / 1e6:.2f} M parameters; {source.count} "
        f"{source.things} of {source.name}; {run.total} steps of {config.batch_size} on {run.mesh.devices.size} "
        f"device(s){processes}" + (f"; going on from step {start}" if start else "")
    )


def _notes(config: ConfigDict, run: Run, start: int) -> list[str]:
    """What a reader should know of this run before it begins."""
    notes = []
    if run.total < FEW_STEPS:
        notes.append(f"{run.total} steps are few; small sets need more epochs, --config.epochs=…")
    if config.data.examples < config.batch_size and not run.method.mean_over_examples:
        notes.append(
            f"{config.data.examples} examples do not fill a batch of {config.batch_size}, so that some are in it "
            "several times, and with many methods are told apart from themselves; lower --config.batch_size."
        )
    notes += _too_late(config, run.total)
    if config.profile and (config.profile[1] <= start or run.total < config.profile[0]):
        notes.append(f"there will be no profile: this run goes from step {start + 1} to {run.total}.")
    encoder: Any = run.method.encoder  # type: ignore[attr-defined]
    if encoder.chunks > 1 and getattr(encoder, "norm", "") == "batch":
        notes.append(
            f"BatchNorm's statistics are of each microbatch of {config.train.microbatch} examples, not of the batch of "
            f"{config.batch_size}, which is another network; --config.encoder.norm=group and Vision Transformers have "
            "no statistics, and give what the whole batch at once would give."
        )
    return notes


def _too_late(config: ConfigDict, total: int) -> list[str]:
    """What is set for after the end of the run."""
    optimizer, method = config.optimizer, config.method
    per_epoch = config.data.examples / config.batch_size
    warmup = "warmup_steps" if optimizer.warmup_steps else "warmup_epochs"
    warm = optimizer.warmup_steps / per_epoch or optimizer.warmup_epochs
    falls = min(optimizer.milestones, default=0) if optimizer.schedule == "steps" else 0
    waits = {
        f"optimizer.{warmup}": (warm, "the learning rate never reaches its peak"),
        "optimizer.freeze_epochs": (optimizer.freeze_epochs * bool(optimizer.freeze), "what is frozen never moves"),
        "optimizer.milestones": (falls, "the learning rate never falls"),
        "method.queue_start": (method.get("queue_start", 0) * bool(method.get("queue")), "the queue is never filled"),
        "method.warmup_temperature_epochs": (
            method.get("warmup_temperature_epochs", 0),
            "the teacher's temperature never reaches method.teacher_temperature",
        ),
    }
    steps = {field: epochs * per_epoch for field, (epochs, _) in waits.items()}
    return [
        f"{field} is {steps[field]:.0f} steps, longer than the run, so that {effect}; lower --config.{field}."
        for field, (_, effect) in waits.items()
        if steps[field] >= total
    ]


def post_mortem(config: ConfigDict, source: Source, workdir: Path, step: int, metrics: dict[str, float]) -> str:
    """Write `post-mortem/step-N.json`: the metrics of step N, which was not finite, and the examples of its batch."""
    path = workdir / "post-mortem" / f"step-{step}.json"
    indices = batch_indices(len(source), config.batch_size, config.seed, step - 1)
    contents = {
        "step": step,
        "metrics": {name: value if math.isfinite(value) else str(value) for name, value in metrics.items()},
        "source": source.name,
        "indices": indices.tolist(),
    }

    def write() -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(contents, indent=1))

    on_first(write)
    return f"Its metrics and the indices of its batch are in {path}."


def online(config: ConfigDict, run: Run, source: Source, logs: Logs) -> Callable[[TrainState], dict[str, float]]:
    """What the protocols of `evaluate.online` find of the features, learnt and tested on parts of the labelled data;
    nothing where there are no labels. A protocol that these do not allow is said, once, and left out."""
    e = config.evaluate
    if not e.every or (modality_of(config).folds and config.data.train_split == config.data.test_split):
        return lambda state: {}
    try:
        known, test = (modality_of(config).judged_by(split) for split in ("train", "test"))
        known, test = source if known is None else known, build_source(config, "test") if test is None else test
        for split in (known, test):
            split.require_labels()
    except DataError as error:
        logs.say(f"no online evaluation: {error}")
        return lambda state: {}
    size = eval_batch_size(run.mesh, about=min(256, len(known)))
    bank, queries = Subset(known, e.train_examples), Subset(test, e.test_examples)
    features, rows = over_devices(run.method.features, run.mesh), process_rows(size, run.mesh)

    settings = Settings(e.k, e.temperature, modality_of(config).scaling, folds=0, things=source.things)
    left_out: set[str] = set()
    of_views = viewed(run.method)
    views = None if of_views is None else over_devices(of_views, run.mesh)

    def evaluate(state: TrainState) -> dict[str, float]:
        def of(part):
            x, labels = extract(partial(features, state), eval_batches(part, size, rows))
            kept = labelled(labels)
            return x[kept], labels[kept]

        def table(name: str) -> dict[str, float]:
            if name == "geometry":
                some = Subset(queries, VIEWED)
                seen = None if views is None else extract(partial(views, state), eval_batches(some, size, rows))[0]
                numbers = of_geometry(found[2], seen)
            else:
                numbers = by_k(*found) if name == "knn_grid" else same_class(*found)
            start = "test" if name == "geometry" else name
            return {f"{start}_{re.sub(r'[^a-z0-9.]+', '_', n.lower())}": of["value"] for n, of in numbers.items()}

        found = *of(bank), *of(queries)
        metrics: dict[str, float] = {}
        for name in e.online:
            if name in left_out:
                continue
            try:
                metrics |= table(name) if name in TABLES else {name: judge(name, settings, *found).accuracy}
            except ValueError as error:
                left_out.add(name)
                logs.say(f"note: no online {name}: {error}")
        return metrics

    return evaluate


if __name__ == "__main__":
    CONFIG = config_flags.DEFINE_config_file(
        "config", lock_config=True, help_string="A file, and its variant after a colon."
    )
    WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: config, checkpoints, metrics, report.")
    launch(lambda: main(CONFIG.value, WORKDIR.value))
