"""TFDS sources, on a small dataset that is prepared, in array_record format and without TensorFlow, by the test."""

import io
import pickle
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ssljax.data import DataError, eval_batches, open_source, train_batches
from ssljax.data.images import image_shapes
from ssljax.data.tfds_source import _tfds_name


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    """Grey images of 6 x 7; file objects, not arrays, so that TFDS needs no TensorFlow to write them."""

    VERSION = tfds.core.Version("1.0.0")
    # Without it TFDS looks for a list of checksums beside this file, which needs a package it doesn't require.
    code_path = None

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(6, 7, 1)),
            "label": tfds.features.ClassLabel(names=["circle", "square"]),
            "note": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(12), "validation": self._generate_examples(4)}

    def _generate_examples(self, n):
        for i in range(n):
            file = io.BytesIO()
            Image.fromarray(np.full((6, 7), i * 10, np.uint8)).save(file, "PNG")
            file.seek(0)
            yield i, {"image": file, "label": i % 2, "note": "unused"}


@pytest.fixture(autouse=True, scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    TinyShapes(data_dir=path, file_format="array_record").download_and_prepare()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(path))
        yield path


def test_reads_without_tensorflow():
    source = open_source("tfds:tiny_shapes", "train")
    assert len(source) == 12 and source.shapes == image_shapes(6, 7) and source.class_names == ("circle", "square")
    example = source[0]
    assert example["image"].shape == (6, 7, 3) and example["image"].dtype == np.uint8
    assert example["label"].dtype == np.int32
    assert sorted(int(source[i]["image"][0, 0, 0]) for i in range(12)) == list(range(0, 120, 10))
    assert all(int(e["label"]) == int(e["image"][0, 0, 0]) // 10 % 2 for e in map(source.__getitem__, range(12)))
    # As Grain's worker processes are given it; the bytes are made here.
    assert pickle.loads(pickle.dumps(source))[3]["label"] == source[3]["label"]
    assert next(train_batches(source, batch_size=5, seed=0))["image"].shape == (5, 6, 7, 3)
    assert sum(batch["mask"].sum() for batch in eval_batches(source, 5)) == 12
    assert "tensorflow" not in sys.modules


def test_splits():
    assert len(open_source("tfds:tiny_shapes:1.0.0", "test")) == 4
    assert len(open_source("tfds:tiny_shapes", "train[:50%]")) == 6
    with pytest.raises(DataError, match="no split 'extra': choose one of train, validation"):
        open_source("tfds:tiny_shapes", "extra")
    with pytest.raises(DataError, match="no split 'train"):
        open_source("tfds:tiny_shapes", "train[half]")


def test_unknown_dataset(data_dir):
    with pytest.raises(DataError, match="can't open 'no_such_set'.*TFDS_DATA_DIR"):
        open_source("tfds:no_such_set", "train")


def test_unprepared_dataset_says_how_to_prepare_it():
    with pytest.raises(DataError) as error:
        open_source("tfds:cifar10", "train")
    message = str(error.value)
    assert "pip install tensorflow-cpu" in message and "separate environment" in message
    assert "tfds.builder('cifar10', file_format='array_record').download_and_prepare()" in message


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("a", "a"), ("a:b", "a/b"), ("a:1.2.3", "a:1.2.3"), ("a:b:1.2.3", "a/b:1.2.3"), ("a/b", "a/b")],
)
def test_spelling(ours, theirs):
    assert _tfds_name(ours) == theirs
