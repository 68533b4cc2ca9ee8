"""What a config says is judged before anything is built from it."""

import math

import jax
import jax.numpy as jnp
import pytest

from ssljax.build import build_run
from ssljax.engine.mesh import make_mesh

SHARE = "above 0 and at most 1"
PAIR = "two numbers above 0 and at most 1, the smaller first"
NOT_NEGATIVE = "clip_norm clip_each clip_module learning_rate warmup_epochs start final weight_decay".split()
UNFIT = [
    *(("simclr", f"optimizer.{name}", -1.0, "0 or more") for name in NOT_NEGATIVE),
    ("simclr", "optimizer.warmup_steps", -1, "0 or more"),
    ("simclr", "optimizer.momentum", 1.5, "at least 0 and below 1"),
    ("simclr", "optimizer.b2", 2.0, "at least 0 and below 1"),
    ("simclr", "optimizer.layer_decay", 1.5, "from 0 to 1"),
    ("simclr", "optimizer.trust", 0.0, "above 0"),
    ("simclr", "optimizer.milestones", (10.0, -1.0), "epochs, each 0 or more"),
    ("simclr", "optimizer.rates", {"bias": -1.0}, "factors, each 0 or more"),
    ("simclr", "optimizer.weight_decay_final", math.nan, "a finite number"),
    ("simclr", "evaluate.every", -1, "0 or more"),
    *(("simclr", f"evaluate.{name}", 0, "at least 1") for name in ("k", "train_examples", "test_examples")),
    ("simclr", "evaluate.temperature", 0.0, "above 0"),
    *(("simclr", "method.eval_crop", value, SHARE) for value in (0.0, 1.5)),
    ("ijepa", "method.context_share", -1.0, SHARE),
    ("dino", "method.count", 1, "at least 2, for one tells nothing apart"),
    ("swav", "method.prototypes", 1, "at least 2, for one tells nothing apart"),
    ("ibot", "method.patch_count", 1, "0, or at least 2"),
    *(("ijepa", f"method.{name}_scale", (2.0, 3.0), PAIR) for name in ("context", "target")),
    *(("simclr", "epochs", value, "a finite number") for value in (math.nan, math.inf)),
    ("vicreg", "method.covariance", math.nan, "a finite number"),
]


@pytest.mark.parametrize("name, field, value, what", UNFIT, ids=str)
def test_numbers_out_of_range_are_named(name, field, value, what, load_small):
    config = load_small(name)
    section, _, last = field.rpartition(".")
    (config[section] if section else config)[last] = value
    example = {"image": jax.ShapeDtypeStruct((2, 20, 20, 3), jnp.uint8)}
    with pytest.raises(ValueError) as error:
        build_run(config, examples=80, example=example, mesh=make_mesh(1, 1, jax.devices()[:1]))
    assert str(error.value) == f"--config.{field}={value} must be {what}."


def test_a_frozen_patch_projection_is_frozen_for_the_optimiser_too(load_small):
    config = load_small("moco_v3")
    config.encoder.update({field: None for field in config.encoder} | {"name": "vit_micro", "freeze_patch_embed": True})
    example = {"image": jax.ShapeDtypeStruct((2, 20, 20, 3), jnp.uint8)}

    def build():
        build_run(config, examples=80, example=example, mesh=make_mesh(1, 1, jax.devices()[:1]))

    for fields in ({}, {"freeze": ("patch_embed",), "freeze_epochs": 1.0}, {"freeze": ("norm",)}):
        config.optimizer.update(fields)
        with pytest.raises(ValueError, match="weight decay would still shrink it: set --config.optimizer.freeze="):
            build()
    config.optimizer.update(freeze=("patch_embed",), freeze_epochs=-1.0)
    build()
