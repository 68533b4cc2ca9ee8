"""From a config to the things that it names. The commands share this."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssljax.config import recall
from ssljax.data.sources import Shapes, Source
from ssljax.data.subset import Share
from ssljax.engine.checkpoint import CheckpointError, Checkpoints
from ssljax.engine.mesh import abstract_batch, check_batch_size, make_mesh, replicated
from ssljax.engine.optim import make_optimizer, make_schedule, peak_rate
from ssljax.engine.step import StepFunction, make_train
from ssljax.evals.protocols import ONLINE
from ssljax.fields import Range, check_ranges, set_fields
from ssljax.methods import METHODS, make_method
from ssljax.modalities import MODALITIES, Modality
from ssljax.models import ENCODERS, encoders_for, make_encoder
from ssljax.typing import Method, PyTree, TrainState

RANGES: dict[str, list[Range]] = {
    "train": [("at least 1", lambda x: x >= 1, "steps_per_call")],
    "optimizer": [
        ("0 or more", lambda x: x >= 0, "learning_rate warmup_epochs warmup_steps start final weight_decay"),
        ("0 or more", lambda x: x >= 0, "clip_norm clip_each clip_module"),
        ("at least 0 and below 1", lambda x: 0 <= x < 1, "momentum b2"),
        ("from 0 to 1", lambda x: 0 <= x <= 1, "layer_decay"),
        ("above 0", lambda x: x > 0, "trust"),
        ("epochs, each 0 or more", lambda x: all(epoch >= 0 for epoch in x), "milestones"),
        ("factors, each 0 or more", lambda x: all(factor >= 0 for factor in x.values()), "rates"),
    ],
    "evaluate": [
        ("0 or more", lambda x: x >= 0, "every"),
        ("at least 1", lambda x: x >= 1, "k train_examples test_examples"),
        (f"some of {', '.join(ONLINE)}", lambda x: set(x) <= set(ONLINE), "online"),
        ("above 0", lambda x: x > 0, "temperature"),
    ],
}
"""What the fields of these sections must be, whatever the method and the encoder, which have ranges of their own."""


@dataclass(frozen=True)
class Run:
    """Everything that pretraining needs besides the data's bytes."""

    method: Method
    mesh: Mesh
    total: int
    init: Callable[[], TrainState]
    """The state at step 0, all of it drawn."""
    start: Callable[[], TrainState]
    """The same, with what a teacher's run has learnt in its place. Raises CheckpointError if that cannot be read."""
    step: StepFunction
    abstract: PyTree


def build_method(
    config: ConfigDict, total_steps: int, chunks: int = 1, *, steps_per_epoch: float = 1.0, examples: int = 0
) -> Method:
    """The method; one whose own state follows a schedule is told how long the run and an epoch are, and one that keeps
    something for each example, how many there are.

    chunks: in how many parts the batch goes through the encoder, unless the step itself can work in parts.

    A method that starts from another run is given that run's method, by its config; its checkpoints are not read.

    Raises ValueError for names and fields that do not exist or do not fit each other, and for a teacher that is none.
    """
    if config.dtype not in ("float32", "bfloat16"):
        raise ValueError(f"dtype '{config.dtype}' is unknown; use 'float32' or 'bfloat16'.")
    if config.seed < 0:
        raise ValueError(f"--config.seed={config.seed} must not be negative.")
    modality, dtype = modality_of(config), jnp.dtype(config.dtype)
    kind = METHODS[config.method.name]
    chunks = 1 if kind.mean_over_examples else chunks
    encoders = encoders_for(modality.encodes or kind.modality)
    if config.encoder.name in ENCODERS and config.encoder.name not in encoders:
        raise ValueError(
            f"encoder '{config.encoder.name}' does not fit method '{config.method.name}', which is for "
            f"{kind.modality}; use one of {', '.join(encoders)}."
        )
    of_data = modality.encoder_fields()
    encoder = make_encoder(**set_fields(config.encoder), **of_data, dtype=dtype, chunks=chunks)
    views = modality.views()
    fields = set_fields(config.method)
    if "teacher" in fields:
        if not fields["teacher"]:
            raise ValueError(
                f"method '{config.method.name}' starts from {METHODS[config.method.name].teachers}: set "
                "--config.method.teacher to its folder."
            )
        fields["teacher"] = build_method(recall(Path(fields["teacher"])), total_steps=1, chunks=chunks)
    return make_method(
        **fields,
        encoder=encoder,
        augmentations=views,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        examples=examples,
    )


