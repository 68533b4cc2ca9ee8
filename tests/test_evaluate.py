"""From a finished run to numbers, a report and an encoder in three lines."""

import json
import re
import shutil
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pyarrow as pa
import pytest
import scipy.io.wavfile
from PIL import Image

import ssljax
from ssljax.build import build_method, modality_of, open_run, small_batch
from ssljax.config import base_config, recall
from ssljax.data.canvas import OnCanvas
from ssljax.data.nodes import open_nodes
from ssljax.data.sources import DataError, open_source
from ssljax.data.speech import open_speech
from ssljax.data.subset import Subset
from ssljax.data.tables import open_table
from ssljax.encoder import Encoder
from ssljax.engine.checkpoint import CheckpointError
from ssljax.evals import finetune
from ssljax.evals.finetune import Tuning
from ssljax.evaluate import _folder_on, _must_fit, _notes, evaluate
from ssljax.forecast import forecast
from ssljax.gallery import PANELS, _panels, _texts
from ssljax.judging import Found, Judge, _unknown_classes
from ssljax.methods import METHODS
from ssljax.modalities.images import Images
from ssljax.modalities.tables import Tables
from ssljax.modalities.text import Text
from ssljax.train import train


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch):
    """Of fine-tuning; with so few examples the rest of 200 would only be waited for."""
    monkeypatch.setattr(finetune, "EPOCHS", 12)


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
    page = (tmp_path / "report.html").read_text()
    assert len(page) > 100_000
    for heading in ("What the encoder looks at", "Reconstructions"):
        assert (heading in page) == (short.method.name == "mae")
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
    with pytest.raises(ValueError, match="only runs on images with texts have a space for both"):
        encoder.embed(colour)


only_mae = pytest.mark.parametrize("name", ["mae"], indirect=True)


def test_points_of_maps_are_called_as_the_files_that_can_be_decoded(photographs):
    source = open_source(f"folder:{photographs}", "train")
    source.skipped[source.text(1)] = "cut off"
    assert _texts(source, len(source) - 1, np.array([0, 1])) == (source.text(0), source.text(2))
    assert _texts(source, len(source), np.array([0, 1])) == ()  # other rows than examples: nobody knows which are which


@only_mae
def test_without_labels_there_are_pictures_and_no_accuracies(short, photographs, tmp_path, capsys):
    short.data.source = f"folder:{photographs / 'airplane'}"
    train(short, tmp_path)
    (photographs / "airplane" / "broken.jpg").write_bytes(b"not a picture")
    results = evaluate(tmp_path)
    (photographs / "airplane" / "broken.jpg").unlink()
    assert "encoders" not in results
    printed = capsys.readouterr().out
    assert (
        "no accuracies" in printed
        and "1 file that could not be decoded was skipped" in printed
        and "broken.jpg" in printed
    )
    assert "held-back images" in (tmp_path / "report.html").read_text()
    with pytest.raises(DataError, match="has no labels"):
        evaluate(tmp_path, ["knn"])


