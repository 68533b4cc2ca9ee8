"""Configs: what every run has, how a file's numbers get in, and how a run remembers the config it began with."""

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, config_dict

from ssljax.engine.optim import make_optimizer
from ssljax.methods import METHODS
from ssljax.modalities import MODALITIES
from ssljax.models import ENCODERS, NOT_IN_CONFIGS, encoders_for
from ssljax.models.gin import GIN
from ssljax.models.resnet import ResNet

OF_THE_RUN = ("encoder", "augmentations", "total_steps", "steps_per_epoch", "examples")
"""Fields of a method that are built or counted, and so are not in its config."""
HOW_NOT_WHAT = (
    "mesh",
    "log",
    "profile",
    "checkpoint",
    "evaluate",
    "encoder.remat",
    "data.resident",
    "train.steps_per_call",
)
"""What may change when a run is resumed: it says how it runs and what it reports, not what it computes."""

TEACHER = "teacher"
"""In the folder of a run that began from another one: the config of that one."""


def base_config(method: str) -> ConfigDict:
    """Every field that there is, with defaults; a config file sets what its recipe says.

    `None` in `encoder` and `views` leaves a number as the named encoder or recipe has it.
    """
    if method not in METHODS:
        raise ValueError(f"method '{method}' is unknown; use one of {', '.join(METHODS)}.")
    kind = METHODS[method].modality
    modality = MODALITIES[kind]
    config = ConfigDict()
    config.seed = 0
    config.method = {"name": method, **_defaults(METHODS[method], without=OF_THE_RUN)}
    config.encoder = {
        "name": "",
        **_placeholders(encoders_for(modality.encodes or kind), without=(*NOT_IN_CONFIGS, "dtype")),
    }
    config.views = {"name": "", **_placeholders(modality.view_fields)}
    config.data = {
        "source": "demo",  # what there is: the modality's module in ssljax/data
        "train_split": "train",
        "test_split": "test",
        "examples": 0,  # how many there are to train on; a run writes down what it finds
        "resident": False,  # all examples lie on each device, and steps take theirs there; for small sets
        "labelled": 1.0,  # share of each class's training examples that a method which learns from labels is given
        **modality.data_fields,
    }
    config.batch_size = 256  # global
    config.epochs = 100.0
    config.steps = 0  # if not 0, the length of the run whatever the epochs
    config.dtype = "float32"  # of the computation; parameters, statistics and logits are float32 always
    config.optimizer = {
        "name": "sgd",
        "learning_rate": 0.03,
        "scaling": "linear",
        "warmup_epochs": 0.0,
        "warmup_steps": 0,  # if not 0, how long the warm-up is whatever the epochs
        "schedule": "cosine",
        "milestones": (),  # epochs from which the rate is a tenth of what it was, with schedule "steps"
        "start": 0.0,  # where the warm-up begins, as a part of the peak
        "final": 0.0,  # the end of a cosine, as a part of its peak
        "per_epoch": False,  # the rate changes once an epoch
        "freeze_epochs": -1.0,  # how long the parameters of `freeze` do not move; 0: they move; -1: the whole run
        "rates": {},
        **_defaults(make_optimizer, without=("name", "schedule", "total", "constant_rate", "freeze_steps", "rates")),
    }
    config.train = {
        "microbatch": 0,  # so many of the batch go through the networks at once; 0: all
        "steps_per_call": 1,  # so many steps are one program, between which Python does nothing
    }
    config.mesh = {"data": -1, "fsdp": 1}
    config.log = {"every": 20, "wandb": ""}
    config.profile = ()  # (first, last): these steps are traced into the workdir's profile/
    config.checkpoint = {"every": 1000, "keep": 2}
    config.evaluate = {
        "every": 1000,
        "online": ("knn",),  # ssljax.evals.protocols.ONLINE; the first says which checkpoint is best
        "train_examples": 4000,
        "test_examples": 1000,
        "k": 20,
        "temperature": 0.07,
    }
    return config


def table_config(method: str, epochs: float, batch_size: int = 128) -> ConfigDict:
    """What the configs for tables share: a multilayer perceptron of 4 x 256, Adam at 1e-3 with neither warm-up nor
    decay."""
    config = base_config(method)
    config.encoder.name = "mlp"
    config.batch_size, config.epochs = batch_size, epochs
    config.optimizer.update(
        name="adamw", learning_rate=1e-3, scaling="none", b2=0.999, weight_decay=0.0, schedule="constant"
    )
    config.log.every = 50
    config.evaluate.update(every=500, train_examples=8000, test_examples=2000)
    config.checkpoint.every = 500
    return config


