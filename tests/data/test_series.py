"""Time series from all kinds of files, and a sentence for each that cannot be used."""

import gzip
import pickle

import numpy as np
import pytest
from ml_collections import ConfigDict

from ssljax.data.series import open_long, open_series
from ssljax.data.sources import DataError
from ssljax.modalities.series import Series

HEAD = "#text\n@problemName small\n@timeStamps false\n@classLabel true a b\n@data\n"
TRAIN = HEAD + "1,2,3:4,?,6:a\n\n5,6:NaN,8:b\n7,8,?:1,2,NaN:a\n"
TEST = HEAD + "# a\u2028comment\n1,2,3,4:4,5,6,7:b\n"


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "Small_TRAIN.ts").write_text(TRAIN)
    (tmp_path / "Small_TEST.ts.gz").write_bytes(gzip.compress(TEST.encode()))
    return tmp_path


def test_demo():
    train, test = open_series("demo", "train"), open_series("demo", "test")
    assert (len(train), len(test)) == (480, 120) and train.class_names[:3] == ("eight", "five", "four")
    assert train.shapes == test.shapes == {"series": ((64, 40), np.float32), "valid": ((64,), np.bool_)}
    np.testing.assert_array_equal(np.bincount(train.labels()), 48)
    rows = [train[i] for i in range(480)]
    steps = np.concatenate([x["series"][x["valid"]] for x in rows])
    assert len(steps) == sum(x["valid"].sum() for x in rows) and min(x["valid"].sum() for x in rows) == 6
    np.testing.assert_allclose(steps.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(steps.std(axis=0), 1, atol=1e-4)


def test_ts(archive):
    """Gaps in the middle are missing, those at the end are the end; the longest of both splits says the length."""
    train, test = (open_series(f"ts:{archive}", split, scale="none") for split in ("train", "val"))
    first, second, third = (train[i] for i in range(3))
    np.testing.assert_array_equal(first["series"], [[1, 4], [2, np.nan], [3, 6], [0, 0]])
    np.testing.assert_array_equal(second["series"], [[5, np.nan], [6, 8], [0, 0], [0, 0]])
    np.testing.assert_array_equal([x["valid"].sum() for x in (first, second, third)], [3, 2, 2])
    assert train.class_names == ("a", "b") and list(train.labels()) == [0, 1, 0] and list(test.labels()) == [1]
    # Grain's worker processes are given a source so. The bytes are made here; ssljax itself loads no pickle.
    assert pickle.loads(pickle.dumps(train))[0]["valid"].sum() == 3
    np.testing.assert_array_equal(
        open_series(f"ts:{archive}", "train", scale="none", length=2)[1]["series"], [[3, 6], [0, 0]]
    )
    with pytest.raises(ValueError, match="scale=x is unknown"):
        open_series(f"ts:{archive}", "train", scale="x")
    with pytest.raises(ValueError, match="length=-1 must be"):
        open_series(f"ts:{archive}", "train", length=-1)


def test_one_file_and_targets_that_are_numbers(tmp_path):
    lines = "".join(f"{i},{i + 1}:0.5\n" for i in range(30))
    (tmp_path / "all.ts").write_text("@targetLabel true\n@data\n" + lines)
    train, test = (open_series(f"ts:{tmp_path / 'all.ts'}", split) for split in ("train", "test"))
    assert len(train) + len(test) == 30 and len(test) > 0 and not train.has_labels
    assert train.shapes["series"][0] == (2, 1)


def test_csv(tmp_path, caplog):
    rows = ["date,series,label,x,y", "mon,p,yes,1,2", "mon,q,no,5,6", "tue,p,yes,3,", "wed,r,no,,"]
    (tmp_path / "train.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "test.csv").write_text("\n".join(rows[:3]) + "\n")
    train = open_series(f"csv:{tmp_path}", "train", scale="none")
    np.testing.assert_array_equal(train[0]["series"], [[1, 2], [3, np.nan]])
    np.testing.assert_array_equal(train[1]["series"], [[5, 6], [0, 0]])
    assert train.class_names == ("no", "yes") and len(train) == 2
    assert "left out 1 series without any number" in caplog.text
    assert "columns without numbers are left out: date" in caplog.text
    assert len(train.left_out) == 2 and {*train.left_out} < {*caplog.messages}
    (tmp_path / "one.csv").write_text("x,y\n" + "1,2\n" * 20 + "3\n")
    cut = open_series(f"csv:{tmp_path / 'one.csv'}", "test", length=1)
    assert len(cut) == 2 and cut.left_out == (f"{tmp_path / 'one.csv'}: skipped 1 row with another number of fields",)


@pytest.mark.parametrize(
    "test, expected",
    [
        ("y,x\n2,1\n4,\n", [[1, 2], [np.nan, 4]]),
        ("x,y\n1,\n3,\n", [[1, np.nan], [3, np.nan]]),
        (f"x,y\n1,{2**60 + 1}\n", [[1, 2**60], [0, 0]]),
        ("x\n1\n", "test.csv' has no column of numbers 'y', and the training file has one: give both"),
        ("x,y,z\n1,2,3\n", "test.csv' has a column of numbers 'z', and the training file has none: give both"),
    ],
)
def test_channels_of_csv_are_those_of_the_training_file(test, expected, tmp_path):
    (tmp_path / "train.csv").write_text("x,y\n5,6\n7,8\n")
    (tmp_path / "test.csv").write_text(test)
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            open_series(f"csv:{tmp_path}", "test")
    else:
        np.testing.assert_array_equal(open_series(f"csv:{tmp_path}", "test", scale="none")[0]["series"], expected)


@pytest.fixture
def long(tmp_path):
    """Forty hours from one in the morning of a Friday, the 30th of January."""
    days = [f"2026-01-{30 + hour // 24} {hour % 24:02}:00:00" for hour in range(1, 41)]
    lines = [f"{day},{i},{100 - i}" for i, day in enumerate(days)]
    (tmp_path / "long.csv").write_text("\n".join(["when,x,y", *lines]) + "\n")
    return f"csv:{tmp_path / 'long.csv'}"


def test_one_long_series_is_cut_in_time(long):
    train, test = (open_series(long, s, scale="none", columns=["x"], length=10) for s in ("train", "test"))
    assert (len(train), len(test)) == (4, 1) and test[0]["series"][0, 0] == 36
    assert [x["valid"].sum() for x in (train[i] for i in range(4))] == [9, 9, 9, 9]


def test_parts_of_a_long_series_and_its_covariates(long):
    """Nothing behind the training part is trained on or changes the scale."""
    train = open_series(long, "train", parts=(10, 5, 20), time="when", length=5)
    seen = np.concatenate([train[i]["series"] for i in range(len(train))])
    assert seen.shape == (10, 9)
    np.testing.assert_allclose(seen[:, 0], (np.arange(10) - 4.5) / np.arange(10).std(), rtol=1e-5)
    whole = open_long(long, scale="none", parts=(0.25, 0.125, 0.5), time="when")
    assert whole.ends == {"train": 10, "val": 15, "test": 35} and whole.covariates == 7
    np.testing.assert_array_equal(
        whole.values[[0, 25]], [[0, 100, 0, 1, 4, 30, 30, 1, 5], [25, 75, 0, 2, 5, 31, 31, 1, 5]]
    )
    assert open_long(long).ends == {"train": 36, "test": 40}


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"parts": (30, 20)}, r"parts=\(30, 20\) must be the steps to train on"),
        ({"parts": (0.5, 0.6)}, "must be the steps to train on"),
        ({"columns": ["z"]}, "no column 'z': it has when, x, y"),
        ({"time": "x"}, "Column 'x' of .* is int64 with 0 gaps: write a date and time"),
    ],
)
def test_what_cannot_be_asked_of_a_long_series_is_said(long, fields, sentence):
    with pytest.raises(DataError, match=sentence):
        open_series(long, "train", **fields)


