"""What files lack, have too much of or in another shape is named; other names for the same tensors are known."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from seeded import weight

from ssljax.models.resnet import ResNet
from ssljax.models.vit import ViT
from ssljax.weights import ARCHITECTURES, architecture_for
from ssljax.weights.architecture import Described, ImageInputs
from ssljax.weights.files import MODEL, load, save
from ssljax.weights.vision import images_of


@pytest.fixture
def stored(golden, tmp_path):
    """`stored(case)` is a folder with its config.json, and the tensors that belong into it."""

    def make(name):
        numbers = golden("weights")
        (tmp_path / "config.json").write_text(str(numbers[f"{name}.config"]))
        shapes = json.loads(str(numbers[f"{name}.tensors"]))
        return tmp_path, {k: weight(k, tuple(shape)) for k, shape in shapes.items()}

    return make


def write(folder, tensors):
    save_file({k: np.ascontiguousarray(x) for k, x in tensors.items()}, folder / MODEL)


def test_tensors_that_are_missing_unknown_or_of_another_shape_are_named(stored):
    folder, tensors = stored("bert")
    last = tensors.pop("encoder.layer.1.output.dense.bias")
    write(folder, tensors)
    with pytest.raises(ValueError, match="the weights lack encoder.layer.1.output.dense.bias"):
        load(folder)
    write(folder, tensors | {"encoder.layer.1.output.dense.bias": last[:-1]})
    with pytest.raises(ValueError, match=r"encoder.layer.1.output.dense.bias \(15,\), not \(16,\)"):
        load(folder)
    write(folder, tensors | {"encoder.layer.1.output.dense.bias": last, "adapter.weight": last})
    with pytest.raises(ValueError, match="the weights have adapter.weight, which this architecture has no place for"):
        load(folder)


def test_older_names_heads_and_a_model_around_the_encoder_are_known(stored):
    folder, tensors = stored("bert")
    write(folder, tensors)
    expected = load(folder).variables
    old = {f"bert.{k}".replace("LayerNorm.weight", "LayerNorm.gamma"): x for k, x in tensors.items()}
    old = {k.replace("LayerNorm.bias", "LayerNorm.beta"): x for k, x in old.items()}
    write(folder, old | {"cls.predictions.bias": np.zeros(24, np.float32)})
    found = load(folder).variables
    np.testing.assert_array_equal(found["params"]["embed_norm"]["bias"], expected["params"]["embed_norm"]["bias"])


def test_weight_normalisation_has_two_names_and_a_mask_may_lack(stored):
    folder, tensors = stored("wav2vec2_base")
    write(folder, tensors)
    expected = load(folder).variables["params"]
    del tensors["masked_spec_embed"]
    for i, letter in enumerate("gv"):
        new = f"encoder.pos_conv_embed.conv.parametrizations.weight.original{i}"
        tensors[f"encoder.pos_conv_embed.conv.weight_{letter}"] = tensors.pop(new)
    write(folder, {f"wav2vec2.{k}": x for k, x in tensors.items()} | {"project_hid.bias": np.zeros(3, np.float32)})
    found = load(folder).variables["params"]
    np.testing.assert_array_equal(found["position"]["kernel"], expected["position"]["kernel"])
    assert not found["masked"].any() and expected["masked"].any()


def test_weights_in_several_files_and_in_half_precision(stored):
    folder, tensors = stored("gpt2")
    halves = {k: x.astype(np.float16) for k, x in tensors.items()}
    names = sorted(halves)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, some in parts.items():
        save_file({k: halves[k] for k in some}, folder / file)
    index = {"weight_map": {k: file for file, some in parts.items() for k in some}}
    (folder / f"{MODEL}.index.json").write_text(json.dumps(index))
    table = load(folder).variables["params"]["embed"]["tokens"]
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table, halves["wte.weight"].astype(np.float32))


def test_what_is_no_such_file_is_said(tmp_path, stored):
    with pytest.raises(ValueError, match="has no config.json: name the architecture"):
        load(tmp_path)
    folder, _ = stored("bert")
    with pytest.raises(ValueError, match="has no model.safetensors: .* are pickles"):
        load(folder)
    (folder / MODEL).write_bytes(b"\x00" * 20)
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is damaged"):
        load(folder)


@pytest.mark.parametrize(
    "case, change, message",
    [
        ("bert", {"model_type": "roberta"}, "'roberta', which is not among the architectures"),
        ("bert", {"hidden_act": "relu"}, "'hidden_act': 'relu' has no counterpart here; gelu, "),
        ("vit", {"qkv_bias": False}, "'qkv_bias': False in config.json has no counterpart here; only True has"),
        ("timm_vit", {"architecture": "vit_medium_patch16_gap_256"}, "'vit_medium_patch16_gap_256' is not among"),
        ("timm_vit", {"architecture": "swin_tiny"}, "'swin_tiny' is not among"),
        ("timm_vit", {"model_args": {"qk_norm": True}}, "'qk_norm' in config.json has no counterpart"),
        ("timm_vit", {"model_args": {"global_pool": "avg"}}, "'avg' with fc_norm=None has no counterpart"),
        ("timm_resnet18", {"model_args": {"global_pool": "max"}}, "'global_pool': 'max' in config.json"),
    ],
)
def test_configs_that_have_no_counterpart_are_refused(stored, case, change, message):
    folder, tensors = stored(case)
    write(folder, tensors)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_the_caller_names_what_no_config_does(stored):
    folder, tensors = stored("timm_resnet18")
    (folder / "config.json").unlink()
    save_file(tensors, folder / "mine.safetensors")
    encoder, _, inputs = load(folder / "mine.safetensors", "resnet18.a1_in1k")
    assert tuple(encoder.stages) == (2, 2, 2, 2) and inputs.size == 224


@pytest.mark.parametrize(
    "encoder, library, message",
    [
        (ResNet((1, 1), False, stem="cifar"), "timm", "stem='cifar' cannot be written as timm's ResNet"),
        (ResNet((1, 1), False, norm="group"), "huggingface", "norm='group' cannot be written as transformers' ResNet"),
        (ViT(4, 8, 1, 1, epsilon=1e-5), "timm", "epsilon=1e-05 cannot be written as timm's"),
        (ViT(4, 8, 1, 1, registers=2), "huggingface", "layer_scale=None cannot be written as 'dinov2_with_registers'"),
    ],
)
def test_encoders_that_a_library_has_not_are_refused(tmp_path, encoder, library, message):
    described = Described(encoder, images_of(16), ImageInputs(16))
    with pytest.raises(ValueError, match=message):
        save(tmp_path, architecture_for(encoder, library), described, {}, "card")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="timm has no model like object: use --format=safetensors"):
        architecture_for(object(), "timm")


def test_files_are_not_overwritten_without_being_told(stored, tmp_path_factory):
    folder, tensors = stored("timm_resnet18")
    write(folder, tensors)
    encoder, variables, inputs = load(folder)
    described, other = Described(encoder, images_of(32), inputs), tmp_path_factory.mktemp("written")
    (other / "README.md").write_text("mine")
    write_to = (other, ARCHITECTURES["timm_resnet"], described, variables, "card")
    with pytest.raises(ValueError, match=r"has README.md: choose another folder, or overwrite them with --overwrite"):
        save(*write_to)
    save(*write_to, overwrite=True)
    assert sorted(path.name for path in other.iterdir()) == ["README.md", "config.json", MODEL]
    assert (other / "README.md").read_text() == "card\n"
