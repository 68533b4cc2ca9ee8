"""Files of timm and Hugging Face, read into our encoders, give their outputs; what we write of these is the same again.

Tiny models, at two sizes of images; `benchmarks/roundtrip.py` does it at published sizes, with both libraries at hand.
"""

import json
from functools import partial

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from seeded import weight

from ssljax.models.vit import ViT
from ssljax.weights import architecture_for, architecture_of
from ssljax.weights.architecture import Described
from ssljax.weights.files import load, renamed, save

CASES = (
    "timm_resnet18 timm_vit timm_dinov2 timm_dinov2_registers timm_dinov2_swiglu timm_ijepa timm_clip resnet vit "
    "dinov2 dinov2_swiglu dinov2_registers ijepa clip_vision clip_text wav2vec2_base wav2vec2_large hubert bert gpt2"
).split()


@pytest.fixture(scope="module", params=CASES)
def case(request, golden, tmp_path_factory):
    """(folder with a library's files, what its model gives for which inputs)"""
    prefix, folder = f"{request.param}.", tmp_path_factory.mktemp(request.param)
    numbers = {k.removeprefix(prefix): x for k, x in golden("weights").items() if k.startswith(prefix)}
    (folder / "config.json").write_text(str(numbers.pop("config")))
    shapes = json.loads(str(numbers.pop("tensors")))
    save_file({k: weight(k, tuple(shape)) for k, shape in shapes.items()}, folder / "model.safetensors")
    return folder, numbers


def test_outputs_are_the_librarys(case):
    """Positions are resized where an image is `wide`."""
    folder, numbers = case
    encoder, variables, _ = load(folder)
    compared = [name for name in numbers if not name.endswith(".outputs")]
    assert len(compared) == (2 if isinstance(encoder, ViT) else 1)
    for name in compared:
        expected = numbers[f"{name}.outputs"]
        method = "tokens" if hasattr(encoder, "tokens") and expected.ndim == 3 else "__call__"
        y = jax.jit(partial(encoder.apply, method=method))(variables, numbers[name])
        y = getattr(y, "context", y)
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=2e-5 * np.abs(expected).max(), err_msg=name)


def test_what_is_written_is_what_was_read(case, tmp_path):
    folder, _ = case
    encoder, variables, inputs = load(folder)
    config = json.loads((folder / "config.json").read_text())
    theirs = load_file(folder / "model.safetensors")
    theirs = {renamed(name, architecture_of(config)): x for name, x in theirs.items()}
    architecture = architecture_for(encoder, "timm" if "architecture" in config else "huggingface")
    # Only the shape of what encoders are initialised with is asked for.
    side = 16 if isinstance(encoder, ViT) else 32
    shapes = {"images": (1, side, side, 3), "speech": (1, 90)}
    kind = getattr(encoder, "modality", "text")
    example = jax.ShapeDtypeStruct(shapes.get(kind, (1, 1)), np.int32 if kind == "text" else np.float32)
    save(tmp_path, architecture, Described(encoder, example, inputs), variables, "card")
    again = load(tmp_path)
    assert again.encoder == encoder and again.inputs == inputs
    jax.tree.map(np.testing.assert_array_equal, again.variables, variables)
    ours = load_file(tmp_path / "model.safetensors")
    left = {name for name in theirs if name.startswith("pooler.") or name.endswith("num_batches_tracked")}
    assert set(ours) == set(theirs) - left
    # Our prefix is the sum of a class token and its position.
    summed = [name for name in ours if "pos_embed" in name or "position_embedding" in name or "cls" in name]
    summed += [name for name in ours if "class_embedding" in name]
    for name in set(ours) - set(summed):
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