def test_what_is_of_long_series_alone(small_series):
    with pytest.raises(DataError, match="divides a single long series"):
        open_series(f"npz:{small_series}", "train", parts=(0.5, 0.5))
    with pytest.raises(DataError, match="columns and time are of csv:PATH"):
        open_series("demo", "train", time="date")


def test_npz(small_series, tmp_path):
    source = open_series(f"npz:{small_series}", "train")
    assert len(source) == 30 and source.shapes["series"][0] == (11, 2) and list(source.labels()[:2]) == [0, 1]
    assert np.isnan(source[0]["series"][3]).sum() == 1
    np.savez(tmp_path / "flat.npz", series=np.random.RandomState(0).rand(40, 5))
    sizes = [len(open_series(f"npz:{tmp_path / 'flat.npz'}", split)) for split in ("train", "test")]
    assert sum(sizes) == 40 and 1 <= sizes[1] <= 9


@pytest.mark.parametrize(
    "files, sentence",
    [
        ({"a_TRAIN.ts": "1,2:a\n"}, "no line '@data'"),
        ({"a_TRAIN.ts": "@timeStamps true\n@data\n"}, "has time stamps, which are not read"),
        ({"a_TRAIN.ts": HEAD + "1,2:a\n1,x:b\n"}, "Line 7 of .* holds what is no number .*'x'"),
        ({"a_TRAIN.ts": HEAD + "1,2:a\n1:2:b\n"}, "Line 7 of .* has 2 channels, where 1 are expected"),
        ({"a_TRAIN.ts": HEAD + "1,2:?\n"}, "Line 6 of .* has no class"),
        ({"a_TRAIN.ts": HEAD + "?,NaN:a\n"}, "has no series with a number"),
        ({"a_TRAIN.ts": HEAD + "1,inf:a\n"}, "Step 2 of series 1 of .*TRAIN.ts' holds infinite numbers"),
        ({"a_TRAIN.ts": HEAD + "1:a\n", "a_TEST.ts": HEAD + "1:a\n1e39:a\n"}, "Step 1 of series 2 of .*TEST.ts' holds"),
        ({"a_TRAIN.ts": HEAD + "1,2:?,?:a\n"}, "Channel 2 of .* has no number in the training split"),
        ({"a_TRAIN.ts": TRAIN, "a_TEST.ts": HEAD + "1,2:a\n"}, "have 2 in train and 1 in test channels"),
        ({"a_TRAIN.ts": TRAIN, "a_TEST.ts": HEAD + "1:2:c\n"}, "'c', which no training series has"),
        ({"a_TRAIN.ts": TRAIN, "b_TRAIN.ts": TRAIN}, "a_TRAIN.ts and b_TRAIN.ts, which are both train"),
        ({"a_TEST.ts": TEST}, "has no NAME_TRAIN.ts"),
        ({"a_TRAIN.ts.gz": "no gzip"}, "cannot be read as text"),
    ],
)
def test_what_is_wrong_with_ts_is_said(files, sentence, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=sentence):
        open_series(f"ts:{tmp_path}", "test" if "a_TEST.ts" in files else "train")


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("series,day\n1,mon\n", "has no column of numbers"),
        ("series,label,x\n1,a,2\n1,b,3\n", "Series 1 of .* has several labels or gaps"),
        ("", "cannot be read"),
        ("x\n1\nPAR1\0\n", "Line 3 of .*train.csv' is not text in UTF-8"),
        ("series,x\np,1\n,2\n,3\n", "Column 'series' of .* has 2 gaps, the first in row 2: fill them in"),
    ],
)
def test_what_is_wrong_with_csv_is_said(text, sentence, tmp_path):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(DataError, match=sentence):
        open_series(f"csv:{tmp_path}", "train")


