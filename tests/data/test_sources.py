"""What every kind of source has in common, and the demo images."""

import logging
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ssljax.data import DataError, open_source
from ssljax.data.arrays import DEMO_CLASSES
from ssljax.data.images import image_shapes
from ssljax.data.sources import hashed_splits, require_closed_quotes, resolve_split
from ssljax.data.subset import Subset


@pytest.mark.parametrize("spec", ["imagenet", "s3:bucket", "", "folder", "folder:", "demo:train"])
def test_unknown_spec_lists_the_kinds(spec):
    with pytest.raises(DataError, match="demo, folder:PATH, npz:PATH, tfds:NAME"):
        open_source(spec, "train")


def test_a_path_without_its_kind_is_told_with_it(tmp_path):
    (tmp_path / "own.npz").touch()
    (tmp_path / "own.csv").touch()
    for path, form in {tmp_path: "folder", tmp_path / "own.npz": "npz"}.items():
        with pytest.raises(DataError, match=f"no data source '{path}': write '{form}:{path}'."):
            open_source(str(path), "train")
    for path in ("own.csv", "nowhere.npz"):
        with pytest.raises(DataError, match="write one of demo, folder:PATH"):
            open_source(str(tmp_path / path), "train")


@pytest.mark.parametrize(("split", "per_class"), [("train", 800), ("test", 200)])
def test_demo_is_balanced_and_looks_like_photographs(split, per_class):
    source = open_source("demo", split)
    labels = np.array([source[i]["label"] for i in range(len(source))])
    assert np.bincount(labels).tolist() == [per_class] * 10
    assert labels[:10].tolist() == list(range(10))
    assert source.shapes == image_shapes(32, 32) and source.has_labels and source.class_names == DEMO_CLASSES

    images = np.stack([source[i]["image"] for i in range(len(source))])
    assert images.dtype == np.uint8 and images.shape == (per_class * 10, 32, 32, 3)
    # The channel means of all of CIFAR-10 are 125, 123 and 114, its standard deviations 63, 62 and 67.
    np.testing.assert_allclose(images.mean((0, 1, 2)), [125, 123, 114], atol=4)
    np.testing.assert_allclose(images.std((0, 1, 2)), [63, 62, 67], atol=3)
    # Labels belong to the images: the sky behind planes is brighter than what is behind frogs.
    assert images[labels == 0].mean() > images[labels == 6].mean() + 20
    # Tiles are cut where they should be: from column to column, values change no more at their edges than within.
    steps = np.abs(np.diff(images.astype(np.int16), axis=2)).mean((0, 1, 3))
    assert max(steps[0], steps[-1]) < 1.2 * steps[1:-1].mean()


def test_demo_aliases_and_unknown_split():
    assert len(open_source("demo", "validation")) == 2000
    with pytest.raises(DataError, match="no split 'extra': choose one of test, train"):
        open_source("demo", "extra")


def test_demo_without_its_files(monkeypatch, tmp_path):
    monkeypatch.setattr("ssljax.data.arrays.DEMO_FOLDER", tmp_path)
    with pytest.raises(DataError, match="not in this installation"):
        open_source("demo", "train")


def test_index_out_of_range_and_examples_are_read_only():
    source = open_source("demo", "test")
    for index in (-1, 2000):
        with pytest.raises(IndexError, match="2000 examples"):
            source[index]
    with pytest.raises(ValueError, match="read-only"):
        source[0]["image"][:] = 0


def test_evaluation_splits_stand_in_for_each_other():
    assert resolve_split("test", ["train", "valid"], "x") == "valid"
    assert resolve_split("val", ["test", "validation"], "x") == "validation"
    with pytest.raises(DataError, match="choose one of test"):
        resolve_split("train", ["test"], "x")


def test_hashed_splits_are_stable_and_never_empty():
    names = [f"{i}.jpg" for i in range(2000)]
    splits = hashed_splits(names)
    assert sorted(splits["train"] + splits["test"]) == list(range(2000))
    assert 160 < len(splits["test"]) < 240
    # These exact positions must never change: they decide which images of a user's folder are held out.
    assert splits["test"][:5] == [26, 34, 36, 38, 91]
    # Adding images moves none.
    more = hashed_splits(["a.jpg", *names])
    assert {names[i] for i in splits["test"]} == {["a.jpg", *names][i] for i in more["test"]} - {"a.jpg"}

    for n in range(2, 40):
        small = hashed_splits(names[:n])
        assert small["train"] and small["test"]
    assert hashed_splits(["alone.jpg"]) == {"train": [0]}


