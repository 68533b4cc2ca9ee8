"""A run's encoder in files of four formats, which give its features again; the card beside them."""

import json
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import ssljax
from ssljax.build import build_method, build_run, modality_of, small_batch
from ssljax.config import remember
from ssljax.engine.checkpoint import Checkpoints
from ssljax.engine.mesh import make_mesh
from ssljax.export import UNKNOWN, encoder_of, export, main, model_card, write_encoder
from ssljax.usage import usage
from ssljax.views.images import center_view
from ssljax.weights.features import features

IMAGES = np.random.RandomState(0).randint(0, 256, (3, 20, 24, 3), np.uint8)
TEXTS = ["to be", "or not to be, that is the question"]
CLIPS = [np.sin(np.arange(n) / 5).astype(np.float32) for n in (3000, 1700)]
INPUTS = {"images": IMAGES, "image_text": IMAGES, "text": TEXTS, "speech": CLIPS}


@pytest.fixture
def built(load_small):
    """`built(method's name, encoder's fields)`: the method, its kind of data, and a state that has made no step; data:
    fields of the data's."""

    def make(method, data=None, **encoder):
        config = load_small(method)
        config.encoder.update(encoder)
        config.data.update(data or {})
        modality = modality_of(config)
        if data:
            modality.settle()
        made = build_method(config, total_steps=1, examples=80)
        example = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), small_batch(config, modality.shapes()))
        shapes = jax.eval_shape(made.init, jax.random.key(0), example)
        return made, modality, jax.tree.map(drawn(), shapes)

    return make


def drawn():
    """Of shapes, numbers: kernels normal with variance 1 / fan-in, the rest near 0.5."""
    random = np.random.RandomState(0)

    def fill(x):
        value = random.standard_normal(x.shape)
        value = value / np.sqrt(np.prod(x.shape[:-1])) if x.ndim > 1 else 0.5 + 0.1 * value
        return np.asarray(value).astype(x.dtype)

    return fill


@pytest.fixture
def stored(load_small, tmp_path):
    """The folder of a run of MAE that has made no step."""
    config, workdir = load_small("mae"), tmp_path / "run"
    config.data.examples = 80
    example = small_batch(config, modality_of(config).shapes())
    run = build_run(config, examples=80, example=example, mesh=make_mesh(1, 1, jax.devices()[:1]))
    remember(config, workdir)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        checkpoints.save(run.start())
    return workdir


@pytest.mark.parametrize(
    "method, encoder, formats",
    [
        ("dino", {}, ("safetensors", "timm", "huggingface")),
        ("mae", {"scan": True}, ("safetensors", "timm", "huggingface")),
        ("ijepa", {}, ("timm", "huggingface")),
        ("dinov2", {"layer_scale": 0.1, "registers": 2, "ffn": "swiglu"}, ("timm", "huggingface")),
        ("clip", {}, ("safetensors", "timm", "huggingface")),
        ("byol", {"name": "resnet18", "stem": "imagenet", "channels": 4}, ("safetensors", "huggingface")),
        ("bert", {"types": 0, "norm": "post"}, ("safetensors", "huggingface")),
        ("gpt", {"bias": False}, ("safetensors", "huggingface")),
        ("wav2vec2", {}, ("safetensors", "huggingface")),
        ("cpc", {}, ("safetensors",)),
    ],
)
def test_features_are_the_runs(built, tmp_path, method, encoder, formats):
    """Files of other libraries hold no tokeniser of ours: they take token ids."""
    run, modality, state = built(method, **encoder)
    inputs = INPUTS[run.modality]
    batch = modality.as_batch(inputs)
    expected = jax.jit(run.features)(state, batch)
    for format in formats:
        folder = tmp_path / format
        write_encoder(run, modality, state, folder, format, "card", overwrite=False)
        assert not list(folder.glob("*.part"))
        assert len({path.stat().st_mode for path in folder.iterdir()}) == 1, "who may read one may read all"
        exported = ssljax.load(folder)
        if run.modality == "text" and format != "safetensors":
            with pytest.raises(ValueError, match="must be a list of lists of token ids"):
                exported(inputs)
            pairs = zip(np.asarray(batch["tokens"]), np.asarray(batch["valid"]), strict=True)
            inputs = [row[valid] for row, valid in pairs]
        np.testing.assert_allclose(exported(inputs), expected, rtol=1e-3, atol=1e-5, err_msg=format)


