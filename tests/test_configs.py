"""No config rots: every variant of every file is built and its step traced; every field can be changed."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from ssljax.build import build_run
from ssljax.config import OF_THE_RUN, base_config
from ssljax.methods import METHODS

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*/*.py"))
VARIANTS = ("demo", "cifar10", "imagenet")


def test_every_method_has_a_config():
    assert {path.stem for path in CONFIGS} == set(METHODS)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_variant_is_built_and_its_step_traced(path, variant, load_config):
    config = load_config(path, variant)
    side = config.data.canvas or config.views.size
    example = {"image": jax.ShapeDtypeStruct((2, side, side, 3), jnp.uint8)}
    if config.data.canvas:
        example["size"] = jax.ShapeDtypeStruct((2, 2), jnp.int32)
    example["index"] = jax.ShapeDtypeStruct((2,), jnp.int32)
    run = build_run(config, examples=1_281_167, example=example)
    assert run.total > 0 and f":{variant}" in path.read_text()


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