@pytest.mark.parametrize(
    "arrays, sentence",
    [
        ({"x": np.zeros(3)}, "has x: give train_series"),
        ({"series": np.zeros(3)}, r"series of .* is \(3,\) of float64"),
        ({"series": np.zeros((3, 4)), "label": np.zeros(2)}, r"label of .* is \(2,\), but there are 3 series"),
        ({"series": np.array([["a"]])}, "give numbers"),
        ({"series": np.array([[{}]])}, "cannot be read"),
    ],
)
def test_what_is_wrong_with_npz_is_said(arrays, sentence, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=sentence):
        open_series(f"npz:{tmp_path / 'a.npz'}", "train")


def test_an_encoder_is_given_gaps_but_nothing_infinite():
    series = Series(ConfigDict({"data": {"mean": (1.0,), "std": (2.0,)}}))
    np.testing.assert_array_equal(series.as_batch([[5.0, np.nan]])["series"], [[[2.0], [np.nan]]])
    with pytest.raises(ValueError, match="series must be finite, or NaN where there is no number"):
        series.as_batch([[5.0], [1.0, np.inf]])


def test_nothing_there():
    with pytest.raises(DataError, match="There is no data source 'folder:x': write one of demo, ts:PATH"):
        open_series("folder:x", "train")
    for kind in ("ts", "csv", "npz"):
        with pytest.raises(DataError, match="There is no file 'missing'"):
            open_series(f"{kind}:missing", "train")
    with pytest.raises(DataError, match="no split 'extra'"):
        open_series("demo", "extra")