POST = {"types": 0, "norm": "post"}


@pytest.mark.parametrize(
    "method, encoder, data, format, said",
    [
        ("mae", {"pool": "mean"}, {}, "huggingface", "out.last_hidden_state[:, 1:].mean(1)"),
        ("mae", {"pool": "mean"}, {}, "timm", "features = out"),
        ("dino", {}, {}, "huggingface", "out.last_hidden_state[:, 0]"),
        ("dino", {}, {}, "timm", "features = out"),
        ("ijepa", {}, {}, "huggingface", "out.last_hidden_state.mean(1)"),
        ("ijepa", {}, {}, "timm", "features = out"),
        ("dinov2", {"layer_scale": 0.1, "registers": 2, "pool": "mean"}, {}, "huggingface", "[:, 3:].mean(1)"),
        ("dinov2", {"layer_scale": 0.1, "registers": 2, "pool": "mean"}, {}, "timm", "features = out"),
        ("dinov2", {"layer_scale": 0.1, "ffn": "swiglu"}, {}, "huggingface", "out.last_hidden_state[:, 0]"),
        ("clip", {}, {}, "huggingface", "out.pooler_output "),
        ("clip", {}, {}, "timm", "features = out"),
        ("byol", {"name": "resnet18", "stem": "imagenet", "channels": 4}, {}, "huggingface", "flatten(1)"),
        ("byol", {"name": "resnet18", "stem": "imagenet", "channels": 64}, {}, "timm", "features = out"),
        ("bert", POST, {}, "huggingface", "ids = [2, *ids[:10], 3]"),
        ("bert", POST | {"pool": "cls"}, {"tokenizer": "words"}, "huggingface", "out.last_hidden_state[:, 0]"),
        ("gpt", {}, {}, "huggingface", "ids = ids[:12]"),
        ("gpt", {"pool": "mean"}, {"tokenizer": "bpe", "vocabulary": 300}, "huggingface", "Tokenizer.from_str("),
        ("wav2vec2", {}, {}, "huggingface", "// 2)].mean(0) for i in range(2)]"),
        ("wav2vec2", {"norm": "layer", "stable": True}, {"normalise": True}, "huggingface", "sampling_rate=8000"),
    ],
)
def test_a_cards_code_gives_the_runs_features(built, tmp_path, monkeypatch, method, encoder, data, format, said):
    """Where the library is there; what the code says, everywhere. Images are of the encoder's size, as PIL rounds
    colours that it resizes."""
    if data.get("tokenizer") == "bpe":
        pytest.importorskip("tokenizers")
    run, modality, state = built(method, data, **encoder)
    code = usage(format, encoder_of(run, modality, state)[0], modality.data)
    assert said in code
    compile(code, "card", "exec")
    pytest.importorskip("transformers" if format == "huggingface" else format)
    write_encoder(run, modality, state, tmp_path / "FOLDER", format, "card", overwrite=False)
    remember(modality.config, tmp_path / "RUN")
    monkeypatch.chdir(tmp_path)
    inputs = INPUTS[run.modality]
    if isinstance(inputs, np.ndarray):
        inputs = inputs[:, :16, :16]
        found = executed(code, images=[Image.fromarray(image) for image in inputs])
    else:
        name = "clip" if run.modality == "speech" else "text"
        found = np.stack([executed(code, **{name: x}).reshape(-1) for x in inputs])
    expected = jax.jit(run.features)(state, modality.as_batch(inputs))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def executed(code, **given):
    exec(code, given)
    return np.asarray(given["features"])