def build_source(config: ConfigDict, split: str) -> Source:
    """The data's `train` or `test` split. Raises DataError if it cannot be had."""
    return modality_of(config).open(split)


def training_source(config: ConfigDict) -> Source:
    """The training split, or the share of it that a method which learns from labels is given.

    Raises DataError if it cannot be had, or has no labels where they are needed; ValueError for a share that cannot be.
    """
    source = build_source(config, "train")
    if needs_labels(config):
        source.require_labels(f"method '{config.method.name}'")
        return source if config.data.labelled == 1 else Share(source, config.data.labelled, seed=config.seed)
    if config.data.labelled != 1:
        raise ValueError(
            f"--config.data.labelled={config.data.labelled} has no meaning for method '{config.method.name}', which "
            "uses no labels: leave it at 1."
        )
    return source


def modality_of(config: ConfigDict) -> Modality:
    """Raises ValueError for a method that does not exist."""
    if config.method.name not in METHODS:
        raise ValueError(f"method '{config.method.name}' is unknown; use one of {', '.join(METHODS)}.")
    return MODALITIES[METHODS[config.method.name].modality](config)


def needs_labels(config: ConfigDict) -> bool:
    return getattr(METHODS.get(config.method.name), "needs_labels", False)


def settle(config: ConfigDict, source: Source) -> None:
    """Write into a config what it leaves to the data and to the place it is used in, so that it can be remembered.

    Raises ValueError for another number of examples or fewer classes than the data has.
    """
    modality_of(config).settle()
    if config.method.get("teacher"):
        config.method.teacher = str(Path(config.method.teacher).expanduser().absolute())
    if config.data.examples not in (0, len(source)):
        raise ValueError(
            f"--config.data.examples={config.data.examples}, but {source.name} has {len(source)}: leave it at 0."
        )
    config.data.examples = len(source)
    if "words" in config.method and not config.method.words:
        config.method.words = source.class_names or ()
    if "classes" in config.method:
        classes = len(source.class_names) if source.class_names else int(source.labels().max()) + 1
        config.method.classes = config.method.classes or classes
        if config.method.classes < classes:
            raise ValueError(f"{source.name} has {classes} classes: --config.method.classes must not be fewer.")


def example_batch(config: ConfigDict, source: Source) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch with two examples of a source."""
    return small_batch(config, (source.shapes or {}) | source.drawn)


def small_batch(config: ConfigDict, shapes: Shapes) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch with two examples of such `shapes`."""
    arrays = {name: jax.ShapeDtypeStruct((2, *shape), kind) for name, (shape, kind) in shapes.items()}
    numbers = ("index", "label") if needs_labels(config) else ("index",)
    return arrays | {name: jax.ShapeDtypeStruct((2,), jnp.int32) for name in numbers}


