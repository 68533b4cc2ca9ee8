"""Tables of captions beside images: what is read, what is left out and said, what is refused."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

from ssljax.data.canvas import OnCanvas
from ssljax.data.captions import all_captions, caption_shapes, open_captions
from ssljax.data.pipeline import eval_batches, train_dataset
from ssljax.data.sources import DataError
from ssljax.data.subset import Subset
from ssljax.data.tokens import CLS, PAD, SEP, Bytes

BYTES, LENGTH = Bytes(), 12


@pytest.fixture
def folder(tmp_path):
    """Thirty images of 6 x 8 pixels in two sub-folders; `folder(table, text)` writes a table beside them."""
    for i in range(30):
        path = tmp_path / f"{'ab'[i % 2]}" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((6, 8, 3), i, np.uint8)).save(path)

    def write(table: str, text: str) -> str:
        (tmp_path / table).write_text(text)
        return f"folder:{tmp_path}"

    return write


def rows(labels: bool = False) -> str:
    lines = [f"{'ab'[i % 2]}/{i}.png,picture {i}{',' + 'xy'[i % 2] if labels else ''}" for i in range(30)]
    return "\n".join(["file_name,caption" + labels * ",label", *lines])


def opened(spec: str, split: str = "train", length: int = LENGTH):
    return open_captions(spec, split, tokenizer=BYTES, length=length)


def read(ids) -> list[str]:
    return [BYTES.decode(row) for row in ids if row[0] != PAD]


def test_a_csv_with_several_captions_and_classes(folder):
    spec = folder("captions.csv", rows(labels=True) + '\na/0.png,"a second, longer than fits",x\n')
    train, test = opened(spec), opened(spec, "test")
    assert len(train) + len(test) == 30 and train.class_names == test.class_names == ("x", "y")
    assert sorted({*all_captions(spec, "train"), *all_captions(spec, "test")})[0] == "a second, longer than fits"
    for source in (train, test):
        for i in range(len(source)):
            example = source[i]
            number = int(example["image"][0, 0, 0])
            captions = read(example["captions"])
            assert source.text(i).startswith(f"picture {number}")
            assert captions[0] == f"picture {number}" and example["label"] == number % 2
            assert example["captions"].shape == (2, LENGTH) and len(captions) == 1 + (number == 0)
            row = example["captions"][0]
            end = 1 + len(captions[0])
            assert row[0] == CLS and row[end] == SEP and (row[end + 1 :] == PAD).all()
            if number == 0:  # it ends with its end, wherever it is cut
                assert example["captions"][1, -1] == SEP and captions[1] == "a second, l"[: LENGTH - 2]
    assert train.shapes is None and train.drawn == caption_shapes(1, LENGTH)


def test_json_lines_with_lists_and_splits(folder):
    lines = [
        {
            "image": f"./{'ab'[i % 2]}/{i}.png",
            "text": [f"1\u2028{i}", f"two {i}"],
            "split": "test" if i < 4 else "train",
        }
        for i in range(30)
    ]
    bare = {"image": "a/0.png"}  # the first row does not say which columns there are
    spec = folder("metadata.jsonl", "\n\n".join(json.dumps(line, ensure_ascii=False) for line in (bare, *lines)))
    train, test = opened(spec), opened(spec, "val")
    assert (len(train), len(test)) == (26, 4) and not train.has_labels
    assert read(test[0]["captions"]) == ["1\u20280", "two 0"]


def test_a_caption_is_drawn_anew_by_the_seed_and_the_step_alone(folder):
    lines = [json.dumps({"file": f"{'ab'[i % 2]}/{i}.png", "captions": [f"{w} {i}" for w in "pqr"]}) for i in range(30)]
    source = OnCanvas(opened(folder("captions.jsonl", "\n".join(lines))), 6, caption_shapes(3, LENGTH))
    batches = [train_dataset(source, batch_size=8, seed=1)[i] for i in range(12)]
    again = train_dataset(Subset(source, 100), batch_size=8, seed=1, rows=np.arange(4, 8))
    seen: dict[int, set[str]] = {}
    for batch in batches:
        assert batch["captions"].shape == (8, 1, LENGTH) and set(batch) == {"image", "size", "captions", "index"}
        for image, ids in zip(batch["image"], batch["captions"], strict=True):
            number = int(image[0, 0, 0])
            (text,) = read(ids)
            assert text.split()[1] == str(number)
            seen.setdefault(number, set()).add(text[0])
    assert max(map(len, seen.values())) == 3
    assert again[0]["captions"].shape == (4, 1, LENGTH)
    whole = train_dataset(source, batch_size=8, seed=1, rows=np.arange(4, 8))[3]
    np.testing.assert_array_equal(whole["captions"], batches[3]["captions"][4:])
    (batch, *_) = eval_batches(source, 32)
    assert batch["captions"].shape == (32, 3, LENGTH)
    assert batch["mask"].sum() == len(source) and not batch["captions"][~batch["mask"]].any()


def test_what_is_left_out_is_counted_and_named(folder, caplog):
    text = "\n".join(rows().splitlines()[:-2]) + "\nb/gone.png,nowhere\na/0.png,\n,nothing\n"
    text += "a/28.png,a dog, running\n" + "a/0.png,trailing commas,,\n"
    with caplog.at_level(logging.WARNING):
        spec = folder("captions.csv", text)
        train, test = opened(spec), opened(spec, "test")
    assert len(train) + len(test) == 28
    assert train.left_out == test.left_out == tuple(caplog.messages)  # which has each once
    said = " ".join(caplog.messages)
    for sentence in (
        "left out 2 images without a caption (a/28.png, b/29.png)",
        "left out 1 image that the table names and the folder has not (b/gone.png)",
        "left out 2 rows without image or text (row 31, row 32)",
        "left out 1 row with more fields than the first line (put captions with commas in quotes) (row 33)",
    ):
        assert sentence in said
    caplog.clear()
    folder("captions.csv", rows(labels=True).replace("picture 3,y", "picture 3,"))
    assert not opened(spec).has_labels and "no labels, since 1 images" in " ".join(caplog.messages)


@pytest.mark.parametrize(
    "table, text, sentence",
    [
        ("other.csv", "", "has no table of captions: it needs one of captions.csv, captions.jsonl"),
        ("captions.csv", "", "has no captions: give it a row for each"),
        ("captions.csv", "name,caption\na/0.png,x", "has columns name, caption, and none of file_name, image"),
        ("captions.csv", "file_name,words\na/0.png,x", "and none of caption, captions, text: name the one"),
        ("captions.csv", "file_name,caption\n0.png,x", "No image of .* has a caption: .* the first '0.png'; give"),
        ("captions.csv", "image,text,label\na/0.png,x,u\na/0.png,y,v", "row 3: 'a/0.png' has two labels, 'u' and 'v'"),
        ("captions.csv", "image,text,split\na/0.png,x,train\nb/1.png,y,", "1 images of .* 'b/1.png', have no split"),
        ("captions.csv", "image,text,split\na/0.png,x,test", "has no split 'train': choose one of test"),
        ("captions.csv", "image,text\na/0.png," + "x" * 140_000, "row 2, cannot be read .*: shorten it"),
        ("captions.csv", 'image,text\na/0.png,"' + "x\n" * 140_000, "captions.csv, line 2, opens a quote that is not"),
        ("captions.csv", 'image,text\na/0.png,"a dog\nb/1.png,a "big" cat\n', "captions.csv, line 2, opens a quote"),
        ("captions.jsonl", '{"image": "a/0.png"', "line 1, is no JSON"),
        ("captions.jsonl", '{"image": "a/0.png"}\n{"image": "b/1.png"}', "has columns image, and none of caption"),
        (
            "captions.jsonl",
            '{"image": "a/0.png", "text": "x"}\n{"image": "b/1.png", "text": "y", "split": "test"}',
            "1 images of .* 'a/0.png', have no split",
        ),
        ("captions.jsonl", "[1]", "line 1, is no object"),
    ],
)
def test_errors(folder, table, text, sentence):
    with pytest.raises(DataError, match=sentence):
        opened(folder(table, text))


def test_more_errors(folder, tmp_path):
    spec = folder("captions.csv", rows())
    with pytest.raises(ValueError, match="length=2 must be at least 3"):
        opened(spec, length=2)
    (tmp_path / "metadata.csv").write_text(rows())
    with pytest.raises(DataError, match="has captions.csv and metadata.csv, of which one must go"):
        opened(spec)
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "captions.csv").write_bytes("file_name,caption\na/0.png,caf\xe9".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8"):
        opened(spec)
    with pytest.raises(DataError, match="There is no folder"):
        opened("folder:missing")
    with pytest.raises(DataError, match="no data source 'npz:x': write one of demo, folder:PATH"):
        opened("npz:x")


def test_the_demo():
    train, test = opened("demo", length=40), opened("demo", "test", length=40)
    assert (len(train), len(test)) == (3052, 380) and len(train.class_names) == 9 and train.shapes == test.shapes
    place = [captions[0] for captions in test.captions].index("cactus")
    example = test[place]
    assert read(example["captions"]) == ["cactus", "cactus, plant other, animals & nature"]
    assert test.class_names[example["label"]] == "animals & nature"
    red, green, blue = example["image"].reshape(-1, 3).astype(int).T
    assert (green > red + 40).mean() > 0.1 and (green > blue + 40).mean() > 0.1
