"""From a finished run to numbers, a report and an encoder in three lines."""

import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import ssljax
from ssljax.build import open_run
from ssljax.config import base_config
from ssljax.data.nodes import open_nodes
from ssljax.data.sources import DataError, open_source
from ssljax.encoder import Encoder
from ssljax.engine.checkpoint import CheckpointError
from ssljax.evaluate import PROTOCOLS, evaluate
from ssljax.methods import METHODS
from ssljax.modalities.images import Images
from ssljax.train import train


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """Sixty demo images of two classes as files of different sizes in class folders: path of the parent folder."""
    root = tmp_path_factory.mktemp("photographs")
    source = open_source("demo", "train")
    for i in range(300):
        example = source[i]
        if example["label"] < 2:
            path = root / source.class_names[example["label"]] / f"{i}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(example["image"]).resize((40 + i % 9, 36)).save(path)
    return root


@pytest.fixture
def short(config):
    """Two steps, no online evaluation."""
    config.steps = 2
    config.evaluate.every = 0
    return config


@pytest.mark.parametrize("name", ["npid", "fine_tune", "mae"], indirect=True)
def test_own_photographs(short, photographs, tmp_path, capsys):
    """On a folder of images of varying size with classes: accuracies, floors, errors, report, encoder."""
    short.data.source = f"folder:{photographs}"
    assert train(short, tmp_path) == 0
    results = evaluate(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert set(results["encoders"]) == {"pretrained", "random init", "raw pixels"}
    for row in results["encoders"].values():
        assert all(0 <= cell["accuracy"] <= 1 for cell in row.values())
    printed = capsys.readouterr().out
    assert "standard errors" in printed and "k-NN protocol: weighted k-NN, k = " in printed
    assert (tmp_path / "report.html").stat().st_size > 100_000
    # A method that learns classes is judged by what it says itself, too.
    classifies = hasattr(METHODS[short.method.name], "classify")
    assert ("classifier" in results) == ("the run's own classifier" in printed) == classifies

    encoder = ssljax.load(tmp_path)
    images = np.random.RandomState(0).randint(0, 255, (3, 20, 30, 3), np.uint8)
    features = encoder(images)
    assert features.shape == (3, encoder.method.encoder.num_features)
    _, run, state = open_run(tmp_path)
    np.testing.assert_allclose(features, run.method.features(state, {"image": images}), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"\(20, 30, 3\) must be \(n, height, width, 3\)"):
        encoder(images[0])
    with pytest.raises(ValueError, match="but are int64 from"):
        encoder(images.astype(np.int64))
    with pytest.raises(ValueError, match="but are float32 from 0.0 to 25"):
        encoder(images.astype(np.float32))


@pytest.fixture
def encoder(method, batches):
    state = jax.jit(method.init)(jax.random.key(0), batches[0])
    return Encoder(SimpleNamespace(method=method), state, Images(base_config("simclr")))


@pytest.mark.parametrize("name", ["simclr"], indirect=True)
def test_grey_images_are_encoded_as_the_same_three_times(encoder):
    """With a channel or without one, as the data's sources take them; three wide, they are taken for one in colour."""
    grey = np.random.RandomState(0).randint(0, 256, (3, 20, 24), np.uint8)
    colour = np.repeat(grey[..., None], 3, axis=-1)
    expected = encoder(colour)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    for images in (grey, grey[..., None]):
        np.testing.assert_array_equal(encoder(images), expected)
    np.testing.assert_allclose(encoder(grey / 255), expected, rtol=1e-4, atol=1e-5)
    for wrong in (colour[0], grey[0], np.zeros((3, 20, 24, 2), np.uint8)):
        with pytest.raises(ValueError, match=re.escape(f"{wrong.shape} must be (n, height, width, 3), or grey")):
            encoder(wrong)


only_mae = pytest.mark.parametrize("name", ["mae"], indirect=True)


@only_mae
def test_without_labels_there_are_pictures_and_no_accuracies(short, photographs, tmp_path, capsys):
    short.data.source = f"folder:{photographs / 'airplane'}"
    train(short, tmp_path)
    (photographs / "airplane" / "broken.jpg").write_bytes(b"not a picture")
    results = evaluate(tmp_path)
    (photographs / "airplane" / "broken.jpg").unlink()
    assert "encoders" not in results
    printed = capsys.readouterr().out
    assert "no accuracies" in printed and "1 files could not be decoded" in printed and "broken.jpg" in printed
    assert "held-back images" in (tmp_path / "report.html").read_text()
    with pytest.raises(DataError, match="has no labels"):
        evaluate(tmp_path, ["knn"])


@only_mae
def test_errors(short, tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        evaluate(tmp_path)
    with pytest.raises(ValueError, match="protocol 'nosuch' is unknown; use knn, linear"):
        evaluate(tmp_path, ["nosuch"])
    train(short, tmp_path)
    with pytest.raises(ValueError, match="protocol 'zero_shot' is not for what method 'mae' learns from"):
        evaluate(tmp_path, ["zero_shot"])
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        checkpoint.rename(tmp_path / f"away-{checkpoint.name}")
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        evaluate(tmp_path)


@only_mae
def test_a_run_made_on_four_devices_is_judged_on_one(short, tmp_path):
    short.mesh.update(data=2, fsdp=2)
    train(short, tmp_path)
    _, _, state = open_run(tmp_path)
    assert {len(x.sharding.device_set) for x in jax.tree.leaves(state)} == {1}


@only_mae
def test_a_chosen_checkpoint_and_a_run_shorter_than_half_an_epoch(short, tmp_path):
    short.steps, short.epochs, short.checkpoint.every = 0, 0.004, 1  # 0.004 · 8000 / 16 = 2 steps
    train(short, tmp_path)
    first, last = ssljax.load(tmp_path, step=1), ssljax.load(tmp_path)
    assert (int(first.state.step), int(last.state.step)) == (1, 2)
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7; it has \[2, 1\]"):
        ssljax.load(tmp_path, step=7)


# Tables ---------------------------------------------------------------------------------------------------------------

ROWS = [[i % 7, ("red", "blue", "")[i % 3], (i * 5) % 11, ("no", "yes")[i % 7 > 3]] for i in range(120)]


@pytest.fixture
def own_table(tmp_path):
    """A folder with train.csv and test.csv."""
    for name, rows in (("train", ROWS[:90]), ("test", ROWS[90:])):
        lines = [",".join(map(str, row)) for row in rows]
        (tmp_path / f"{name}.csv").write_text("\n".join(["size,colour,weight,fits", *lines]) + "\n")
    return tmp_path


@pytest.mark.parametrize("name, protocols", [("scarf", None), ("vime", ["linear_10"])], indirect=["name"])
def test_own_table(short, protocols, own_table, tmp_path, capsys):
    """From CSV files to accuracies at parts of the labels, floors, a report, and an encoder of rows."""
    short.data.source = f"csv:{own_table}"
    run = tmp_path / "run"
    assert train(short, run) == 0
    results = evaluate(run, protocols)
    assert set(results["encoders"]) == {"pretrained", "random init", "raw columns", "gradient boosting"}
    assert list(results["protocols"]) == (protocols or list(PROTOCOLS))
    assert "knn" not in results["encoders"]["gradient boosting"]
    if protocols is None:
        assert set(results["encoders"]["raw columns"]) == {"knn", "linear_1", "linear_10", "linear"}
        assert results["encoders"]["random init"]["finetune"]["accuracy"] > 0.8
        assert results["encoders"]["gradient boosting"]["linear"]["accuracy"] > 0.9
    said = "each fifth in turn of 90 training rows, 10% of each class, mean of 5 draws, held out; 30 test rows"
    assert said in results["protocols"]["linear_10"]
    printed, page = capsys.readouterr().out, (run / "report.html").read_text()
    assert "linear, 10 %" in printed and "gradient boosting" in page and "90 train and 30 test rows" in page
    for figure in ("views", "map_pretrained", "map_raw_columns", "neighbours_pretrained"):
        assert (run / "figures" / f"{figure}.png").stat().st_size > 500

    encoder = ssljax.load(run)
    columns = {"size": [3, 4], "colour": ["red", None], "weight": [1.5, None]}
    features = encoder(columns)
    assert features.shape == (2, 16) and np.isfinite(features).all()
    np.testing.assert_array_equal(encoder(pa.table(columns)), features)
    for wrong, sentence in (
        ({"size": [3]}, "the input has no column 'colour'"),
        ({**columns, "size": ["large", "small"]}, "'size' of the input holds text"),
        ({"size": [1, 2], "colour": ["red"]}, "the input's columns must be of one length and of one kind each"),
    ):
        with pytest.raises(ValueError, match=sentence):
            encoder(wrong)


@pytest.mark.parametrize("name", ["scarf"], indirect=True)
def test_a_table_without_labels_or_with_an_encoder_for_images(short, own_table, tmp_path, capsys):
    short.data.source, short.data.label = f"csv:{own_table}", "none"
    assert train(short, tmp_path / "run") == 0
    assert "encoders" not in evaluate(tmp_path / "run") and "no accuracies" in capsys.readouterr().out
    short.encoder.name = "resnet8"
    with pytest.raises(ValueError, match="'resnet8' does not fit method 'scarf', which is for tables; use one of mlp"):
        train(short, tmp_path / "other")


# Nodes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dgi"], indirect=True)
def test_own_graph(short, small_graph, tmp_path):
    """From an archive to accuracies of nodes, floors, a report, and an encoder of graphs."""
    assert train(short, tmp_path) == 0
    results = evaluate(tmp_path)
    assert list(results["encoders"]) == ["pretrained", "random init", "two-hop averages", "raw features"]
    assert results["encoders"]["two-hop averages"]["linear"]["accuracy"] > 0.8
    assert "unit-length" in results["protocols"]["linear"] and results["examples"] == {"train": 6, "test": 6}
    for figure in ("views", "neighbours_pretrained", "neighbours_two_hop_averages"):
        assert (tmp_path / "figures" / f"{figure}.png").stat().st_size > 300
    encoder, graph = ssljax.load(tmp_path), open_nodes(f"npz:{small_graph}", "train")[0]
    features = encoder(graph)
    assert features.shape == (1, 12, 16) and np.isfinite(features).all()
    with pytest.raises(ValueError, match=r"and edges \(2, edges\), not \['features'\]"):
        encoder({"features": graph["features"]})


# Images with captions -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def captioned(tmp_path_factory):
    """Sixty demo images of two classes as files of different sizes, with two captions each, in a table."""
    root = tmp_path_factory.mktemp("captioned")
    source, rows = open_source("demo", "train"), ["file_name,caption,label"]
    for i in range(300):
        example = source[i]
        if example["label"] < 2:
            Image.fromarray(example["image"]).resize((40 + i % 9, 36)).save(root / f"{i}.png")
            kind = source.class_names[example["label"]]
            rows += [f"{i}.png,an {kind},{kind}", f"{i}.png,number {i},{kind}"]
    (root / "captions.csv").write_text("\n".join(rows))
    return root


@pytest.mark.parametrize("name", ["clip"], indirect=True)
def test_own_captions(short, captioned, tmp_path, capsys):
    """From a folder with a table to retrieval in both directions, zero-shot classification, probes, floors, a report,
    and an encoder of images; without classes to what needs none."""
    short.data.update(source=f"folder:{captioned}", learnt="", length=12)
    assert train(short, tmp_path / "run") == 0
    results = evaluate(tmp_path / "run")
    floors = ["raw pixels", "colour histogram", "colours to words", "chance"]
    assert list(results["encoders"]) == ["pretrained", "random init", *floors]
    own = [f"to_{what}_{k}" for what in ("text", "image") for k in (1, 5, 10)] + ["zero_shot"]
    assert list(results["protocols"]) == ["knn", "linear", *own]
    assert list(results["encoders"]["chance"]) == own and results["encoders"]["chance"]["zero_shot"]["accuracy"] == 0.5
    for row in results["encoders"].values():
        for k, following in ((1, 5), (5, 10)):
            for what in ("text", "image"):
                if "zero_shot" in row:
                    assert row[f"to_{what}_{k}"]["accuracy"] <= row[f"to_{what}_{following}"]["accuracy"]
    printed, page = capsys.readouterr().out, (tmp_path / "run" / "report.html").read_text()
    assert "zero-shot" in printed and "text R@10" in printed and "captions of an image" in page
    for figure in ("views", "found_captions_of_an_image", "found_images_of_a_caption"):
        assert (tmp_path / "run" / "figures" / f"{figure}.png").stat().st_size > 500
    with pytest.raises(ValueError, match=r"\(20, 30, 3\) must be \(n, height, width, 3\)"):
        ssljax.load(tmp_path / "run")(np.zeros((20, 30, 3), np.uint8))

    table = captioned / "captions.csv"
    table.write_text("\n".join(row.rpartition(",")[0] for row in table.read_text().splitlines()))
    results = evaluate(tmp_path / "run")
    assert list(results["protocols"]) == own[:-1] and "no probes" in capsys.readouterr().out
    assert list(evaluate(tmp_path / "run", ["to_text_5"])["protocols"]) == ["to_text_5"]
    with pytest.raises(DataError, match="has no labels"):
        evaluate(tmp_path / "run", ["zero_shot"])