def build_run(
    config: ConfigDict,
    *,
    examples: int,
    example: PyTree,
    mesh: Mesh | None = None,
    total: int | None = None,
    trace: bool = True,
) -> Run:
    """examples: how many there are in the training split; example: shapes of a small batch; mesh, total: the config's
    if None.

    trace: one step is traced without being compiled, so that whatever does not fit together is said before anything
    long begins; what was traced is what a run on this mesh compiles. Raises ValueError with a sentence for each thing
    that can be wrong in a config.
    """
    for path, value in jax.tree_util.tree_leaves_with_path(config.to_dict()):
        if isinstance(value, float) and not math.isfinite(value):
            field = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(f"--config.{field}={value} must be a finite number.")
    for section, ranges in RANGES.items():
        check_ranges(section, set_fields(config[section]), ranges)
    mesh = mesh or make_mesh(config.mesh.data, config.mesh.fsdp)
    chunks = check_batch_size(config.batch_size, mesh, config.train.microbatch)
    steps_per_epoch = examples / config.batch_size
    if config.steps < 0:
        raise ValueError(f"--config.steps={config.steps} must be how many there are, or 0 for as many as epochs say.")
    total = total or config.steps or round(config.epochs * steps_per_epoch)
    if total < 1:
        raise ValueError(
            f"{config.epochs} epochs of {examples} examples are less than one batch of {config.batch_size}: set "
            "--config.steps."
        )
    method = build_method(config, total, chunks, steps_per_epoch=steps_per_epoch, examples=examples)
    o = config.optimizer
    if config.encoder.get("freeze_patch_embed") and not (o.freeze_epochs == -1 and "patch_embed" in o.freeze):
        raise ValueError(
            "--config.encoder.freeze_patch_embed=True keeps gradients from the patch projection, but weight decay "
            "would still shrink it: set --config.optimizer.freeze='(\"patch_embed\",)' "
            "--config.optimizer.freeze_epochs=-1."
        )
    schedule = make_schedule(
        base=o.learning_rate,
        scaling=o.scaling,
        batch_size=config.batch_size,
        total=total,
        start=o.start,
        final=o.final,
        kind=o.schedule,
        milestones=tuple(round(epoch * steps_per_epoch) for epoch in o.milestones),
        warmup=o.warmup_steps or round(o.warmup_epochs * steps_per_epoch),
        steps_per_epoch=max(1, round(steps_per_epoch)) if o.per_epoch else 0,
    )
    optimizer = make_optimizer(
        o.name,
        schedule,
        total=total,
        constant_rate=peak_rate(o.learning_rate, o.scaling, config.batch_size),
        freeze_steps=max(1, round(o.freeze_epochs * steps_per_epoch)) if o.freeze_epochs > 0 else 0,
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
        clip_module=o.clip_module,
        freeze=tuple(o.freeze) if o.freeze_epochs else (),
        constant=tuple(o.constant),
    )
    init, step, abstract = make_train(
        method, optimizer, mesh, example, seed=config.seed, chunks=chunks, learning_rate=schedule
    )
    if trace:
        jax.eval_shape(step, abstract, abstract_batch(example, config.batch_size, mesh))
    start = init
    if teacher := config.method.get("teacher"):
        shardings = jax.tree.map(lambda x: x.sharding, abstract)
        begin = jax.jit(method.begin, donate_argnums=0, out_shardings=shardings)  # type: ignore[attr-defined]
        theirs = jax.eval_shape(method.teacher.init, jax.random.key(0), example)  # type: ignore[attr-defined]
        jax.eval_shape(begin, abstract, theirs)

        def start() -> TrainState:
            _, _, state = open_run(Path(teacher), mesh=mesh)
            return begin(init(), state)

    return Run(method, mesh, total, init, start, step, abstract)


def open_run(workdir: Path, step: int | None = None, mesh: Mesh | None = None) -> tuple[ConfigDict, Run, TrainState]:
    """A run's config, what it is made of, and its newest state (or that of `step`), whole on each device of `mesh`.

    mesh: one device of this process if None; `Run` itself is always of one device.
    """
    config = recall(workdir)
    config.train.microbatch = 0  # of one device it would be another number, and evaluation does not train
    one_device = make_mesh(1, 1, jax.local_devices()[:1])
    example = small_batch(config, modality_of(config).shapes())
    run = build_run(config, examples=config.data.examples, example=example, mesh=one_device, total=1, trace=False)
    whole = replicated(mesh or one_device)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), run.abstract)
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    state = checkpoints.restore(abstract, step)
    checkpoints.close()
    if state is None:
        raise CheckpointError(f"{workdir} has no checkpoint yet; run ssljax.train with this --workdir first.")
    return config, run, state