@only_mae
def test_errors(short, tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        evaluate(tmp_path)
    (tmp_path / "results.json").touch()
    for missing, wrong in {"nowhere": "is not there", "results.json": "holds no run and no weights"}.items():
        with pytest.raises(ValueError, match=f"{missing} {wrong}: give the folder of a run, a safetensors file, or"):
            ssljax.load(tmp_path / missing)
    with pytest.raises(ValueError, match="protocol 'nosuch' is unknown; use knn, linear"):
        evaluate(tmp_path, ["nosuch"])
    for name, meant in {"KNN": "knn", "k-NN": "knn", "few_shot_20": "few_shot_10"}.items():
        with pytest.raises(ValueError, match=f"protocol '{name}' is unknown; did you mean '{meant}'. use knn, linear"):
            evaluate(tmp_path, [name])
    with pytest.raises(ValueError, match="--protocol is empty: leave it out, or give some of knn, linear"):
        evaluate(tmp_path, [])
    with pytest.raises(ValueError, match="--tune is of fine-tuning: ask for it by --protocol, with some of finetune_1"):
        evaluate(tmp_path, ["knn"], tuning=Tuning(rate=0.1))
    with pytest.raises(ValueError, match="--crops is of heads: ask for them by --protocol, with some of probe_simclr"):
        evaluate(tmp_path, ["knn"], crops=2)
    train(short, tmp_path)
    with pytest.raises(ValueError, match="method 'mae' has no objective that is measured"):
        evaluate(tmp_path, ["objective"])
    with pytest.raises(
        ValueError, match="protocol 'zero_shot' is for image_text, and method 'mae' learns from images: use knn"
    ):
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


@only_mae
def test_what_was_found_of_each_checkpoint_is_kept(short, tmp_path, capsys):
    def judge(protocol, step=None):
        return evaluate(tmp_path, [protocol], step, draw=False)

    def found(folder):
        results = json.loads((tmp_path / folder / "results.json").read_text())
        return results["step"], list(results["protocols"])

    short.steps, short.checkpoint.every, short.checkpoint.keep = 3, 1, 3
    train(short, tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "3")
    judge("ridge_1")
    judge("knn", step=1)
    judge("nn1", step=1)
    assert (found("."), found("at/1")) == ((2, ["ridge_1"]), (1, ["knn", "nn1"]))
    (tmp_path / "report.html").write_text("of step 2")
    train(short, tmp_path)
    judge("knn")
    assert [found(folder) for folder in (".", "at/1", "at/2")] == [(3, ["knn"]), (1, ["knn", "nn1"]), (2, ["ridge_1"])]
    assert sorted(path.name for path in (tmp_path / "at" / "2").iterdir()) == [
        "label_subsets.npz", "report.html", "results.json",
    ]  # fmt: skip
    assert not (tmp_path / "label_subsets.npz").exists() and not (tmp_path / "report.html").exists()
    assert f"older checkpoint is in {tmp_path / 'at' / '2'}" in capsys.readouterr().out


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
    short.data.source, short.data.schema = f"csv:{own_table}", ""
    run = tmp_path / "run"
    assert train(short, run) == 0
    results = evaluate(run, protocols)
    floors = {"raw columns", "logistic regression", "gradient boosting"}
    assert set(results["encoders"]) == {"pretrained", "random init", *floors}
    assert list(results["protocols"]) == (protocols or list(Tables.protocols))
    assert "knn" not in results["encoders"]["gradient boosting"]
    if protocols is None:
        assert set(results["encoders"]["raw columns"]) == {"knn", "linear_1", "linear_10", "linear"}
        assert results["encoders"]["random init"]["finetune"]["accuracy"] > 0.8
        assert results["encoders"]["gradient boosting"]["linear"]["accuracy"] > 0.9
    said = "each fifth in turn of 90 training rows, 10% of each class and one at least, mean of 5 draws, held out; 30"
    assert said in results["protocols"]["linear_10"]
    printed, page = capsys.readouterr().out, (run / "report.html").read_text()
    assert "linear, 10 %" in printed and "gradient boosting" in page and "90 train and 30 test rows" in page
    for figure in ("views", "map_t_SNE_pretrained", "map_t_SNE_raw_columns", "neighbours_pretrained"):
        assert (run / "figures" / f"{figure}.png").stat().st_size > 500

    other = own_table / "other.csv"  # in other units it would be another table: numbers stay scaled as they were
    other.write_text("fits,colour,extra,size,weight\n" + "".join(f"{r[3]},{r[1]},x,{r[0]},{r[2]}\n" for r in ROWS[:90]))
    found = evaluate(run, ["linear"], data=f"csv:{other}")
    assert found["examples"]["train"] + found["examples"]["test"] == 90
    assert found["encoders"]["raw columns"]["linear"]["accuracy"] > 0.6
    (own_table / "wrong.csv").write_text("size,weight,fits\n" + "1,2,yes\n" * 20)
    with pytest.raises(DataError, match=r"wrong.csv \(train\) has no column 'colour'"):
        evaluate(run, ["linear"], data=f"csv:{own_table / 'wrong.csv'}")

    encoder = ssljax.load(run)
    columns = {"size": [3, 4], "colour": ["red", None], "weight": [1.5, None]}
    features = encoder(columns)
    assert features.shape == (2, 16) and np.isfinite(features).all()
    np.testing.assert_array_equal(encoder(pa.table(columns)), features)
    for wrong, sentence in (
        ({"size": [3]}, "the input has no column 'colour'"),
        ({**columns, "size": ["large", "small"]}, "'size' of the input holds text"),
        ({"size": [1, 2], "colour": ["red"]}, "the input's columns must be of one length and of one kind each"),
        (np.ones((2, 3)), "must be columns by their names, in a dictionary, .*, not ndarray"),
        ([{"size": 3, "colour": "red", "weight": 1.5}], "not list; pyarrow.Table.from_pylist makes one"),
    ):
        with pytest.raises(ValueError, match=sentence):
            encoder(wrong)


@pytest.mark.parametrize("name", ["scarf"], indirect=True)
def test_a_table_without_labels_or_with_an_encoder_for_images(short, own_table, tmp_path, capsys):
    short.data.source, short.data.label, short.data.schema = f"csv:{own_table}", "none", ""
    assert train(short, tmp_path / "run") == 0
    assert "encoders" not in evaluate(tmp_path / "run") and "no accuracies" in capsys.readouterr().out
    short.encoder.name = "resnet8"
    with pytest.raises(ValueError, match="'resnet8' does not fit method 'scarf', which is for tables; use one of mlp"):
        train(short, tmp_path / "other")


# Time series ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ts2vec"], indirect=True)
def test_own_series(short, small_series, tmp_path):
    """From an archive to accuracies, the floor of Euclid's neighbour, a report, and an encoder of series of any
    length."""
    assert train(short, tmp_path) == 0
    results = evaluate(tmp_path)
    assert list(results["encoders"]) == ["pretrained", "random init", "raw series"]
    assert list(results["protocols"]) == ["nn1", "linear", "svm"] and results["examples"] == {"train": 30, "test": 10}
    assert results["encoders"]["raw series"]["svm"]["accuracy"] > 0.8
    assert "C chosen on 5 folds of 30 training series; 10 test series" in results["protocols"]["svm"]
    for figure in ("views", "map_t_SNE_pretrained", "neighbours_raw_series"):
        assert (tmp_path / "figures" / f"{figure}.png").stat().st_size > 300
    encoder = ssljax.load(tmp_path)
    series = [np.random.RandomState(0).standard_normal((n, 2)) for n in (5, 9, 30)]
    series[1][4] = np.nan
    features = encoder(series)
    assert features.shape == (3, 8) and np.isfinite(features).all()
    np.testing.assert_allclose(encoder(series[:1])[0], features[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"series \[\(5, 3\)\] must each be \(time, 2\)"):
        encoder(np.zeros((1, 5, 3)))


@pytest.mark.parametrize("name", ["ts2vec"], indirect=True)
def test_a_long_series_is_foretold(short, small_series, tmp_path, capsys):
    """From a CSV file whose rows are steps to errors beside their floors; of many series there are none."""
    rng, time = np.random.RandomState(0), np.arange(300)
    rows = np.stack([np.sin(time / 3), np.cos(time / 7)], axis=1) + 0.05 * rng.standard_normal((300, 2))
    rows[290] += 4.0
    lines = [f"2020-01-{1 + i // 24:02} {i % 24:02}:00:00,{a:.4f},{b:.4f}" for i, (a, b) in enumerate(rows)]
    (tmp_path / "long.csv").write_text("\n".join(["date,a,b", *lines]) + "\n")
    short.data.update(source=f"csv:{tmp_path / 'long.csv'}", length=20, time="date", parts=(240, 30, 30))
    assert train(short, tmp_path / "run") == 0
    assert recall(tmp_path / "run").batch_size == 12 < short.batch_size  # no piece is told from itself
    results = forecast(tmp_path / "run", [2, 5], context=20)
    found = results["errors"]
    assert 20 in results["anomalies"] and len((tmp_path / "run" / "anomalies.csv").read_text().splitlines()) == 31
    assert list(found) == ["pretrained", "random init", "raw steps", "last value"]
    assert found["raw steps"]["5"]["mae"] < 0.5 * found["last value"]["5"]["mae"]
    assert np.isfinite([e["mae"] for row in found.values() for e in row.values()]).all()
    assert "judged on the last 30" in capsys.readouterr().out
    short.data.update(source=f"npz:{small_series}", length=0, time="", parts=(), shape=())
    assert train(short, tmp_path / "many") == 0
    with pytest.raises(ValueError, match="has many series: forecasts need one long one"):
        forecast(tmp_path / "many", [2])


# Graphs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["graphcl"], indirect=True)
def test_own_graphs(short, small_graphs, tmp_path):
    """From text files to accuracies of ten folds, the floor of histograms, a report, and an encoder of graphs."""
    assert train(short, tmp_path) == 0
    results = evaluate(tmp_path)
    assert list(results["encoders"]) == ["pretrained", "random init", "label histogram"]
    assert results["encoders"]["label histogram"]["svm"]["accuracy"] > 0.9  # degrees tell a ring from a star
    assert "5 folds of 36 training graphs; 10-fold cross-validation over 40 graphs" in results["protocols"]["svm"]
    assert "held-back graphs" in (tmp_path / "report.html").read_text()
    for figure in ("views", "map_t_SNE_pretrained", "neighbours_label_histogram"):
        assert (tmp_path / "figures" / f"{figure}.png").stat().st_size > 300
    encoder = ssljax.load(tmp_path)
    triangle = {"features": np.eye(3), "edges": np.array([[0, 1, 2], [1, 2, 0]])}
    lonely = {"features": np.eye(3)[:1], "edges": np.empty((2, 0))}
    features = encoder([triangle, lonely])
    assert features.shape == (2, 16) and np.isfinite(features).all()
    np.testing.assert_allclose(encoder([lonely])[0], features[1], rtol=1e-4, atol=1e-5)
    for wrong, sentence in (
        ([{"features": np.eye(2), "edges": triangle["edges"]}], r"must be a dictionary of features \(nodes, 3\)"),
        (
            [{"features": np.eye(3), "edges": triangle["edges"] + 1}],
            "The edges of graph 1 are between nodes 1 to 3, but there are 3",
        ),
        ([triangle, {"features": np.eye(3) * np.nan, "edges": triangle["edges"]}], "features of 3 nodes of graph 2"),
        ([{"features": np.eye(3), "edges": triangle["edges"] / 2}], r"graph 1 has edges \(2, 3\) of float64"),
        ([], "must be a list of one graph at least"),
    ):
        with pytest.raises(ValueError, match=sentence):
            encoder(wrong)


# Nodes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dgi"], indirect=True)
def test_own_graph(short, small_graph, tmp_path, monkeypatch):
    """From an archive to accuracies of nodes, floors, a report, and an encoder of graphs."""
    assert train(short, tmp_path) == 0
    results = evaluate(tmp_path)
    assert list(results["encoders"]) == ["pretrained", "random init", "two-hop averages", "raw features"]
    assert results["encoders"]["two-hop averages"]["linear"]["accuracy"] > 0.8
    assert "unit-length" in results["protocols"]["linear"] and results["examples"] == {"train": 6, "test": 6}
    for figure in ("views", "neighbours_pretrained", "neighbours_two_hop_averages"):
        assert (tmp_path / "figures" / f"{figure}.png").stat().st_size > 300
    (tmp_path / "results.json").unlink()
    with monkeypatch.context() as m, pytest.raises(ZeroDivisionError):
        m.setattr("ssljax.evaluate.gallery", lambda *args, **options: 1 / 0)
        evaluate(tmp_path, ["linear"])
    assert list(json.loads((tmp_path / "results.json").read_text())["protocols"]) == ["linear"]  # before pictures
    encoder, graph = ssljax.load(tmp_path), open_nodes(f"npz:{small_graph}", "train")[0]
    features = encoder(graph)
    assert features.shape == (1, 12, 16) and np.isfinite(features).all()
    with pytest.raises(ValueError, match="but has features, and no edges"):
        encoder({"features": graph["features"]})


# Text -----------------------------------------------------------------------------------------------------------------

LINES = [("the cat sat on the mat", "cats"), ("a dog and its bone", "dogs")]


@pytest.mark.parametrize("name", ["bert"], indirect=True)
def test_own_text(short, tmp_path, capsys):
    """From a text file to its held-out loss beside n-grams, from labelled sentences to accuracies; a report, and an
    encoder of strings."""
    (tmp_path / "own.txt").write_text("".join(f"{LINES[i % 2][0]}, {i}\n" for i in range(60)))
    rows = [f"{LINES[i % 2][0]} {i},{LINES[i % 2][1]}" for i in range(60)]
    (tmp_path / "own.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    short.data.update(source=f"txt:{tmp_path / 'own.txt'}", probe=f"csv:{tmp_path / 'own.csv'}")
    run = tmp_path / "run"
    assert train(short, run) == 0
    results = evaluate(run)
    assert list(results["encoders"]) == ["pretrained", "random init", "bag of words", "bag of bytes"]
    assert results["encoders"]["bag of words"]["linear"]["accuracy"] == 1
    found, number = results["objective"]["of"], "hidden-token bits"
    assert list(found) == ["pretrained", "random init", "1-gram", "both sides' counts"]
    assert 0 < found["both sides' counts"][number]["value"] < found["1-gram"][number]["value"]
    assert 0 < found["1-gram"][number]["value"] < found["random init"][number]["value"] < 10
    assert found["pretrained"][number]["value"] < found["random init"][number]["value"]
    printed, page = capsys.readouterr().out, (run / "report.html").read_text()
    for said in ("objective protocol: the", number, "1-gram"):
        assert said in printed
    assert "What it was trained to do" in page and number in page
    for figure in ("views", "neighbours_bag_of_words", "neighbours_pretrained"):
        assert (run / "figures" / f"{figure}.png").stat().st_size > 500
    assert evaluate(run, ["objective"]) == results  # what was known of the probes is still
    (run / "results.json").write_text("damaged")
    assert set(evaluate(run, ["objective"])) == {"step", "examples", "objective"}

    encoder = ssljax.load(run)
    features = encoder(["a dog", "the cat sat on the mat, and more"])
    assert features.shape == (2, 16) and np.isfinite(features).all()
    np.testing.assert_allclose(encoder(["a dog"]), features[:1], atol=1e-5)
    for wrong in ("a dog", [], ["a", ""], [3]):
        with pytest.raises(ValueError, match="texts must be a list of strings"):
            encoder(wrong)


@pytest.mark.parametrize("name", ["gpt"], indirect=True)
def test_text_without_labels_has_an_objective_all_the_same(short, tmp_path, capsys):
    (tmp_path / "own.txt").write_text("".join(f"{LINES[i % 2][0]}, {i}\n" for i in range(60)))
    short.data.update(source=f"txt:{tmp_path / 'own.txt'}", probe="")
    train(short, tmp_path / "run")
    results = evaluate(tmp_path / "run")
    found = results["objective"]["of"]
    assert "encoders" not in results and list(found)[2:] == ["1-gram", "2-gram", "3-gram", "4-gram"]
    nats, bits = (found["4-gram"][f"next-token {unit}"]["value"] for unit in ("nats", "bits per byte"))
    assert 0 < nats < found["1-gram"]["next-token nats"]["value"] < found["random init"]["next-token nats"]["value"]
    np.testing.assert_allclose(bits, nats / np.log(2))
    with pytest.raises(DataError, match="has no labels"):
        evaluate(tmp_path / "run", ["knn", "objective"])
    with pytest.raises(ValueError, match="mixup and cutmix mix images: leave them out of --tune"):
        evaluate(tmp_path / "run", ["finetune"], tuning=Tuning(mixup=0.5))


def test_notes_say_once_what_is_left_out(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n" + "1,x\n2,y\n" * 20 + "3\n")
    train, test = (open_table(f"csv:{tmp_path / 'rows.csv'}", split) for split in ("train", "test"))
    some, note = Subset(train, 5), f"{tmp_path / 'rows.csv'}: skipped 1 row with another number of fields"
    nothing = Found({}, {}, {}, {}, {}, {})
    assert _notes((some, test, ""), {}, nothing, [], alone=False) == [note]
    assert _notes((train, None, "no test"), {}, nothing, [], alone=False) == ["no accuracies: no test", note]
    notes = _notes((train, None, "no test"), {}, nothing, ["svm", "ood"], alone=True)
    assert notes == ["no SVM, telling other data: no test", note]


@pytest.mark.parametrize("whole", [20, 10, 3])
def test_pictures_are_of_what_can_be_decoded(whole, tmp_path):
    """The first of them, or all where they are few."""
    for i in range(20):
        path = tmp_path / "train" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"broken")
        if i < whole:
            Image.fromarray(np.full((9, 9, 3), 100 + i, np.uint8)).save(path)
    source = OnCanvas(open_source(f"folder:{tmp_path}", "train"), 4)
    shown = _panels(SimpleNamespace(show=lambda _, batch, keys: batch | {"keys": keys}), (), source)
    assert len(shown["image"]) == len(shown["keys"]) == min(whole, PANELS)
    values = shown["image"][:, 0, 0, 0]
    assert (values >= 100).all() and len(np.unique(values)) == len(values)
    assert (shown["size"] == 9).all() and "label" not in shown


# Video ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["videomae"], indirect=True)
def test_own_clips(short, tmp_path):
    """From folders of frames of two classes, one of them bright, to accuracies, floors, a report with reconstructions,
    and an encoder of clips."""
    random, folder = np.random.RandomState(0), tmp_path / "clips"
    for i in range(24):
        video = folder / ("train", "test")[i % 3 == 0] / ("dark", "light")[i % 2] / f"{i}"
        video.mkdir(parents=True)
        for j in range(6):
            frame = random.randint(0, 120, (18, 24, 3)) + 120 * (i % 2)
            Image.fromarray(frame.astype(np.uint8)).save(video / f"{j}.png")
    (folder / "train" / "dark" / "short").mkdir()
    Image.fromarray(np.zeros((18, 24, 3), np.uint8)).save(folder / "train" / "dark" / "short" / "0.png")
    short.data.update(source=f"folder:{folder}", clips=1)
    run = tmp_path / "run"
    assert train(short, run) == 0
    results = evaluate(run)
    assert list(results["encoders"]) == ["pretrained", "random init", "raw pixels", "mean frame", "mean change"]
    assert results["encoders"]["mean frame"]["linear"]["accuracy"] == 1
    assert results["encoders"]["mean change"]["linear"]["accuracy"] < 1
    page = (run / "report.html").read_text()
    assert "1 file that could not be decoded was skipped" in page and "four moments of a clip" in page
    assert "<h2>Reconstructions</h2>" in page
    for figure in ("views", "neighbours_pretrained", "neighbours_mean_frame"):
        assert (run / "figures" / f"{figure}.png").stat().st_size > 300

    encoder = ssljax.load(run)
    clips = np.zeros((2, 4, 20, 30, 3), np.uint8)
    features = encoder(clips)
    assert features.shape == (2, 16) and np.isfinite(features).all()
    np.testing.assert_allclose(encoder(np.zeros_like(clips, np.float32)), features, rtol=1e-6)
    for wrong, sentence in (
        (clips[:, :2], r"clips \(2, 2, 20, 30, 3\) must be \(n, 4, height, width, 3\)"),
        (clips + np.float32(2), "clips must be uint8, or floats in .* from 2.0 to 2.0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            encoder(wrong)


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
    (tmp_path / "run" / "results.json").unlink()  # what was found before would stay
    results = evaluate(tmp_path / "run")
    assert list(results["protocols"]) == own[:-1] and "no probes" in capsys.readouterr().out
    with pytest.raises(DataError, match="has no labels"):
        evaluate(tmp_path / "run", ["zero_shot"])


# Speech ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Of the demo's clips three digits of four speakers as files, one of them broken: path of the parent folder."""
    root = tmp_path_factory.mktemp("digits")
    for split, takes in (("train", ("05", "06")), ("test", ("00",))):
        source = open_speech("demo", split, rate=8000, crop=1.0, longest=1.0)
        for i in range(len(source)):
            _, digit, speaker, take = source._where(i).removesuffix(".wav").split("/")
            if digit in ("one", "six", "two") and speaker in ("george", "jackson", "lucas", "theo") and take in takes:
                path = root / source._where(i)
                path.parent.mkdir(parents=True, exist_ok=True)
                scipy.io.wavfile.write(path, 8000, source[i]["clip"])
    (root / "train" / "one" / "theo" / "05.wav").write_bytes(b"broken")
    return root


@pytest.mark.parametrize("name", ["cpc"], indirect=True)
def test_own_recordings(short, digits, tmp_path, capsys):
    """From WAV files to accuracies of words, of speakers and of speakers that were left out, floors, a report, and an
    encoder of clips of any length."""
    short.data.update(source=f"folder:{digits}", longest=0.5)
    assert train(short, tmp_path) == 0
    results = evaluate(tmp_path)
    assert list(results["encoders"]) == ["pretrained", "random init", "log-mel"]
    assert list(results["protocols"]) == ["knn", "linear", "groups", "left_out"]
    assert results["encoders"]["log-mel"]["groups"]["accuracy"] > 0.7
    assert (
        results["examples"] == {"train": 23, "test": 12}
        and "35 clips of both splits" in results["protocols"]["left_out"]
    )
    out = capsys.readouterr().out
    assert "1 file that could not be decoded" in out and "left-out groups" in out
    for figure in ("views", "map_t_SNE_pretrained", "map_t_SNE_log_mel", "neighbours_pretrained"):
        assert (tmp_path / "figures" / f"{figure}.png").stat().st_size > 500

    encoder, clips = ssljax.load(tmp_path), [np.sin(np.arange(n) / 5).astype(np.float32) for n in (3000, 1000)]
    features = encoder(clips)
    assert features.shape == (2, encoder.method.encoder.num_features) and np.isfinite(features).all()
    for clip, row in zip(clips, features, strict=True):  # whatever it is beside, and whatever type it has
        np.testing.assert_allclose(encoder([clip])[0], row, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(encoder([(clips[0] * 32767).astype(np.int16)])[0], features[0], rtol=0.05, atol=0.02)
    for wrong, sentence in (
        (clips[0], r"must be arrays \(samples,\), not empty, in a list; the first are \[\(\)"),
        ([np.zeros(0)], "not empty"),
        ([clips[0] * 300], "floats in"),
        ([clips[0] * np.nan], "must be finite"),
    ):
        with pytest.raises(ValueError, match=sentence):
            encoder(wrong)

    # Where nobody knows who speaks.
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["data"]["group"] = ""
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(DataError, match="protocol 'left_out' needs groups, which folder:.* has not"):
        evaluate(tmp_path, ["left_out"])


def test_a_protocol_that_the_data_do_not_allow_is_left_out():
    """Here a linear probe where all are of one class; whoever asks for it is told why it cannot be."""
    of_one_class = np.random.RandomState(0).rand(12, 4).astype(np.float32), np.zeros(12, np.int32)
    source = SimpleNamespace(things="images")

    class OfOneClass(Judge):
        def rows(self, encoder, source):
            return of_one_class

    judge = partial(
        OfOneClass,
        base_config("simclr"),
        SimpleNamespace(method=None),
        None,
        {"pretrained": None, "random init": None},
        {},
        source,
        source,
    )
    found = judge(must=False).by(["knn", "linear"])
    assert set(found.described) == {"knn"} == set(found.scores["pretrained"])
    assert found.left_out["linear"].startswith("all 12 labels to learn from are the same")
    assert judge(must=True).by(["knn", "linear"]).left_out.keys() == {"linear"}
    with pytest.raises(ValueError, match="leaves nothing to tell apart: label training examples of two classes"):
        judge(must=True).by(["linear"])


def test_too_few_labels_are_told_before_features_are_computed():
    labels = np.array([0] * 12 + [1] * 6 + [-1] * 9)
    source = SimpleNamespace(things="images", class_names=("cat", "dog"), labels=lambda: labels)
    judge = Judge(base_config("simclr"), None, None, {"pretrained": None}, {}, source, source, must=True)
    with pytest.raises(ValueError, match="of which class 'dog' has 6: label more, or use ridge_5"):
        judge.by(["knn", "ridge_10"])


def test_test_examples_of_classes_that_nobody_has_learnt_are_counted():
    labels, truth = np.array([0, 1, 1]), np.array([0, 1, 2, 2])
    (note,) = _unknown_classes(labels, truth, "images")
    assert note.startswith("2 of 4 test images are of a class of which there is no training example")
    assert not _unknown_classes(labels, truth[:2], "images")


# Other protocols, and other data --------------------------------------------------------------------------------------


@pytest.fixture
def arrays(tmp_path):
    """`arrays(name, splits, size)`: a source of random grey images, of class 1 the brighter ones."""

    def make(name, splits=("train", "test"), size=24):
        rng, found = np.random.RandomState(0), {}
        for split in splits:
            labels = np.arange(60) % 2
            images = rng.randint(0, 150, (60, size, size)) + 100 * labels[:, None, None]
            found |= {f"{split}_image": images.astype(np.uint8), f"{split}_label": labels}
        np.savez(tmp_path / f"{name}.npz", **found)
        return f"npz:{tmp_path / name}.npz"

    return make


@only_mae
def test_protocols_with_several_numbers_parts_of_the_labels_and_other_data(short, arrays, tmp_path, capsys):
    short.data.source, run = arrays("own"), tmp_path / "run"
    train(short, run)
    accuracies = ["linear_10", "few_shot_1", "ridge_5", "probe_dino", "probe_grid", "finetune_10"]
    results = evaluate(
        run,
        ["knn_grid", "same_class", "geometry", *accuracies],
        ood=arrays("twin"),
        tuning=Tuning(layer_decay=0.5),
        scratch=True,
    )
    assert json.loads((run / "results.json").read_text()) == results
    encoders = results["encoders"]
    assert list(encoders) == ["pretrained", "random init", "raw pixels", "from scratch"]
    assert list(encoders["from scratch"]) == ["linear_10", "finetune_10"]
    assert encoders["from scratch"]["linear_10"] == encoders["random init"]["finetune_10"]
    assert "layer_decay = 0.5" in results["protocols"]["finetune_10"]
    cell = encoders["raw pixels"]["few_shot_1"]
    assert len(cell["draws"]) == 20 and "interval" not in cell
    cell = encoders["pretrained"]["probe_grid"]
    assert "draws" not in cell and cell["interval"][0] <= cell["accuracy"] <= cell["interval"][1]
    assert encoders["raw pixels"]["probe_grid"]["accuracy"] == encoders["raw pixels"]["ridge_5"]["accuracy"] == 1
    tables = results["tables"]
    assert list(tables) == ["knn_grid", "same_class", "geometry", "ood"]
    for table in tables.values():
        assert list(table["of"]) == ["pretrained", "random init", "raw pixels"] and "60 t" in table["measured on"]
    assert all(0 <= of["k = 5, majority"]["value"] <= 1 for of in tables["knn_grid"]["of"].values())
    assert all(0 < of["mAP"]["value"] <= 1 for of in tables["same_class"]["of"].values())
    assert set(tables["geometry"]["of"]["pretrained"]) > {"LiDAR", "alignment"}
    assert set(tables["geometry"]["of"]["raw pixels"]) == {"feature std", "RankMe", "uniformity"}
    assert tables["geometry"]["spectrum"]["pretrained"][0] == 1
    for of in tables["ood"]["of"].values():  # the same data cannot be told from itself
        assert all(number["value"] == pytest.approx(0.5) for number in of.values())
    with np.load(run / "label_subsets.npz") as subsets:
        assert len(subsets) == 5 + 20 + 20 and subsets["share_0.1_draw_0"].shape == (6,)
        assert np.bincount(subsets["shots_5_draw_3"] % 2).tolist() == [5, 5]
    printed = capsys.readouterr().out
    assert "k = 5, majority" in printed and "retrieval of the same class: " in printed and "from scratch" in printed

    of_crops = evaluate(run, ["probe_dino", "probe_grid"], crops=2)
    assert capsys.readouterr().out.count("with other settings before is replaced") == 2
    crops = "features of 2 random crops and flips of each image"
    assert {p for p, told in of_crops["protocols"].items() if crops in told} == {"probe_dino", "probe_grid"}
    assert of_crops["encoders"]["raw pixels"]["probe_grid"] == encoders["raw pixels"]["probe_grid"]
    # What was not judged again is still there.
    assert list(of_crops["protocols"]) == accuracies and of_crops["tables"] == tables
    assert of_crops["margins"]["finetune_10"] == results["margins"]["finetune_10"]
    assert all(of_crops["encoders"][name]["linear_10"] == encoders[name]["linear_10"] for name in encoders)
    with np.load(run / "label_subsets.npz") as subsets:
        assert len(subsets) == 5 + 20 + 20
    with pytest.raises(ValueError, match=r"--crops=-1 must be a number of crops of each image"):
        evaluate(run, ["probe_dino"], crops=-1)

    with np.load(tmp_path / "own.npz") as own:
        labels = np.where(np.arange(60) % 5 == 4, -1, own["train_label"])
        np.savez(tmp_path / "some.npz", **dict(own) | {"train_label": labels})
    own = f"npz:{tmp_path / 'some.npz'}"
    # Label -1 is none; the examples are small.
    some = evaluate(run, ["ridge_5", "finetune"], data=own, scratch=None, draw=False)
    (folder,) = (run / "on").iterdir()
    with np.load(folder / "label_subsets.npz") as subsets:
        assert len(subsets) == 20 and all((rows % 5 < 4).all() for rows in subsets.values())
        assert max(rows.max() for rows in subsets.values()) > 48
    assert "some.npz" in json.loads((folder / "results.json").read_text())["data"]
    assert not (folder / "report.html").exists()
    assert some["encoders"]["from scratch"] == {"finetune": some["encoders"]["random init"]["finetune"]}
    assert some["examples"] == {"train": 48, "test": 60} and some["encoders"]["raw pixels"]["ridge_5"]["accuracy"] == 1

    other = evaluate(run, ["knn_grid", "geometry"], data=arrays("train_only", splits=("train",), size=30))
    assert other["data"].endswith("train_only.npz") and other["examples"] == {"train": 60}
    assert "each of 60 images among all others" in other["tables"]["knn_grid"]["measured on"]
    assert len(list((run / "on").iterdir())) == 2 and json.loads((run / "results.json").read_text())["step"] == 2
    alone = evaluate(run, ["knn"], data=f"npz:{tmp_path / 'train_only.npz'}")
    assert alone["protocols"]["knn"].endswith("features of 60 training images; each by all others")
    of_k = other["tables"]["knn_grid"]["of"]["pretrained"]["k = 20, T = 0.07"]
    assert alone["encoders"]["pretrained"]["knn"]["accuracy"] == of_k["value"] and alone["tables"] == other["tables"]
    with pytest.raises(DataError, match=r"has no split 'test'.*--protocol=knn. judges each training example by all"):
        evaluate(run, ["linear"], data=f"npz:{tmp_path / 'train_only.npz'}")
    capsys.readouterr()
    for asked in (["knn", "linear"], None):
        both = evaluate(run, asked, data=f"npz:{tmp_path / 'train_only.npz'}")
        assert both["encoders"] == alone["encoders"]
        assert re.search("note: no linear: .* has no split 'test'", capsys.readouterr().out)

    with np.load(tmp_path / "own.npz") as own:
        same = {name: np.zeros_like(x) if name.endswith("label") else x for name, x in own.items()}
        np.savez(tmp_path / "same.npz", **same)
    same = evaluate(run, ["nn1", "linear"], data=f"npz:{tmp_path / 'same.npz'}", scratch=True, draw=False)
    assert same["encoders"]["pretrained"].keys() == {"nn1"} and "from scratch" not in same["encoders"]
    assert "note: no linear: all 60 labels to learn from are the same" in capsys.readouterr().out
    with pytest.raises(ValueError, match="protocol 'ood' tells other data from the run's: say which by --ood"):
        evaluate(run, ["ood"])
    with pytest.raises(ValueError, match=r"--ood=.* is what encoders are judged by: give other data"):
        evaluate(run, ["ood"], ood=f"npz:{tmp_path / 'own.npz'}")
    with pytest.raises(ValueError, match="--tune=frozen=9, but the encoder has only"):
        evaluate(run, ["finetune"], tuning=Tuning(frozen=9))
    (page,) = [path for path in (run / "on").glob("*/report.html") if "train_only" in str(path)]
    told = page.read_text()
    assert f"judged on npz:{tmp_path / 'train_only.npz'}" in told and "which pretraining has seen" not in told
    assert f"These are of pretraining, on npz:{tmp_path / 'own.npz'}." in told


@only_mae
def test_segmentation_where_there_are_masks(short, tmp_path):
    """Of bright squares on dark ground: pixels tell them apart, labels are not needed."""
    rng = np.random.RandomState(0)
    masks = np.zeros((40, 16, 16), np.uint8)
    for mask in masks:
        at = 4 * rng.randint(0, 3, 2)
        mask[at[0] : at[0] + 8, at[1] : at[1] + 8] = 3
    images = np.where(masks == 3, 200, 30) + rng.randint(0, 20, masks.shape)
    np.savez(tmp_path / "squares.npz", image=images.astype(np.uint8), mask=masks)
    np.savez(tmp_path / "bad.npz", image=images.astype(np.uint8), mask=masks[:, :8])
    short.data.source = f"npz:{tmp_path / 'squares.npz'}"
    train(short, tmp_path / "run")
    table = evaluate(tmp_path / "run", ["segmentation"])["tables"]["segmentation"]["of"]
    assert table["raw pixels"]["mIoU of clusters"]["value"] > 0.9
    assert all(set(table[name]) > {"Jaccard, best head"} for name in ("pretrained", "random init"))
    with np.load(tmp_path / "squares.npz") as squares:
        np.savez(tmp_path / "blank.npz", **dict(squares) | {"mask": 0 * masks})
    with pytest.raises(ValueError, match=r"the masks hold only \[0\]: there is nothing to tell apart"):
        evaluate(tmp_path / "run", ["segmentation"], data=f"npz:{tmp_path / 'blank.npz'}")
    with pytest.raises(ValueError, match="needs masks: demo .* has none"):
        evaluate(tmp_path / "run", ["segmentation"], data="demo")
    with pytest.raises(DataError, match=r"but masks of shape \(40, 8, 16\) and type uint8"):
        open_source(f"npz:{tmp_path / 'bad.npz'}", "train")


def test_text_that_has_labels_is_judged_by_itself(tmp_path):
    (tmp_path / "own.csv").write_text("text,mood\n" + "so it is,good\nand so,bad\n" * 20)
    own = f"csv:{tmp_path / 'own.csv'}"
    for source, label, probe in ((own, "", ""), (own, "none", "demo_speeches"), ("demo", "", "demo_speeches")):
        config = base_config("bert")
        config.data.update(source=source, label=label, probe="demo_speeches")
        text = modality_of(config)
        text.settle()
        assert config.data.probe == probe and (text.judged_by("train") is None) == (not probe)
    assert Text(config).on_other_data("csv:other.csv").data.probe == "csv:other.csv"


def test_each_data_have_a_folder_of_their_own(tmp_path):
    for place, data in enumerate(("npz:a/b.npz", "npz:a-b.npz", "npz:a_b.npz", "npz:a/b.npz", "npz:a-b.npz")):
        folder = _folder_on(tmp_path, data)
        assert folder.name == ("npz-a-b.npz", "npz-a-b.npz-2", "npz-a_b.npz", "npz-a-b.npz", "npz-a-b.npz-2")[place]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(json.dumps({"data": data}))


def test_other_data_must_fit(small_graph):
    read = Text(base_config("bert")).on_other_data("csv:other.csv")
    assert (read.data.source, read.data.probe) == ("demo", "csv:other.csv")  # in the tokens of the run's own
    config = base_config("dgi")
    config.encoder.name = "gcn"
    config.data.source = f"npz:{small_graph}"
    modality_of(config).settle()
    method = build_method(config, 1)
    example = small_batch(config, modality_of(config).shapes())
    state = jax.eval_shape(method.init, jax.random.key(0), example)
    source = open_nodes("demo", "train")
    with pytest.raises(DataError, match=r"which the run's encoder, trained on features \(12, 3\)"):
        _must_fit(method, state, config, source)
