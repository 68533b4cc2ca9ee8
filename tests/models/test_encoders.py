"""What every encoder has in common: its call, the shape of its features, and as many parameters as the field's."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from ssljax.models import encoders_for, make_encoder

COUNTS = json.loads((Path(__file__).parents[1] / "golden" / "parameter_counts.json").read_text())
SIDE = {"vit_micro": 32, "resnet8": 32}


def shapes(encoder, name):
    """Shapes of features and variables on a batch of two, without computing them."""
    images = jax.ShapeDtypeStruct((2, SIDE.get(name, 224), SIDE.get(name, 224), 3), jnp.float32)
    options = {"train": True, "axis": None, "keys": None}  # every encoder is called with all of them
    return jax.eval_shape(lambda x: encoder.init_with_output(jax.random.key(0), x, **options), images)


def count(variables) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("name", encoders_for("images"))
def test_features_are_one_float32_vector_an_image(name):
    encoder = make_encoder(name, dtype=jnp.bfloat16, **({"scan": True} if name.startswith("vit") else {}))
    features, variables = shapes(encoder, name)
    assert features.shape == (2, encoder.num_features) and features.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name, features", [("resnet8", 128), ("resnet18", 512), ("resnet34", 512), ("resnet50", 2048)])
def test_width_multiplier_multiplies_a_resnets_features(name, features):
    assert make_encoder(name).num_features == features
    assert shapes(make_encoder(name, width_multiplier=2), name)[0].shape == (2, 2 * features)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_resnets_have_as_many_parameters_as_torchvision(name):
    assert count(shapes(make_encoder(name), name)[1]) == COUNTS[name]["parameters"]


@pytest.mark.parametrize("name", ["vit_ti", "vit_s", "vit_b", "vit_l", "vit_h"])
def test_vits_have_as_many_parameters_and_the_epsilon_of_timms(name):
    """timm learns a position for the class token too; our fixed positions are no parameters."""
    theirs, positions = COUNTS[name]["parameters"], COUNTS[name]["positions"]
    fixed = make_encoder(name, scan=True)
    assert count(shapes(fixed, name)[1]) == theirs - positions
    assert fixed.epsilon == COUNTS[name]["epsilon"]
    learned = make_encoder(name, positions="learned", scan=True)
    assert count(shapes(learned, name)[1]) == theirs - learned.width


def test_vit_g_has_as_many_parameters_as_hugging_faces_dinov2(golden):
    """Theirs learns a position for the class token too, which is one with the token here."""
    counts = golden("dinov2")
    encoder = make_encoder("vit_g", layer_scale=1e-5, mask_token=True, positions="learned", scan=True)
    patches = counts["giant.positions"] - encoder.width
    assert patches == (224 // encoder.patch) ** 2 * encoder.width
    assert count(shapes(encoder, "vit_g")[1]) == counts["giant.parameters"] - encoder.width


def test_an_unknown_encoder_or_field_is_answered_with_what_there_is():
    with pytest.raises(ValueError, match="'resnet5' is unknown; use one of resnet8, resnet18, .*vit_h"):
        make_encoder("resnet5")
    said = "'resnet18' has no field 'depth'; it has bn_groups, .*stem.* --config.encoder.depth=None"
    with pytest.raises(ValueError, match=said):
        make_encoder("resnet18", depth=3)