@pytest.fixture
def damaged_folder(write_images):
    """Files 0 to 9 in class folders for training; 3 and 4 are cut off, 9 is empty."""
    root = write_images(*[f"train/{'ab'[i // 5]}/{i}.png" for i in range(10)], "test/a/0.png")
    for i in (3, 4):
        path = root / f"train/a/{i}.png"
        path.write_bytes(path.read_bytes()[:40])
    (root / "train/b/9.png").write_bytes(b"")
    return root


def test_undecodable_files_are_replaced_counted_and_named_once(damaged_folder, caplog):
    source = open_source(f"folder:{damaged_folder}", "train")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            shown = [int(source[i]["image"][0, 0, 0]) for i in range(10)]
    assert shown == [0, 1, 2, 5, 5, 5, 6, 7, 8, 0]
    assert int(source[3]["label"]) == 1, "the label goes with the image that is shown"
    assert [source.read(i) is None for i in range(10)] == [i in (3, 4, 9) for i in range(10)]
    assert sorted(path[-5:] for path in source.skipped) == ["3.png", "4.png", "9.png"]
    assert source.decodable() == [0, 1, 2, 5, 6, 7, 8]
    part = Subset(source, 10)
    assert {part.text(i) for i in range(10)} == {source.text(i) for i in range(10)}
    assert source.text(9).endswith("b/9.png")

    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 3
    assert "3.png" in warnings[0] and "1 skipped" in warnings[0]
    assert "9.png" in warnings[2] and "3 skipped" in warnings[2]


def test_a_link_that_leads_nowhere_is_skipped(write_images):
    """It was never there, other than a file that vanishes while a run reads it."""
    root = write_images("train/1.png", "train/2.png")
    (root / "train/0.png").symlink_to(root / "nowhere.png")
    source = open_source(f"folder:{root}", "train")
    assert int(source[0]["image"][0, 0, 0]) == 0
    assert list(source.skipped)[0].endswith("0.png")


def test_nothing_decodable_is_an_error(write_images):
    root = write_images("train/1.png", "train/2.png")
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    source = open_source(f"folder:{root}", "train")
    with pytest.raises(DataError, match="None of the 2 images .*1.png"):
        source[0]


def test_sources_can_be_pickled_and_read_from_threads(damaged_folder):
    # Grain's worker processes are given a source so. The bytes are made here; ssljax itself loads no pickle.
    source = pickle.loads(pickle.dumps(open_source(f"folder:{damaged_folder}", "train")))
    with ThreadPoolExecutor(8) as threads:
        shown = list(threads.map(lambda i: int(source[i % 10]["image"][0, 0, 0]), range(200)))
    assert shown == [0, 1, 2, 5, 5, 5, 6, 7, 8, 0] * 20
    assert len(source.skipped) == 3
    demo = open_source("demo", "test")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(demo))[7]["image"], demo[7]["image"])


def test_require_labels(write_images):
    open_source("demo", "test").require_labels()
    source = open_source(f"folder:{write_images('1.png', '2.png')}", "train")
    with pytest.raises(DataError, match="no labels.*give its images two classes or more, or take another source"):
        source.require_labels()


@pytest.mark.parametrize(
    "rows",
    ['"a\n""b""\n",x\n', 'the 5" pipe,x\na,"y"\n', '"a" b,x\nc,"y"', '"a"b,x\n', '"",x\r\n"a,\r\n",y\r\n', '""""'],
)
def test_quotes_that_take_in_no_row_are_fine(rows):
    require_closed_quotes(rows, "it")


@pytest.mark.parametrize("rows", ['a,x\n"b,y\n', 'a,x\n"b,y\n"c",x\n', 'a,x\n"b,y\nsay "no",x\n', 'a,5"\n"""', 'a\n"'])
def test_quotes_that_take_in_rows_are_said(rows):
    with pytest.raises(DataError, match="it, line 2, opens a quote that is not closed"):
        require_closed_quotes(rows, "it")