def test_the_command_writes_a_card_that_says_what_it_is_but_not_where_it_was(stored, tmp_path, capsys):
    score = {"accuracy": 0.5, "standard_error": 0.01}
    results = {
        "step": 0,
        "protocols": {"knn": "k = 20"},
        "encoders": {"pretrained": {"knn": score}, "raw pixels": {"knn": score}},
        "margins": {"knn": {"raw pixels": {"difference": 0.0, "standard_error": 0.01}}},
    }
    (stored / "results.json").write_text(json.dumps(results | {"step": 7}))  # of another checkpoint
    main(str(stored), "safetensors", str(tmp_path / "other"), None, "cc-by-4.0", False)
    assert "None yet of this step: `python -m ssljax.evaluate --workdir=RUN --step=0`" in (
        (tmp_path / "other" / "README.md").read_text()
    )
    (stored / "at" / "0").mkdir(parents=True)
    (stored / "at" / "0" / "results.json").write_text(json.dumps(results))
    main(str(stored), "safetensors", str(tmp_path / "older"), None, "cc-by-4.0", False)
    assert "50.0 ± 1.0" in (tmp_path / "older" / "README.md").read_text()
    (stored / "results.json").write_text(json.dumps(results))
    capsys.readouterr()
    main(str(stored), "safetensors", None, None, "cc-by-4.0", False)
    folder = stored / "export" / "safetensors"
    assert capsys.readouterr().out == f"exported: {folder}\n"
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\nlibrary_name: ssljax\n")
    for said in (
        "method `mae`, step 0",
        "`demo`, split `train`, 80 examples",
        "50.0 ± 1.0",
        '"mask_ratio"',
        'load("FOLDER")',
    ):
        assert said in card, said
    assert str(tmp_path) not in card
    assert "params/patch_embed/kernel" in load_file(folder / "model.safetensors")
    with pytest.raises(ValueError, match="model.safetensors, config.json, .* choose another folder"):
        main(str(stored), "safetensors", None, None, "cc-by-4.0", False)
    with pytest.raises(ValueError, match="step=3 is of a run, but .* holds weights"):
        ssljax.load(folder, step=3)


def test_a_card_of_what_nobody_has_said(load_small):
    config = load_small("simclr")
    config.data.source = "folder:/home/me/my photographs"
    table = {"measured on": "the 9 images of npz:/home/me/x.npz (test)", "of": {"pretrained": {"mAP": {"value": 0.25}}}}
    measured = model_card(config, 7, "timm", UNKNOWN, {"tables": {"same_class": table}}, "")
    assert "0.250" in measured and "the 9 images of npz:x.npz (test)" in measured
    card = model_card(config, 7, "timm", UNKNOWN, {}, "import timm")
    assert (
        "license: unknown" in card
        and "```python\nimport timm\n```" in card
        and "None yet of this step: `python -m ssljax.evaluate" in card
    )
    assert "folder:my photographs" in card and "/home" not in card


