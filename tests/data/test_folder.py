"""Folders: which files are found, which split and which class they belong to."""

import logging
import unicodedata

import pytest

from ssljax.data import DataError, open_source


def shown(source) -> list[int]:
    """Which images, by the order in which they were written, the source has."""
    return [int(source[i]["image"][0, 0, 0]) for i in range(len(source))]


def labels(source) -> list[int]:
    return [int(source[i]["label"]) for i in range(len(source))]


def test_missing_folder_and_folder_without_images(tmp_path):
    with pytest.raises(DataError, match="no folder .*nowhere"):
        open_source(f"folder:{tmp_path}/nowhere", "train")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match=r"holds no images.*\.jpg"):
        open_source(f"folder:{tmp_path}", "train")


def test_split_folders_with_classes(write_images):
    root = write_images("train/dog/1.png", "train/cat/deep/er/2.JPG", "train/cat/3.webp", "Valid/dog/4.bmp")
    train = open_source(f"folder:{root}", "train")
    assert train.class_names == ("cat", "dog") and labels(train) == [0, 0, 1]
    assert train.shapes is None and len(train) == 3
    for split in ("test", "val", "valid", "validation"):
        test = open_source(f"folder:{root}", split)
        assert shown(test) == [3]
        assert labels(test) == [1], "the label is that of the whole folder, though this split has no cat"
    with pytest.raises(DataError, match="no split 'extra': choose one of train, valid"):
        open_source(f"folder:{root}", "extra")


def test_missing_split_names_those_there_are(write_images):
    root = write_images("test/a/1.png", "test/b/2.png")
    with pytest.raises(DataError, match="no split 'train': choose one of test"):
        open_source(f"folder:{root}", "train")


def test_class_named_train_is_no_split(write_images):
    root = write_images(*[f"{kind}/{i}.png" for kind in ("bus", "car", "train") for i in range(4)])
    assert open_source(f"folder:{root}", "test").class_names == ("bus", "car", "train")


def test_what_is_beside_split_folders_is_no_class(write_images):
    root = write_images("train/a/1.png", "train/b/2.png", "test/a/3.png", "extra/c/4.png", "cover.png")
    train = open_source(f"folder:{root}", "train")
    assert train.class_names == ("a", "b") and shown(train) == [0, 1]


def test_images_without_classes_have_no_labels(write_images):
    root = write_images(*[f"{i}.png" for i in range(5)])
    train, test = (open_source(f"folder:{root}", split) for split in ("train", "test"))
    assert not train.has_labels and train.class_names is None and "label" not in train[0]
    assert len(train) == 4 and sorted(shown(train) + shown(test)) == list(range(5))


def test_one_class_is_no_class(write_images):
    assert not open_source(f"folder:{write_images('images/1.png', 'images/2.png')}", "train").has_labels


def test_single_image_can_be_trained_on_but_not_tested(write_images):
    root = write_images("1.png")
    assert len(open_source(f"folder:{root}", "train")) == 1
    with pytest.raises(DataError, match="no split 'test'"):
        open_source(f"folder:{root}", "test")


def test_images_beside_class_folders_take_the_labels_away(write_images, caplog):
    root = write_images("train/a/1.png", "train/b/2.png", "test/a/3.png", "train/stray.png")
    with caplog.at_level(logging.WARNING):
        train = open_source(f"folder:{root}", "train")
    assert not train.has_labels and len(train) == 3
    assert "stray.png" in caplog.text
    assert open_source(f"folder:{root}", "test").has_labels


def test_hidden_files_and_mac_leftovers_are_ignored(write_images):
    root = write_images("train/1.png", "train/._1.png", ".cache/train/2.png", "__MACOSX/train/3.png", "train/.t/4.png")
    assert shown(open_source(f"folder:{root}", "train")) == [0]


def test_links_are_followed_but_not_round_in_circles(write_images, tmp_path):
    root = write_images("train/a/1.png", "train/b/2.png")
    (root / "train/c").symlink_to(root / "train/a", target_is_directory=True)
    (root / "train/b/up").symlink_to(root, target_is_directory=True)
    assert shown(open_source(f"folder:{root}", "train")) == [0, 1, 0]


def test_order_does_not_depend_on_how_accents_are_stored(write_images):
    decomposed, composed = unicodedata.normalize("NFD", "é.png"), unicodedata.normalize("NFC", "ê.png")
    root = write_images(f"train/{decomposed}", f"train/{composed}", "train/z.png")
    assert shown(open_source(f"folder:{root}", "train")) == [2, 0, 1]
