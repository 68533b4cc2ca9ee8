"""From a config to the things that it names. The commands share this."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssljax.config import set_fields
from ssljax.data.sources import Source, open_source
from ssljax.engine.mesh import check_batch_size, make_mesh
from ssljax.engine.optim import make_optimizer, make_schedule, peak_rate
from ssljax.engine.step import StepFunction, make_train
from ssljax.methods import METHODS, make_method
from ssljax.models import make_encoder
from ssljax.typing import Method, PyTree, TrainState
from ssljax.views.images import make_views


@dataclass(frozen=True)
class Run:
    """Everything that pretraining needs besides the data's bytes."""

    method: Method
    mesh: Mesh
    total: int
    init: Callable[[], TrainState]
    step: StepFunction
    abstract: PyTree


def build_method(
    config: ConfigDict, total_steps: int, chunks: int = 1, *, steps_per_epoch: float = 1.0, examples: int = 0
) -> Method:
    """The method; one whose own state follows a schedule is told how long the run and an epoch are, and one that keeps
    something for each example, how many there are.

    chunks: in how many parts the batch goes through the encoder, unless the step itself can work in parts.

    Raises ValueError for names and fields that do not exist or do not fit each other.
    """
    if config.dtype not in ("float32", "bfloat16"):
        raise ValueError(f"dtype '{config.dtype}' is unknown; use 'float32' or 'bfloat16'.")
    if config.seed < 0:
        raise ValueError(f"--config.seed={config.seed} must not be negative.")
    dtype, method = jnp.dtype(config.dtype), METHODS.get(config.method.name)
    chunks = 1 if method is None or method.mean_over_examples else chunks
    encoder = make_encoder(**set_fields(config.encoder), dtype=dtype, chunks=chunks)
    views = make_views(**set_fields(config.views))
    return make_method(
        **set_fields(config.method),
        encoder=encoder,
        augmentations=views,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        examples=examples,
    )


def build_source(config: ConfigDict, split: str) -> Source:
    """The data's `train` or `test` split. Raises DataError if it cannot be had."""
    return open_source(config.data.source, config.data[f"{split}_split"])


def canvas_of(config: ConfigDict, source: Source) -> int | None:
    """The square that images of varying size are resized to on the host; None where all have one size already."""
    if config.data.canvas < 0:
        raise ValueError(
            f"--config.data.canvas={config.data.canvas} must be a side in pixels, or 0 for twice the views' size."
        )
    if config.data.canvas or source.image_shape is None:
        return config.data.canvas or 2 * make_views(**set_fields(config.views))[0].size
    return None


def example_batch(config: ConfigDict, source: Source) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch with two examples."""
    canvas = canvas_of(config, source)
    index = {"index": jax.ShapeDtypeStruct((2,), jnp.int32)}
    if canvas is None:
        return {"image": jax.ShapeDtypeStruct((2, *(source.image_shape or ()), 3), jnp.uint8)} | index
    return {
        "image": jax.ShapeDtypeStruct((2, canvas, canvas, 3), jnp.uint8),
        "size": jax.ShapeDtypeStruct((2, 2), jnp.int32),
    } | index


def build_run(
    config: ConfigDict, *, examples: int, example: PyTree, mesh: Mesh | None = None, total: int | None = None
) -> Run:
    """examples: how many there are in the training split; example: shapes of a small batch; mesh, total: the config's
    if None.

    Traces one step without compiling it, so that whatever does not fit together is said before anything long begins.
    Raises ValueError with a sentence for each thing that can be wrong in a config.
    """
    mesh = mesh or make_mesh(config.mesh.data, config.mesh.fsdp)
    chunks = check_batch_size(config.batch_size, mesh, config.train.microbatch)
    steps_per_epoch = examples / config.batch_size
    total = total or config.steps or round(config.epochs * steps_per_epoch)
    if total < 1:
        raise ValueError(
            f"{config.epochs} epochs of {examples} examples are less than one batch of {config.batch_size}: set "
            "--config.steps."
        )
    method = build_method(config, total, chunks, steps_per_epoch=steps_per_epoch, examples=examples)
    o = config.optimizer
    schedule = make_schedule(
        base=o.learning_rate,
        scaling=o.scaling,
        batch_size=config.batch_size,
        total=total,
        final=o.final,
        kind=o.schedule,
        milestones=tuple(round(epoch * steps_per_epoch) for epoch in o.milestones),
        warmup=round(o.warmup_epochs * steps_per_epoch),
        steps_per_epoch=max(1, round(steps_per_epoch)) if o.per_epoch else 0,
    )
    optimizer = make_optimizer(
        o.name,
        schedule,
        total=total,
        constant_rate=peak_rate(o.learning_rate, o.scaling, config.batch_size),
        freeze_steps=round(o.freeze_epochs * steps_per_epoch),
        rates=o.rates.to_dict(),
        momentum=o.momentum,
        b2=o.b2,
        weight_decay=o.weight_decay,
        weight_decay_final=o.weight_decay_final,
        exclude=tuple(o.exclude),
        trust=o.trust,
        layer_decay=o.layer_decay,
        clip_norm=o.clip_norm,
        clip_each=o.clip_each,
        freeze=tuple(o.freeze),
        constant=tuple(o.constant),
    )
    init, step, abstract = make_train(
        method, optimizer, mesh, example, seed=config.seed, chunks=chunks, learning_rate=schedule
    )
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((config.batch_size, *x.shape[1:]), x.dtype), example)
    jax.eval_shape(step, abstract, batch)
    return Run(method, mesh, total, init, step, abstract)
