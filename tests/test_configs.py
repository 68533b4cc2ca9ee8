"""No config rots: every variant of every file is built and its step traced; every field can be changed."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from ssljax.build import build_run
from ssljax.config import OF_THE_RUN, base_config, remember
from ssljax.methods import METHODS

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*/*.py"))
VARIANTS = [(path, name) for path in CONFIGS for name in re.findall(r"^\| `:(\w+)`", path.read_text(), re.MULTILINE)]
TEACHERS = {
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
        assert {(path, "demo"), (path, "cifar10"), (path, "imagenet")} <= set(VARIANTS)


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
        return config

    return load


@pytest.mark.parametrize("path, variant", VARIANTS, ids=lambda x: getattr(x, "stem", x))
def test_every_variant_is_built_and_its_step_traced(path, variant, with_teacher):
    config = with_teacher(path, variant)
    if "vit" in config.encoder.name:
        config.encoder.scan = True  # one block is traced for all
    side = config.data.canvas or config.views.size
    example = {"image": jax.ShapeDtypeStruct((2, side, side, 3), jnp.uint8)}
    if config.data.canvas:
        example["size"] = jax.ShapeDtypeStruct((2, 2), jnp.int32)
    example |= {name: jax.ShapeDtypeStruct((2,), jnp.int32) for name in ("index", "label")}
    run = build_run(config, examples=1_281_167, example=example)
    assert run.total > 0


def test_unknown_variants_list_what_there_is(load_config):
    with pytest.raises(ValueError, match=":demo, :cifar10, :imagenet"):
        load_config(CONFIGS[0], "nosuch")


@pytest.mark.parametrize("name", METHODS)
def test_base_config_has_every_field_of_the_method(name):
    fields = set(METHODS[name].__dataclass_fields__) - set(OF_THE_RUN)
    assert fields <= set(base_config(name).method)


def test_fields_without_a_value_take_one_of_the_right_type(load_config):
    config = load_config(CONFIGS[0], "demo")
    assert config.encoder.get_type("patch") is int
    assert config.encoder.get_type("scan") is bool
    assert config.views.get_type("mean") is tuple
    assert config.views.get_type("jitter") is float