def test_what_cannot_be_exported_is_said(built, tmp_path):
    with pytest.raises(ValueError, match="--format=pickle is unknown; use safetensors, timm, huggingface, onnx"):
        export(tmp_path, tmp_path / "out", "pickle")
    with pytest.raises(ValueError, match="--workdir is needed"):
        main(None, "timm", None, None, UNKNOWN, False)
    run, modality, state = built("scarf")
    with pytest.raises(ValueError, match="encoders of tables cannot be exported yet"):
        write_encoder(run, modality, state, tmp_path / "out", "safetensors", "card", overwrite=False)
    run, modality, state = built("mae", epsilon=1e-5)
    with pytest.raises(ValueError, match="epsilon=1e-05 cannot be written as timm's model"):
        write_encoder(run, modality, state, tmp_path / "out", "timm", "card", overwrite=False)
    run, modality, state = built("clip", pool="mean")
    with pytest.raises(ValueError, match="pool='mean' cannot be written as transformers' CLIPVisionModel"):
        write_encoder(run, modality, state, tmp_path / "out", "huggingface", "card", overwrite=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "method, encoder",
    [
        ("dino", {}),
        ("mae", {"scan": True, "remat": "blocks"}),
        ("dinov2", {"layer_scale": 0.1, "registers": 2, "ffn": "swiglu"}),
        ("clip", {}),
        ("byol", {"name": "resnet18", "stem": "imagenet", "channels": 4}),
        ("simclr", {"norm": "group"}),
        ("bert", {"types": 0, "norm": "post"}),
        ("gpt", {"bias": False}),
        ("wav2vec2", {}),
        ("cpc", {}),
    ],
)
def test_a_graph_gives_the_runs_features(built, tmp_path, method, encoder):
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    run, modality, state = built(method, **encoder)
    write_encoder(run, modality, state, tmp_path, "onnx", "card", overwrite=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "model.onnx"]
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    shape = session.get_inputs()[0].shape
    given = INPUTS[run.modality]
    batch = modality.as_batch([clip[: shape[1]] for clip in given] if run.modality == "speech" else given)
    inputs = {name: np.asarray(x) for name, x in batch.items()}
    if run.modality == "speech":
        inputs["audio"] = np.pad(inputs["audio"], [(0, 0), (0, shape[1] - inputs["audio"].shape[1])])
    elif run.modality != "text":
        view = run.augmentations[0]
        inputs = {"images": np.asarray(center_view(batch, view.size, run.eval_crop, view.mean, view.std))}
    (found,) = session.run(None, inputs)
    np.testing.assert_allclose(found, jax.jit(run.features)(state, batch), rtol=1e-3, atol=1e-5)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("card\n") and all(f"- `{x.name}`, " in card for x in session.get_inputs())


class Library:
    """In place of jax2onnx and of onnxruntime: of the features that are right, `makes` makes those that are found."""

    __version__ = "1.0"

    def __init__(self, described, variables, makes):
        self.right = partial(features, described.encoder, described.inputs, variables)
        self.makes = makes

    def to_onnx(self, compute, shapes, **_):
        return self

    def SerializeToString(self):
        return b"graph"

    def InferenceSession(self, contents, **_):
        return self

    def run(self, _, inputs):
        return [self.makes(np.asarray(self.right(inputs)))]


def test_a_graph_is_written_only_if_it_gives_the_same_features(built, tmp_path, monkeypatch):
    run, modality, state = built("byol", name="resnet18", stem="imagenet", channels=4)
    monkeypatch.setattr("ssljax.weights.graphs.version", lambda _: "1.0")

    def write(packages, overwrite=False):
        for name in ("jax2onnx", "onnxruntime"):
            monkeypatch.setitem(sys.modules, name, packages)
        write_encoder(run, modality, state, tmp_path / "out", "onnx", "card", overwrite=overwrite)

    def fails(x):
        raise TypeError("no such primitive\nfurther")

    library = partial(Library, *encoder_of(run, modality, state))
    right = library(lambda x: x)
    for wrong, message in (
        (None, "needs jax2onnx: `pip install -r requirements-onnx.txt`"),
        (library(fails), r"no graph of ResNet that ONNX Runtime runs \(no such primitive\): use --format=safetensors"),
        (library(lambda x: 1.01 * x), "ResNet gives other features than the encoder, by 1.0e-02 of the largest"),
        (library(lambda x: x * np.nan), "gives other features than the encoder, by nan"),
    ):
        with pytest.raises(ValueError, match=message):
            write(wrong)
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="weights, and a file of ONNX holds 2"):
        patch.setattr("ssljax.weights.graphs.LARGEST", 1000)
        write(right)
    assert not (tmp_path / "out").exists()
    write(right)
    assert (tmp_path / "out" / "model.onnx").read_bytes() == b"graph"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- `images`, float32 (batch, 16, 16, 3): the central square of 1 times" in card
    with pytest.raises(ValueError, match="model.onnx, README.md: choose another folder"):
        write(right)
    write(right, overwrite=True)
    with pytest.raises(ValueError, match="out holds a graph for ONNX Runtime: onnxruntime.InferenceSession reads it"):
        ssljax.load(tmp_path / "out")
