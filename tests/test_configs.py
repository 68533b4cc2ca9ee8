"""No config rots: every variant of every file is built and its step traced; every field can be changed."""

import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssljax.build import build_method, build_run, modality_of, small_batch
from ssljax.config import OF_THE_RUN, base_config, remember
from ssljax.data.canvas import canvas_shapes
from ssljax.data.images import image_shapes
from ssljax.engine.mesh import make_mesh
from ssljax.engine.optim import make_optimizer, peak_rate
from ssljax.methods import METHODS
from ssljax.models import ENCODERS, convolution
from ssljax.views.recipes import CIFAR10_MEAN, CIFAR10_STD

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*/*.py"))
OF_IMAGES = [path for path in CONFIGS if path.parent.name == "images"]
VARIANTS = [(path, name) for path in CONFIGS for name in re.findall(r"^\| `:(\w+)`", path.read_text(), re.MULTILINE)]
TEACHERS = {
    ("wav2vec2", "ctc_demo"): "demo",
    ("simclr_v2", "fine_tune_demo"): "demo",
    ("simclr_v2", "distill_demo"): "fine_tune_demo",
    ("simclr_v2", "fine_tune_1percent"): "imagenet",
    ("simclr_v2", "fine_tune_10percent"): "memory",
    ("simclr_v2", "distill"): "fine_tune_10percent",
    ("dinov2", "distill_demo"): "demo",
    ("dinov2", "distill"): "imagenet",
}


def test_every_method_has_a_config(load_config):
    assert {load_config(path, variant).method.name for path, variant in VARIANTS} == set(METHODS)
    for path in CONFIGS:
        must_have = ("demo", "cifar10", "imagenet") if path in OF_IMAGES else ("demo", "paper")
        assert {(path, variant) for variant in must_have} <= set(VARIANTS)


@pytest.fixture
def with_teacher(load_config, tmp_path):
    """`with_teacher(path, variant)` is a config with the folder of a run that it may start from."""

    def load(path, variant):
        config = load_config(path, variant)
        if theirs := TEACHERS.get((path.stem, variant)):
            remember(load(path, theirs), tmp_path / theirs)
            config.method.teacher = str(tmp_path / theirs)
        if config.method.get("classes") == 0:
            config.method.classes = 10
        if config.method.get("words") == ():
            config.method.words = ("one", "two")
        return config

    return load


@pytest.fixture
def one_block_a_stage(monkeypatch):
    """What is traced of a ResNet-50: its other blocks are the same again, and so is what a CPU does by groups."""
    monkeypatch.setattr(convolution, "MOST", 1)
    monkeypatch.setitem(ENCODERS, "resnet50", partial(ENCODERS["resnet50"], stages=(1, 1, 1, 1)))


@pytest.mark.usefixtures("one_block_a_stage")
@pytest.mark.parametrize("path, variant", VARIANTS, ids=lambda x: getattr(x, "stem", x))
def test_every_variant_is_built_and_its_step_traced(path, variant, with_teacher):
    config = with_teacher(path, variant)
    if "vit" in config.encoder.name or config.encoder.name in ("bert_base", "gpt2"):
        config.encoder.scan = True  # one block is traced for all
    if path in OF_IMAGES:
        side = config.data.canvas or config.views.size
        shapes = canvas_shapes(side) if config.data.canvas else image_shapes(side, side)
    else:
        config.data.source = "demo"
        if "parts" in config.data:
            config.data.update(parts=(), time="")  # those of one long series
        if "tokenizer" in config.data:
            config.data.tokenizer = "bytes"  # there is nothing to learn
        modality_of(config).settle()
        shapes = modality_of(config).shapes()
    shapes |= {name: ((), np.int32) for name in ("index", "label")}
    mesh = make_mesh(1, 1, jax.devices()[:1]) if config.batch_size == 1 else None
    run = build_run(config, examples=1_281_167, example=small_batch(config, shapes), mesh=mesh)
    assert run.total > 0


def test_unknown_variants_list_what_there_is(load_config):
    with pytest.raises(ValueError, match=":demo, :cifar10, :imagenet"):
        load_config(OF_IMAGES[0], "nosuch")


@pytest.mark.parametrize("name", METHODS)
def test_base_config_has_every_field_of_the_method(name):
    fields = set(METHODS[name].__dataclass_fields__) - set(OF_THE_RUN)
    assert fields <= set(base_config(name).method)


def test_fields_without_a_value_take_one_of_the_right_type(load_config):
    config = load_config(OF_IMAGES[0], "demo")
    assert config.encoder.get_type("patch") is int
    assert config.encoder.get_type("scan") is bool
    assert config.views.get_type("mean") is tuple
    assert config.views.get_type("jitter") is float


# The papers' numbers --------------------------------------------------------------------------------------------------


SGD = {"name": "sgd", "momentum": 0.9, "warmup": 0, "start": 0, "final": 0, "clip": (0, 0, 0), "schedule": "cosine"}
STEPS = SGD | {"schedule": "steps"}
LARS = SGD | {"name": "lars", "trust": 0.001, "warmup": 10}
ADAMW = SGD | {"name": "adamw", "b2": 0.999, "warmup": 10}
DINO = ADAMW | {"decay": 0.04, "decay_final": 0.4, "final": 1e-6, "clip": (0, 3.0, 0)}
SIMCLR_V2 = LARS | {"name": "lars_simclr", "batch": 4096, "peak": 6.4, "decay": 1e-4}
SUPERVISED = {"name": "lars_simclr", "exclude": ("bias", "scale", "classifier")}
LIGHTLY = SGD | {"batch": 512, "epochs": 800, "decay": 5e-4, "per_epoch": True, "exclude": ()}
TEACHER = {
    "hidden": 2048,
    "head_layers": 3,
    "warmup_temperature": 0.04,
    "student_temperature": 0.1,
    "center_momentum": 0.9,
    "momentum_schedule": "cosine",
}
VIDEOMAE = {"name": "adamw", "b2": 0.95, "batch": 2048, "peak": 1.2e-3, "start": 1e-6, "final": 1e-5, "warmup": 40}
VIDEOMAE |= {"decay": 0.05, "exclude": ("bias", "scale", "mask_token")}
VIDEOMAE_METHOD = {"mask_ratio": 0.9, "norm_pix": True, "decoder_width": 384, "decoder_depth": 4, "decoder_heads": 6}
PAPERS = {
    ("npid", "imagenet"): (
        STEPS | {"batch": 256, "epochs": 200, "peak": 0.03, "decay": 1e-4, "milestones": (120, 160)},
        {"temperature": 0.07, "noise": 4096, "bank_momentum": 0.5, "projector": (128,)},
    ),
    ("npid", "cifar10"): (
        STEPS | {"batch": 128, "epochs": 200, "peak": 0.03, "decay": 5e-4, "milestones": (120, 160)},
        {"temperature": 0.1, "noise": 0, "projector": (128,)},
    ),
    ("simclr", "imagenet"): (
        LARS | {"name": "lars_simclr", "batch": 4096, "epochs": 1000, "peak": 4.8, "decay": 1e-6},
        {"temperature": 0.1, "convention": "sum", "projector": (2048, 128)},
    ),
    ("simclr", "cifar10"): (
        LARS | {"name": "lars_simclr", "batch": 512, "epochs": 1000, "peak": 2.0, "decay": 1e-4},
        {"temperature": 0.5},
    ),
    ("simclr_v2", "imagenet"): (
        SIMCLR_V2 | {"epochs": 800, "warmup": 40},
        {"temperature": 0.1, "convention": "sum", "projector": (2048, 2048, 128), "memory": 0},
    ),
    ("simclr_v2", "memory"): (SIMCLR_V2 | {"epochs": 800, "warmup": 40}, {"memory": 65536, "momentum": 0.999}),
    ("simclr_v2", "fine_tune_1percent"): (
        LARS | SUPERVISED | {"batch": 1024, "epochs": 60, "peak": 0.16, "decay": 0, "warmup": 0},
        {"head_layer": 1},
    ),
    ("simclr_v2", "fine_tune_10percent"): (
        LARS | SUPERVISED | {"batch": 1024, "epochs": 30, "peak": 0.16, "decay": 0, "warmup": 0},
        {"head_layer": 1},
    ),
    ("simclr_v2", "distill"): (SIMCLR_V2 | SUPERVISED | {"epochs": 400, "warmup": 20}, {"temperature": 1.0}),
    ("simclr_v2", "cifar10"): (  # the first version's command, with the projector of three layers that its code has
        LARS | {"name": "lars_simclr", "batch": 512, "epochs": 1000, "peak": 2.0, "decay": 1e-4},
        {"temperature": 0.5, "convention": "sum", "projector": (512, 512, 128), "memory": 0},
    ),
    ("moco_v1", "imagenet"): (
        STEPS | {"batch": 256, "epochs": 200, "peak": 0.03, "decay": 1e-4, "milestones": (120, 160)},
        {"temperature": 0.07, "queue": 65536, "momentum": 0.999, "momentum_schedule": "constant"}
        | {"projector": (128,)},
    ),
    ("moco_v1", "cifar10"): (
        SGD | {"batch": 512, "epochs": 200, "peak": 0.06, "decay": 5e-4, "per_epoch": True},
        {"temperature": 0.1, "queue": 4096, "momentum": 0.99, "momentum_schedule": "constant"},
    ),
    ("moco_v2", "imagenet"): (
        SGD | {"batch": 256, "epochs": 200, "peak": 0.03, "decay": 1e-4, "per_epoch": True},
        {"temperature": 0.2, "queue": 65536, "momentum": 0.999, "momentum_schedule": "constant"}
        | {"projector": (2048, 128)},
    ),
    ("moco_v3", "imagenet"): (
        LARS | {"batch": 4096, "epochs": 300, "peak": 4.8, "decay": 1e-6},
        {"temperature": 1.0, "momentum": 0.99, "momentum_schedule": "cosine"}
        | {"projector": (4096, 256), "predictor": (4096, 256)},
    ),
    ("moco_v3", "imagenet_vit"): (
        ADAMW | {"batch": 4096, "epochs": 300, "peak": 2.4e-3, "decay": 0.1, "warmup": 40, "freeze": ("patch_embed",)},
        {"temperature": 0.2, "momentum": 0.99, "momentum_schedule": "cosine"}
        | {"projector": (4096, 4096, 256), "predictor": (4096, 256)},
    ),
    ("byol", "imagenet"): (
        LARS | {"batch": 4096, "epochs": 1000, "peak": 3.2, "decay": 1.5e-6},
        {"momentum": 0.996, "momentum_schedule": "cosine", "projector": (4096, 256), "predictor": (4096, 256)},
    ),
    ("byol", "cifar10"): (  # lightly's, whose loss is a quarter
        LIGHTLY | {"peak": 0.24 / 4, "decay": 5e-4 * 4},
        {"momentum": 0.99, "momentum_schedule": "constant", "projector": (1024, 256), "predictor": (1024, 256)},
    ),
    ("simsiam", "imagenet"): (
        SGD | {"batch": 512, "epochs": 100, "peak": 0.1, "decay": 1e-4, "per_epoch": True, "constant": ("predictor",)},
        {"projector": (2048, 2048, 2048), "predictor": (512, 2048)},
    ),
    ("simsiam", "cifar10"): (
        LIGHTLY | {"peak": 0.06, "constant": ("predictor",)},
        {"projector": (2048, 2048), "predictor": (512, 2048)},
    ),
    ("simsiam", "small"): (
        SGD | {"batch": 128, "peak": 0.03, "warmup": 10, "decay": 1e-4, "constant": ("predictor",)},
        {"projector": (512, 512, 512), "predictor": (128, 512)},
    ),
    ("swav", "imagenet"): (
        LARS
        | {"name": "larc", "batch": 4096, "epochs": 800, "peak": 4.8, "decay": 1e-6, "start": 0.3, "final": 4.8e-3}
        | {"exclude": (), "freeze": ("prototypes",), "freeze_epochs": 1},
        {"temperature": 0.1, "epsilon": 0.05, "iterations": 3, "prototypes": 3000, "queue": 0}
        | {"projector": (2048, 128)},
    ),
    ("swav", "imagenet_256"): (
        LARS | {"name": "larc", "batch": 256, "peak": 0.6, "warmup": 0, "final": 6e-4, "freeze_epochs": 1},
        {"queue": 3840, "queue_start": 15},
    ),
    ("swav", "cifar10"): (
        LIGHTLY | {"name": "adamw", "b2": 0.999, "peak": 4e-3, "decay": 1e-6, "freeze": ()},
        {"temperature": 0.1, "epsilon": 0.05, "prototypes": 512, "projector": (512, 128), "queue": 0},
    ),
    ("barlow_twins", "cifar10"): (
        LIGHTLY | {"peak": 0.24},
        {"projector": (2048, 2048), "weight": 0.005, "scale": 1.0},
    ),
    ("barlow_twins", "imagenet"): (
        LARS
        | {"batch": 2048, "epochs": 1000, "peak": 1.6, "decay": 1e-6, "final": 1.6e-3}
        | {"rates": {"bias": 0.0048 / 0.2, "scale": 0.0048 / 0.2}},
        {"weight": 0.0051, "scale": 1.0, "projector": (8192, 8192, 8192)},
    ),
    ("vicreg", "imagenet"): (
        LARS | {"batch": 2048, "epochs": 1000, "peak": 1.6, "decay": 1e-6, "final": 1.6e-3},
        {"invariance": 25, "variance": 25, "covariance": 1, "convention": "mean", "projector": (8192, 8192, 8192)},
    ),
    ("dino", "imagenet"): (
        DINO | {"batch": 1024, "epochs": 300, "peak": 2e-3, "freeze": ("last_layer",), "freeze_epochs": 1},
        TEACHER
        | {"count": 65536, "bottleneck": 256, "teacher_temperature": 0.07, "warmup_temperature_epochs": 30}
        | {"momentum": 0.996, "norm_last_layer": False, "head_norm": False},
    ),
    ("dino", "cifar10"): (
        LIGHTLY | {"peak": 0.24, "freeze": ()},
        {"count": 2048, "hidden": 2048, "bottleneck": 256, "head_norm": True, "momentum": 0.99}
        | {"momentum_schedule": "constant"},
    ),
    ("dino", "resnet50"): (
        SGD
        | {"batch": 1024, "peak": 0.12, "decay": 1e-4, "decay_final": -1, "warmup": 10, "clip": (0, 3.0, 0)}
        | {"final": 1e-6, "epochs": 800},
        TEACHER
        | {"norm_last_layer": True, "head_norm": True, "teacher_temperature": 0.07, "warmup_temperature_epochs": 30},
    ),
    ("dino", "small"): (
        DINO | {"batch": 256, "epochs": 300, "peak": 5e-4, "freeze": ("last_layer",), "freeze_epochs": 1},
        TEACHER | {"count": 8192, "teacher_temperature": 0.04, "momentum": 0.99},
    ),
    ("ibot", "imagenet"): (
        DINO | {"batch": 1024, "epochs": 800, "peak": 2e-3, "freeze": ("last_layer*",), "freeze_epochs": 1},
        TEACHER
        | {"bottleneck": 256, "count": 8192, "patch_count": 0, "teacher_temperature": 0.07, "patch_temperature": 0.07}
        | {"warmup_temperature_epochs": 30, "norm_last_layer": False, "momentum": 0.996, "mask_ratio": (0.1, 0.5)}
        | {"mask_probability": 0.5, "mask_shape": "block", "patch_weight": 1},
    ),
    # Epochs of 1250 steps, whatever the data: 10 of warm-up, 1 with a frozen layer and 30 until the teacher is warm.
    ("dinov2", "imagenet"): (
        DINO
        | {"batch": 2048, "steps": 125_000, "peak": 4e-3 * 2**0.5, "clip": (0, 0, 3.0), "layer_decay": 0.9}
        | {
            "warmup": 12_500 * 2048 / 1_281_167,
            "freeze_epochs": 1250 * 2048 / 1_281_167,
            "rates": {"patch_embed": 0.2},
        },
        TEACHER
        | {"count": 65536, "patch_count": 0, "bottleneck": 256, "centering": "ema", "momentum": 0.992}
        | {"teacher_temperature": 0.07, "warmup_temperature_epochs": 60, "norm_last_layer": False, "koleo_weight": 0.1}
        | {"mask_ratio": (0.1, 0.5), "mask_probability": 0.5, "patch_weight": 1},
    ),
    ("dinov2", "full"): (
        DINO
        | {"batch": 3072, "steps": 625_000, "peak": 2e-4 * 3**0.5, "clip": (0, 0, 3.0), "layer_decay": 1.0}
        | {"decay_final": 0.2, "warmup": 100_000 * 3072 / 14_197_086, "rates": {"patch_embed": 0.2}},
        TEACHER
        | {"count": 131072, "bottleneck": 384, "patch_count": 131072, "patch_bottleneck": 256, "momentum": 0.994}
        | {"centering": "sinkhorn", "teacher_temperature": 0.07, "warmup_temperature_epochs": 8}
        | {"norm_last_layer": False, "koleo_weight": 0.1, "mask_ratio": (0.1, 0.5), "mask_probability": 0.5},
    ),
    ("dinov2", "small"): (
        DINO | {"batch": 256, "epochs": 300, "steps": 0, "peak": 5e-4, "clip": (0, 0, 3.0), "layer_decay": 1.0},
        TEACHER | {"count": 8192, "teacher_temperature": 0.04, "momentum": 0.99},
    ),
    ("data2vec", "imagenet"): (
        ADAMW
        | {"batch": 2048, "epochs": 800, "peak": 2e-3, "decay": 0.05, "start": 1e-6, "final": 1e-5}
        | {"clip": (3.0, 0, 0)},
        {"layers": 6, "beta": 2, "mask_ratio": 120 / 196, "smallest_block": 16, "momentum": 0.9998}
        | {"momentum_schedule": "constant", "collapse_after": 7000, "target_norm": "layer"},
    ),
    ("gpt", "paper"): (
        ADAMW
        | {"batch": 480, "steps": 600_000, "peak": 6e-4, "final": 6e-5, "warmup": 2000, "b2": 0.95, "decay": 0.1}
        | {"clip": (1.0, 0, 0)},
        {},
    ),
    ("gpt", "shakespeare"): (
        ADAMW
        | {"batch": 64, "steps": 5000, "peak": 1e-3, "final": 1e-4, "warmup": 100, "b2": 0.99, "decay": 0.1}
        | {"clip": (1.0, 0, 0)},
        {},
    ),
    ("bert", "paper"): (
        ADAMW
        | {"batch": 256, "steps": 1_000_000, "peak": 1e-4, "warmup": 10_000, "decay": 0.01, "clip": (1.0, 0, 0)}
        | {"schedule": "linear"},
        {"mask_share": 0.15, "most_masked": 20},
    ),
    ("ijepa", "imagenet"): (
        ADAMW
        | {"batch": 2048, "epochs": 300, "peak": 1e-3, "decay": 0.04, "decay_final": 0.4, "warmup": 40}
        | {"start": 2e-4, "final": 1e-6},
        {"targets": 4, "context_scale": (0.85, 1.0), "target_scale": (0.15, 0.2), "aspect": (0.75, 1.5)}
        | {"min_keep": 10, "momentum": 0.996, "momentum_schedule": "linear", "predictor_width": 384}
        | {"predictor_depth": 12, "predictor_heads": 16, "target_norm": "layer"},
    ),
    ("videomae", "paper"): (VIDEOMAE | {"epochs": 800}, VIDEOMAE_METHOD),
    ("videomae", "ssv2"): (VIDEOMAE | {"epochs": 2400}, VIDEOMAE_METHOD),
    ("clip", "paper"): (
        ADAMW
        | {"batch": 32_768, "epochs": 32, "peak": 5e-4, "warmup": 2000 * 32_768 / 400e6, "b2": 0.98, "decay": 0.2}
        | {"exclude": ("bias", "scale", "log_scale", "prefix")},
        {"text_width": 512, "text_depth": 12, "text_heads": 8, "dim": 512, "temperature": 0.07, "max_scale": 100}
        | {"objective": "softmax"},
    ),
}


@pytest.mark.parametrize("name, variant", PAPERS)
def test_recipes_have_the_papers_numbers(name, variant, load_config):
    """Rates are those at the recipe's batch, which is counted in images and not in crops."""
    (path,) = (path for path in CONFIGS if path.stem == name)
    config = load_config(path, variant)
    o = config.optimizer
    peak = peak_rate(o.learning_rate, o.scaling, config.batch_size)
    found = {
        "batch": config.batch_size,
        "epochs": config.epochs,
        "steps": config.steps,
        "peak": peak,
        "start": peak * o.start,
        "final": peak * o.final,
        "warmup": o.warmup_steps or o.warmup_epochs,
        "decay": o.weight_decay,
        "decay_final": o.weight_decay_final,
        "clip": (o.clip_norm, o.clip_each, o.clip_module),
        **{field: o[field] for field in ("name", "momentum", "b2", "trust", "exclude", "layer_decay", "per_epoch")},
        **{field: o[field] for field in ("freeze", "freeze_epochs", "constant", "milestones", "schedule")},
        "rates": o.rates.to_dict(),
    }
    optimizer, method = PAPERS[name, variant]
    for numbers, expected in ((found, optimizer), (config.method, method)):
        for field, value in expected.items():
            same = numbers[field] == value if isinstance(value, str) else pytest.approx(value) == numbers[field]
            assert same, (field, numbers[field], value)


@pytest.mark.parametrize(
    "name, variant, encoder, data",
    [
        ("gpt", "paper", {"width": 768, "depth": 12, "heads": 12, "bias": False}, {"length": 1024, "tokenizer": "bpe"}),
        ("gpt", "shakespeare", {"width": 384, "depth": 6, "heads": 6, "dropout": 0.2}, {"length": 256, "stride": 1}),
        ("bert", "paper", {"name": "bert_base", "types": 0}, {"length": 128, "tokenizer": "wordpiece", "marks": True}),
    ],
)
def test_recipes_for_text_have_the_papers_encoders_and_data(name, variant, encoder, data, load_config):
    config = load_config(CONFIGS[0].parents[1] / "text" / f"{name}.py", variant)
    assert {field: config.encoder[field] for field in encoder} == encoder
    assert {field: config.data[field] for field in data} == data


VIEWS = {
    ("npid", "cifar10"): {"flip": 0, "grey_first": False},
    ("simclr", "imagenet"): {"strength": 1, "blur": 0.5},
    ("simclr_v2", "imagenet"): {"name": "simclr", "strength": 1, "blur": 0.5},
    ("simclr_v2", "memory"): {"name": "simclr", "strength": 1, "blur": 0.5},
    ("simclr_v2", "fine_tune_1percent"): {"name": "mae", "scale": (0.08, 1)},
    ("simclr_v2", "fine_tune_10percent"): {"name": "mae", "scale": (0.08, 1)},
    ("simclr_v2", "distill"): {"name": "mae", "scale": (0.08, 1)},
    ("moco_v1", "cifar10"): {"name": "moco_v2", "scale": (0.08, 1), "blur": 0},
    ("moco_v2", "cifar10"): {"scale": (0.08, 1), "blur": 0},
    ("moco_v3", "imagenet"): {"scale": (0.2, 1)},
    ("moco_v3", "imagenet_vit"): {"scale": (0.08, 1)},
    ("simsiam", "imagenet"): {"name": "moco_v2"},
    ("simsiam", "small"): {"name": "moco_v2"},
    ("barlow_twins", "imagenet"): {"name": "byol"},
    ("vicreg", "imagenet"): {"name": "byol"},
    ("dino", "resnet50"): {"scale": (0.14, 1), "local_scale": (0.05, 0.14)},
    ("dino", "small"): {"local_crops": 6},
    ("dinov2", "full"): {"local_size": 98},
}
"""Where an ImageNet recipe's views are not simply those of its method's name; and those of some others."""


PUBLISHED = [
    x for x in VARIANTS if x[0] in OF_IMAGES and ((x[0].stem, x[1]) in VIEWS or not x[1].endswith(("demo", "cifar10")))
]


@pytest.mark.parametrize("path, variant", PUBLISHED, ids=lambda x: getattr(x, "stem", x))
def test_recipes_have_the_papers_views(path, variant, load_config):
    """And their mean and standard deviation: on ImageNet those of the recipe, which are none in both SimCLRs."""
    views = load_config(path, variant).views
    found = {field: value for field, value in views.items() if value is not None}
    assert found.pop("size", 224) == (32 if variant == "cifar10" else 224)
    if variant == "cifar10":
        assert (found.pop("mean"), found.pop("std")) == (CIFAR10_MEAN, CIFAR10_STD)
    if path.stem == "simclr_v2" and variant not in ("imagenet", "memory"):
        assert (found.pop("mean"), found.pop("std")) == ((0, 0, 0), (1, 1, 1))
    assert found == {"name": path.stem} | VIEWS.get((path.stem, variant), {})


@pytest.mark.parametrize(
    "name, variant, fields",
    [
        ("moco_v3", "imagenet_vit", {"name": "vit_b", "initializer": "moco_v3", "freeze_patch_embed": True}),
        ("dino", "resnet50", {"name": "resnet50"}),
        (
            "dinov2",
            "full",
            {"name": "vit_l", "patch": 14, "ffn": "swiglu", "drop_path": 0.4, "drop_path_uniform": True}
            | {"layer_scale": 1e-5, "mask_token": True, "positions": "learned", "position_offset": 0.1}
            | {"initializer": "dino"},
        ),
        ("simsiam", "small", {"name": "resnet18", "zero_init_residual": True}),
    ],
)
def test_other_recipes_have_the_papers_encoders(name, variant, fields, load_config):
    (path,) = (path for path in CONFIGS if path.stem == name)
    found = load_config(path, variant).encoder
    assert {field: value for field, value in found.items() if value is not None} == fields


@pytest.mark.parametrize(
    "field, values",
    [
        (
            "zero_init_residual",
            dict.fromkeys(("simclr", "simclr_v2", "moco_v3", "simsiam", "barlow_twins", "vicreg"), 1),
        ),
        ("bn_groups", {"moco_v1": 8, "moco_v2": 8}),
        ("position_offset", {"dino": 0.1, "ibot": 0.1, "dinov2": 0.1}),
        ("layer_scale", {"dinov2": 1e-5, "data2vec": 1e-4}),
        ("drop_path", {"dino": 0.1, "ibot": 0.1, "dinov2": 0.3, "data2vec": 0.25}),
        ("drop_path_uniform", {"dinov2": True}),
    ],
)
def test_encoders_have_the_papers_fields_and_others_do_not(field, values, load_config):
    found = {path.stem: load_config(path, "imagenet").encoder[field] for path in OF_IMAGES if path.stem != "mae"}
    assert {name: value for name, value in found.items() if value} == values


@pytest.mark.parametrize(
    "name, temperature, groups", [("npid", 0.1, None), ("moco_v1", 0.1, 8), ("moco_v2", 0.1, 8), ("simsiam", 0.1, None)]
)
def test_cifars_encoders_and_neighbours_are_the_authors(name, temperature, groups, load_config):
    (path,) = (path for path in CONFIGS if path.stem == name)
    config = load_config(path, "cifar10")
    encoder, evaluate = config.encoder, config.evaluate
    assert (encoder.name, encoder.stem, encoder.bn_groups) == ("resnet18", "cifar", groups)
    assert (evaluate.k, evaluate.temperature) == (200, temperature)


SMALL_HEADS = {"projector": 8, "predictor": 8, "count": 8, "hidden": 8, "bottleneck": 8, "patch_count": 8, "queue": 8}


@pytest.mark.usefixtures("one_block_a_stage")
@pytest.mark.parametrize(
    "name, variant, spared",
    [
        ("npid", "imagenet", set()),
        ("moco_v1", "imagenet", set()),
        ("moco_v2", "imagenet", set()),
        ("simsiam", "imagenet", set()),
        ("moco_v3", "imagenet", {"bias", "scale"}),
        ("moco_v3", "imagenet_vit", set()),
        ("simclr", "imagenet", {"bias", "scale"}),
        ("byol", "imagenet", {"bias", "scale"}),
        ("barlow_twins", "imagenet", {"bias", "scale"}),
        ("vicreg", "imagenet", {"bias", "scale"}),
        ("dino", "imagenet", {"bias", "scale"}),
        ("ibot", "imagenet", {"bias", "scale"}),
        ("dinov2", "imagenet", {"bias", "scale", "layer_scale1", "layer_scale2"}),
        ("data2vec", "imagenet", {"bias", "scale", "layer_scale1", "layer_scale2", "prefix", "positions"}),
        ("ijepa", "imagenet", {"bias", "scale"}),
    ],
)
def test_weight_decay_spares_what_the_papers_spare(name, variant, spared, load_config):
    """DINO's class token, positions and weight-norm's g are decayed; BEiT's and data2vec's tokens and positions are
    not, but for the mask token; without gradients, decay alone moves a parameter."""
    (path,) = (path for path in CONFIGS if path.stem == name)
    config = load_config(path, variant)
    vit = {"width": 16, "depth": config.method.get("layers", 1), "heads": 2}
    config.encoder.update(vit if config.encoder.name.startswith("vit") else {"channels": 2})
    for field, size in SMALL_HEADS.items():
        if config.method.get(field):
            value = config.method[field]
            config.method[field] = (size,) * len(value) if isinstance(value, tuple) else size
    method = build_method(config, 5, examples=8)
    batch = {"image": jnp.zeros((2, 224, 224, 3), jnp.uint8), "index": jnp.arange(2)}
    shapes = jax.eval_shape(method.init, jax.random.key(0), batch).params
    params, o = jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes), config.optimizer
    optimizer = make_optimizer(o.name, lambda _: 1.0, weight_decay=o.weight_decay, exclude=tuple(o.exclude))

    @jax.jit
    def decayed(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.apply_updates(params, optimizer.update(zeros, optimizer.init(params), params)[0])

    after = jax.tree_util.tree_leaves_with_path(decayed(params))
    still = {path[-1].key for path, x in after if (x == 1).all()}
    moved = {path[-1].key for path, x in after if (x != 1).all()}
    assert still == spared and not still & moved
    for token in {"g", "prefix", "positions", "mask_token"} & {path[-1].key for path, _ in after}:
        assert (token in still) == (token in spared)
