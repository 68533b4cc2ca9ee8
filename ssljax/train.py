"""Pretrain from a config.

    python -m ssljax.train --config=configs/images/simclr.py:demo --workdir=runs/simclr [--config.batch_size=512 …]

The same command again goes on where the run stopped.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from ssljax.build import Run, build_run, build_source, canvas_of, example_batch
from ssljax.commands import launch, quiet_logs
from ssljax.config import remember
from ssljax.data.pipeline import eval_batches, train_batches
from ssljax.data.sources import DataError, Source
from ssljax.data.subset import Subset
from ssljax.engine.checkpoint import Checkpoints
from ssljax.engine.logs import Logs
from ssljax.engine.mesh import eval_batch_size, to_devices
from ssljax.engine.trainer import Every, fit
from ssljax.evals.features import extract
from ssljax.evals.knn import knn
from ssljax.typing import TrainState

FEW_STEPS = 100
STOPPED = 75
"""Exit code of a run that was told to stop and has saved: EX_TEMPFAIL, try again."""


def main(config: ConfigDict | None, workdir: str | None) -> int:
    if config is None or workdir is None:
        raise ValueError(
            "--config and --workdir are both needed, for instance --config=configs/images/simclr.py:demo "
            "--workdir=runs/simclr."
        )
    quiet_logs()
    return train(config, Path(workdir))


def train(config: ConfigDict, workdir: Path) -> int:
    """Pretrain as `config` says into `workdir`; 0 when complete, STOPPED when it was told to stop before."""
    # Everything that a config can get wrong is found here, before the first compilation.
    if config.log.wandb and not importlib.util.find_spec("wandb"):
        raise ValueError("--config.log.wandb needs its package: `pip install wandb`, or leave the field empty.")
    kind, _, where = config.data.source.partition(":")
    if kind in ("folder", "npz"):  # the run is remembered, and the place that it was started from is not
        config.data.source = f"{kind}:{Path(where).expanduser().absolute()}"
    source = build_source(config, "train")
    run = build_run(config, examples=len(source), example=example_batch(config, source))
    remember(config, workdir)
    checkpoints = Checkpoints(workdir / "checkpoints", keep=config.checkpoint.keep, best="knn")
    state = checkpoints.restore(run.abstract) or run.init()
    start = int(state.step)
    logs = Logs(workdir, total=run.total, start=start, wandb=config.log.wandb, config=config.to_dict())
    parameters = sum(x.size for x in jax.tree.leaves(run.abstract.params))
    logs.say(
        f"{config.method.name}: {config.encoder.name} and heads, {parameters / 1e6:.2f} M parameters; {len(source)} "
        f"images of {source.name}; {run.total} steps of {config.batch_size} on {run.mesh.devices.size} device(s)"
        + (f"; going on from step {start}" if start else "")
    )
    if run.total < FEW_STEPS:
        logs.say(f"note: {run.total} steps are few; small sets need more epochs, --config.epochs=…")
    batches = train_batches(
        source,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=start,
        canvas=canvas_of(config, source),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    try:
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
            evaluate=online_knn(config, run, source, logs),
        )
    finally:
        logs.close()
        batches.close()
        checkpoints.close()
    print(f"{'complete' if complete else 'stopped and saved; the same command goes on'}: {workdir}")
    return 0 if complete else STOPPED


def online_knn(config: ConfigDict, run: Run, source: Source, logs: Logs) -> Callable[[TrainState], dict[str, float]]:
    """k-NN accuracy of the features on a part of the labelled data, or nothing where there are no labels."""
    e = config.evaluate
    if not e.every:
        return lambda state: {}
    try:
        test = build_source(config, "test")
        for split in (source, test):
            split.require_labels()
    except DataError as error:
        logs.say(f"no online k-NN: {error}")
        return lambda state: {}
    canvas, size = canvas_of(config, source), eval_batch_size(run.mesh)
    bank, queries = Subset(source, e.train_examples), Subset(test, e.test_examples)
    features = jax.jit(run.method.features)

    def evaluate(state: TrainState) -> dict[str, float]:
        def of(part):
            batches = eval_batches(part, size, canvas)
            return extract(lambda batch: features(state, to_devices(batch, run.mesh)), batches)

        return {"knn": knn(*of(bank), *of(queries), k=e.k, temperature=e.temperature).accuracy}

    return evaluate


if __name__ == "__main__":
    CONFIG = config_flags.DEFINE_config_file(
        "config", lock_config=True, help_string="A file, and its variant after a colon."
    )
    WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: config, checkpoints, metrics, report.")
    launch(lambda: main(CONFIG.value, WORKDIR.value))