def spoken_digits_config(method: str, steps: int) -> ConfigDict:
    """What the configs for spoken digits share: crops of a second at 8 kHz of clips that are equally loud, AdamW with
    a cosine."""
    config = base_config(method)
    config.data.update(rate=8000, crop=1.0, longest=1.0, group="2", normalise=True)
    config.batch_size, config.steps = 16, steps
    config.optimizer.update(name="adamw", learning_rate=2e-3, scaling="none", b2=0.98, weight_decay=0.01, final=0.05)
    config.log.every = 25
    config.evaluate.update(every=500, train_examples=2700, test_examples=300)
    config.checkpoint.every = 500
    return config


FSDD = {"source": "npz:PATH", "label": "digit", "group": "speaker", "train_split": "take>=5", "test_split": "take<5"}
"""Fields of the data for the Free Spoken Digit Dataset, joined as `ssljax.data.speech_arrays` says; its own split."""

LIBRISPEECH_CLIPS = 281_241
"""To train on, in 960 hours."""


def librispeech_config(method: str, crop: float, batch_size: int, steps: int) -> ConfigDict:
    """What the recipes on LibriSpeech share: its folders as they come, at 16 kHz, in bfloat16.

    Speakers of the test folders are others, and what is said is not in the folders' names: nothing is probed.
    """
    config = base_config(method)
    config.data.update(
        source="folder:PATH",
        train_split="train-clean-100+train-clean-360+train-other-500",
        test_split="dev-clean",
        crop=crop,
        longest=crop,
        label="",
        group="1",
    )
    config.batch_size, config.steps = batch_size, steps
    config.dtype = "bfloat16"
    config.optimizer.update(name="adamw", scaling="none")
    config.log.every = 50
    config.evaluate.every, config.checkpoint.every = 0, 5000
    return config


def demo_config(method: str, epochs: float, batch_size: int = 256) -> ConfigDict:
    """What the `:demo` variants for images share: ResNet-8 on the embedded images, AdamW, minutes on a CPU.

    batch_size: small where the number of steps matters more than what a batch compares; evaluation and checkpoints
    follow it.
    """
    config = base_config(method)
    config.encoder.name = "resnet8"
    config.batch_size = batch_size
    config.epochs = epochs
    config.optimizer.update(
        name="adamw", learning_rate=2e-3, scaling="none", b2=0.999, weight_decay=1e-4, warmup_epochs=1.0
    )
    config.log.every = 10
    every = 75 * 256 // batch_size
    config.evaluate.update(every=every, train_examples=2000, test_examples=1000)
    config.checkpoint.every = every
    return config


def cifar10_config(method: str, epochs: float, batch_size: int = 256, every: int = 2000) -> ConfigDict:
    """What the `:cifar10` variants share: the data, bfloat16, and after each `every` steps an online k-NN and a
    checkpoint."""
    config = base_config(method)
    config.data.source = "tfds:cifar10"
    config.epochs, config.batch_size = epochs, batch_size
    config.dtype = "bfloat16"
    config.log.every = 50
    config.evaluate.every = config.checkpoint.every = every
    return config


def lightly_config(method: str) -> ConfigDict:
    """What those `:cifar10` variants share whose numbers are held against lightly's: ResNet-18, SGD 0.06 · batch / 128
    with a cosine once an epoch, batches of 512, 800 epochs.

    Views are each method's own without blur, where lightly's script gives SimCLR's to all that have two; and pixels are
    normalised by CIFAR-10's mean, not by ImageNet's."""
    config = cifar10_config(method, epochs=800.0, batch_size=512, every=1960)
    config.encoder.update(name="resnet18", stem="cifar")
    config.optimizer.update(name="sgd", learning_rate=0.12, weight_decay=5e-4, exclude=(), per_epoch=True)
    config.evaluate.update(k=200, temperature=0.1)
    return config


def imagenet_config(method: str, every: int) -> ConfigDict:
    """What the `:imagenet` variants share: the data, evaluation of the central 0.875, bfloat16, and after each `every`
    steps an online k-NN and a checkpoint."""
    config = base_config(method)
    config.method.eval_crop = 0.875
    config.data.update(source="tfds:imagenet2012", test_split="validation", canvas=512)
    config.dtype = "bfloat16"
    config.log.every = 50
    config.evaluate.update(every=every, train_examples=50_000, test_examples=10_000)
    config.checkpoint.every = every
    return config


