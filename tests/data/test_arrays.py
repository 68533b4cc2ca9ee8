"""Arrays in .npz files: keys, shapes, types, labels, and what is refused."""

import numpy as np
import pytest

from ssljax.data import DataError, open_source
from ssljax.data.images import image_shapes

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(20) % 4


@pytest.fixture
def open_npz(tmp_path):
    """Saves arrays and opens the file they are in."""

    def save_and_open(split="train", **arrays):
        np.savez(tmp_path / "a.npz", **arrays)
        return open_source(f"npz:{tmp_path / 'a.npz'}", split)

    return save_and_open


@pytest.mark.parametrize(
    ("image", "label"), [("{}_image", "{}_label"), ("{}_images", "{}_labels"), ("x_{}", "y_{}")], ids=lambda key: key
)
def test_keys_of_splits(open_npz, image, label):
    arrays = {image.format("train"): IMAGES, label.format("train"): LABELS, image.format("test"): IMAGES[:3]}
    train = open_npz("train", **arrays)
    assert len(train) == 20 and train.shapes == image_shapes(6, 5)
    np.testing.assert_array_equal(train[7]["image"], IMAGES[7])
    assert train[7]["label"] == 3 and train[7]["label"].dtype == np.int32
    test = open_npz("val", **arrays)
    assert len(test) == 3 and not test.has_labels and "label" not in test[0]


@pytest.mark.parametrize("plural", ["", "s"])
def test_unsplit_arrays_are_split_by_index(open_npz, plural):
    arrays = {"image" + plural: IMAGES, "label" + plural: LABELS}
    train, test = open_npz("train", **arrays), open_npz("test", **arrays)
    assert len(train) + len(test) == 20 and len(test) >= 1
    together = np.stack([source[i]["image"] for source in (train, test) for i in range(len(source))])
    assert len(np.unique(together.reshape(20, -1), axis=0)) == 20
    for source in (train, test):
        position = np.flatnonzero((IMAGES == source[0]["image"]).all((1, 2, 3)))[0]
        assert source[0]["label"] == LABELS[position]


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (IMAGES[..., 0], IMAGES[..., :1].repeat(3, -1)),
        (IMAGES[..., :1], IMAGES[..., :1].repeat(3, -1)),
        (np.concatenate([IMAGES, np.full((20, 6, 5, 1), 255, np.uint8)], -1), IMAGES),
        (np.concatenate([IMAGES, np.zeros((20, 6, 5, 1), np.uint8)], -1), np.full_like(IMAGES, 255)),
        (IMAGES / np.float32(255), IMAGES),
        (IMAGES.astype(np.uint16) * 257, IMAGES),
    ],
    ids=["n,h,w", "n,h,w,1", "opaque", "transparent", "float", "uint16"],
)
def test_shapes_and_types(open_npz, images, expected):
    source = open_npz(train_image=images)
    np.testing.assert_array_equal(np.stack([source[i]["image"] for i in range(20)]), expected)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64])
def test_integer_labels_of_any_type(open_npz, dtype):
    source = open_npz(x_train=IMAGES, y_train=LABELS.astype(dtype)[:, None])
    assert source[5]["label"] == 1 and source[5]["label"].dtype == np.int32 and source.class_names is None


@pytest.mark.parametrize("dtype", ["U", "S"])
def test_string_labels_agree_between_splits(open_npz, dtype):
    train_names, test_names = np.array(["dog", "ant"] * 10, dtype), np.array(["dog", "bee"], dtype)
    arrays = {"x_train": IMAGES, "y_train": train_names, "x_test": IMAGES[:2], "y_test": test_names}
    train, test = open_npz("train", **arrays), open_npz("test", **arrays)
    assert train.class_names == test.class_names == ("ant", "bee", "dog")
    assert [int(train[i]["label"]) for i in range(2)] == [2, 0]
    assert [int(test[i]["label"]) for i in range(2)] == [2, 1]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": IMAGES}, "it has pictures, and needs train_image"),
        ({}, "no arrays"),
        ({"x_test": IMAGES}, "no split 'train': choose one of test"),
        ({"x_train": IMAGES.transpose(0, 3, 1, 2)}, "channels first.*transpose"),
        ({"x_train": IMAGES[0, 0]}, r"\(5, 3\): give \(n, h, w\)"),
        ({"x_train": IMAGES[:0]}, "not empty"),
        ({"x_train": IMAGES[..., :2]}, r"give \(n, h, w\)"),
        ({"x_train": IMAGES.astype(np.int64)}, "int64: store uint8"),
        ({"x_train": IMAGES.astype(np.float32)}, r"from 0 to 255: scale floats to \[0, 1\]"),
        ({"x_train": np.where(IMAGES > 9, np.nan, 0.5)}, "scale floats"),
        ({"x_train": IMAGES, "y_train": LABELS[:7]}, r"20 images but labels of shape \(7,\)"),
        ({"x_train": IMAGES, "y_train": LABELS / 2}, "labels .* float64: give whole numbers or strings"),
        ({"x_train": IMAGES, "y_train": LABELS.astype(object)}, "pickled objects are never loaded"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(open_npz, arrays, message):
    with pytest.raises(DataError, match=message):
        open_npz(**arrays)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(DataError, match="no file"):
        open_source(f"npz:{tmp_path}/a.npz", "train")
    np.save(tmp_path / "a.npy", IMAGES)
    with pytest.raises(DataError, match="single array"):
        open_source(f"npz:{tmp_path}/a.npy", "train")
    np.savez(tmp_path / "a.npz", x_train=IMAGES)
    whole = (tmp_path / "a.npz").read_bytes()
    for damaged in (b"", b"text", whole[:500], b"PK\x03\x04"):
        (tmp_path / "a.npz").write_bytes(damaged)
        with pytest.raises(DataError, match="not an .npz archive"):
            open_source(f"npz:{tmp_path}/a.npz", "train")
