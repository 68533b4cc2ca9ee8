"""`ssljax.load` of files of other libraries: raw examples in, features out, prepared as their configs say."""

import json
from functools import partial

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from seeded import weight

import ssljax
from ssljax.modalities.speech import standardise
from ssljax.models.pooling import segment_means
from ssljax.views.images import center_view


@pytest.fixture
def stored(golden, tmp_path):
    """`stored(case, preprocessing)` is the folder of a model of another library."""

    def make(name, preprocessing=None):
        numbers = golden("weights")
        (tmp_path / "config.json").write_text(str(numbers[f"{name}.config"]))
        shapes = json.loads(str(numbers[f"{name}.tensors"]))
        save_file({k: weight(k, tuple(shape)) for k, shape in shapes.items()}, tmp_path / "model.safetensors")
        if preprocessing:
            (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessing))
        return tmp_path

    return make


def test_images_are_cropped_resized_and_normalised(stored):
    preprocessing = {
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6],
        "size": {"shortest_edge": 20},
        "crop_size": {"height": 16, "width": 16},
    }
    encoder = ssljax.load(stored("dinov2", preprocessing))
    images = np.random.RandomState(0).randint(0, 256, (2, 30, 24, 3), np.uint8)
    view = center_view({"image": images}, 16, 0.8, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    tokens = jax.jit(partial(encoder.encoder.apply, method="tokens"))(encoder.variables, view)
    np.testing.assert_allclose(encoder(images), tokens[:, 0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"must be \(n, height, width, 3\)"):
        encoder(images[0])


def test_clips_are_normalised_where_the_file_says_so(stored):
    encoder = ssljax.load(stored("wav2vec2_large", {"sampling_rate": 8000, "do_normalize": True}))
    clips = [np.sin(np.arange(n) / 5).astype(np.float32) + 0.3 for n in (900, 600)]
    run = jax.jit(encoder.encoder.apply)
    heard = [run(encoder.variables, standardise(clip)[None]).context for clip in clips]
    expected = [segment_means(x, np.array([x.shape[1]]), 4)[0] for x in heard]
    np.testing.assert_allclose(encoder(clips), expected, rtol=1e-3, atol=1e-4)
    assert encoder.inputs.rate == 8000


@pytest.mark.parametrize("case", ["bert", "clip_text"])
def test_texts_are_ids_and_their_padding_changes_nothing(stored, case):
    encoder = ssljax.load(stored(case))
    texts = [[0, 5, 3, 8, 23], [0, 4, 23]]
    np.testing.assert_allclose(encoder(texts)[1:], encoder(texts[1:]), rtol=1e-4, atol=1e-5)
    for wrong in (["a text"], [], [[]], [[0.5]]):
        with pytest.raises(ValueError, match="must be a list of lists of token ids"):
            encoder(wrong)


def test_a_tokeniser_beside_the_weights_reads_texts(stored):
    tokenizers = pytest.importorskip("tokenizers")
    folder = stored("bert")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0, "a": 1, "dog": 2}, unk_token="?"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.save(str(folder / "tokenizer.json"))
    encoder = ssljax.load(folder)
    given = partial(np.testing.assert_allclose, encoder(["a dog", "a"]), rtol=1e-5, atol=1e-6)
    (folder / "tokenizer.json").unlink()
    given(ssljax.load(folder)([[1, 2], [1]]))


def test_the_caller_says_what_a_file_without_a_config_is(stored):
    folder = stored("timm_resnet18")
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="has no config.json: name the architecture"):
        ssljax.load(folder / "model.safetensors")
    encoder = ssljax.load(folder / "model.safetensors", architecture="resnet18")
    images = jax.ShapeDtypeStruct((1, 40, 40, 3), np.uint8)
    shape = jax.eval_shape(encoder._compute, encoder.variables, {"image": images}).shape
    assert shape == (1, 512)