def variant_of(variants: dict[str, Callable[[], ConfigDict]], name: str | None) -> ConfigDict:
    """The config of a file's variant; the first one if none is named. Raises ValueError that lists what there is."""
    name = name or next(iter(variants))
    if name not in variants:
        raise ValueError(f"variant '{name}' is unknown; use one of :{', :'.join(variants)}.")
    return variants[name]()


def remember(config: ConfigDict, workdir: Path) -> None:
    """Write `config.json` into a new workdir; in one that has it, check that it is the same run.

    A run that has saved nothing yet can be begun again with any config. Raises ValueError that names the fields that
    differ, and if the folder holds something else.
    """
    path = workdir / "config.json"
    mine = json.loads(config.to_json())
    saved = any((workdir / "checkpoints").glob("[0-9]*"))
    if path.exists() and saved:
        theirs = json.loads(path.read_text())
        changed = sorted(set(_flat(mine).items()) ^ set(_flat(theirs).items()))
        how = (*HOW_NOT_WHAT, *(() if _has_batch_statistics(config) else ("train.microbatch",)))
        names = sorted({name for name, _ in changed if not _among(name, how)})
        if names:
            a, b = _flat(theirs), _flat(mine)
            shown = ", ".join(f"{n} is {a.get(n, 'absent')} there and {b.get(n, 'absent')} here" for n in names[:3])
            more = f" (and {len(names) - 3} more fields)" if len(names) > 3 else ""
            raise ValueError(
                f"{workdir} holds a run of another config: {shown}{more}; choose another --workdir, or give the old "
                "values to go on."
            )
    elif saved:
        raise ValueError(
            f"{workdir} has checkpoints but no config.json that would tell what they are; choose another --workdir."
        )
    workdir.mkdir(parents=True, exist_ok=True)
    _write(path, mine)
    _remember_teacher(config, workdir)


def recall(workdir: Path) -> ConfigDict:
    """The config of a run, with a teacher's folder that is in its own. Raises ValueError if the folder holds none."""
    path = workdir / "config.json"
    if not path.exists():
        raise ValueError(
            f"{workdir} holds no run (no config.json); give the folder that a run was started in, its --workdir."
        )
    try:
        config = ConfigDict(json.loads(path.read_text()))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is damaged ({error}); bring it back from a copy, or start again in another --workdir."
        ) from None
    defaults = base_config(config.method.name)
    missing = set(_flat(defaults.to_dict())) - set(_flat(config.to_dict()))
    for name in {name for name in missing if _among(name, HOW_NOT_WHAT)}:
        section, _, field = name.partition(".")
        config[section][field] = defaults[section][field]
        missing.remove(name)
    if missing:
        raise ValueError(
            f"{path} was written by another version of ssljax, which had no {min(missing)}; use that version, or start "
            "again in another --workdir."
        )
    if (workdir / TEACHER).exists():
        config.method.teacher = str(workdir / TEACHER)
    return config


def _remember_teacher(config: ConfigDict, workdir: Path) -> None:
    """Write the config of the teacher's run, and of its teacher's, so that this run can do without their folders."""
    if config.method.get("teacher"):
        theirs = recall(Path(config.method.teacher))
        (workdir / TEACHER).mkdir(exist_ok=True)
        _write(workdir / TEACHER / "config.json", json.loads(theirs.to_json()))
        _remember_teacher(theirs, workdir / TEACHER)


def _among(name: str, fields: tuple[str, ...]) -> bool:
    """Whether such a field is one of these, or in a section that is."""
    return name in fields or name.split(".")[0] in fields


def _write(path: Path, contents: dict[str, Any]) -> None:
    """Whole, or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(contents, indent=2))
    part.replace(path)


def _defaults(function: Callable, without: tuple[str, ...] = ()) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.items()
    return {name: p.default for name, p in parameters if name not in without}


def _placeholders(table: Mapping[str, Callable], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """All fields that any entry of a table has, typed by its default, without a value."""
    fields: dict[str, Any] = {}
    for entry in table.values():
        for name, p in inspect.signature(getattr(entry, "func", entry)).parameters.items():
            if name not in without:
                plain = p.annotation in (int, float, bool, str)
                kind = p.annotation if plain else float if p.default is None else type(p.default)
                fields[name] = config_dict.placeholder(kind)
    return fields


def _has_batch_statistics(config: ConfigDict) -> bool:
    """Of the encoder: what it gives for an example then depends on the microbatch that the example is in."""
    encoder = getattr(ENCODERS.get(config.encoder.name), "func", object)
    return issubclass(encoder, ResNet | GIN) and config.encoder.norm not in ("group", "none")


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: json.dumps(value)}
    return flat
