"""Tables from files to batches: what columns are is learnt from the training rows; what is wrong is said."""

import datetime
import gzip
import logging
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from ssljax.data import DataError, eval_batches, train_dataset
from ssljax.data.schema import Schema
from ssljax.data.subset import Share
from ssljax.data.tables import open_table

CSV = """age,work, colour,weight,paid
30, state,red,1.5,yes
50,private,?,2.5,no
40,state, red ,,yes
60,NA,blue,3.5,no
"""


@pytest.fixture
def table(tmp_path):
    """`table(text, test=None)`: a folder with train.csv, and maybe test.csv, as a source is spelt."""

    def write(text, test=None):
        for name, rows in (("train", text), ("test", test)):
            if rows is not None:
                (tmp_path / f"{name}.csv").write_text(rows)
        return f"csv:{tmp_path}"

    return write


def values(source):
    return np.stack([source[i]["values"] for i in range(len(source))])


def test_numbers_are_standardised_and_categories_numbered_and_gaps_marked(table):
    source = open_table(table(CSV), "train")
    assert source.schema.names == ("age", "work", " colour", "weight", "weight is missing")
    assert source.schema.cardinalities == (0, 3, 3, 0, 3)
    z = (np.array([30, 50, 40, 60]) - 45) / np.std([30, 50, 40, 60])
    weight = np.array([1.5, 2.5, 2.5, 3.5])  # a gap is the mean, which is 0
    expected = [z, [2, 1, 2, 0], [2, 0, 2, 1], (weight - 2.5) / np.std([1.5, 2.5, 3.5]), [1, 1, 2, 1]]
    np.testing.assert_allclose(values(source), np.stack(expected, axis=1), rtol=1e-6)
    assert source.class_names == ("no", "yes") and source.labels().tolist() == [1, 0, 1, 0]
    assert source.shapes == {"values": ((5,), np.float32)} and len(source) == 4


def test_other_rows_are_measured_by_the_training_rows(table, caplog):
    spec = table(CSV, "age,work, colour,weight,paid\n45,nobody,blue,9.5,no\n")
    (row,) = values(open_table(spec, "test"))
    assert row[:3].tolist() == [0.0, 0.0, 1.0] and row[4] == 1
    np.testing.assert_allclose(row[3], 7 / np.std([1.5, 2.5, 3.5]), rtol=1e-6)
    assert "column 'work' has 1 values, the first 'nobody', that no training row has" in caplog.text
    # Codes that could be numbers here, but not in the training rows, and a column of numbers without any.
    spec = table("code,size,y\n01,1,a\n02,3,b\nx,5,a\n", "code,size,y\n01,,a\n02,,b\n")
    assert values(open_table(spec, "test")).tolist() == [[1, 0], [2, 0]]


def test_scales_labels_and_columns_that_are_ignored(table):
    spec = table(CSV)
    scaled = values(open_table(spec, "train", scale="minmax"))
    np.testing.assert_allclose(scaled[:, 0], [0, 2 / 3, 1 / 3, 1], rtol=1e-6)
    source = open_table(spec, "train", label="age", ignore=("paid", "weight"))
    assert source.schema.names == ("work", " colour") and source.class_names == ("30", "40", "50", "60")
    unlabelled = open_table(table(CSV), "train", label="none")
    assert not unlabelled.has_labels and "paid" in unlabelled.schema.names
    with pytest.raises(ValueError, match="scale=log is unknown; use standard or minmax"):
        open_table(spec, "train", scale="log")


def test_a_schema_comes_back_from_its_text(table):
    schema = open_table(table(CSV), "train").schema
    assert Schema.from_json(schema.to_json()) == schema


def test_csv_gz_parquet_and_one_file_are_the_same(table, tmp_path):
    whole = open_table(table(CSV), "train")
    (tmp_path / "gz").mkdir()
    (tmp_path / "gz" / "train.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    np.testing.assert_array_equal(values(whole), values(open_table(f"csv:{tmp_path / 'gz'}", "train")))
    pa.parquet.write_table(pa.csv.read_csv(tmp_path / "train.csv"), tmp_path / "one.parquet")
    parts = [open_table(f"parquet:{tmp_path / 'one.parquet'}", split) for split in ("train", "test")]
    assert sum(map(len, parts)) == 4 and len(parts[1]) == 1


def test_the_demo():
    train, test = (open_table("demo", split) for split in ("train", "test"))
    assert len(train) == 8000 and len(test) == 2000 and train.schema == test.schema
    assert train.schema.cardinalities[1] == 9 and len(train.schema.columns) == 14
    assert 0.7 < (train.labels() == 0).mean() < 0.8


def test_donors_follow_each_columns_distribution_and_depend_on_step_and_place_alone(table):
    source = open_table("demo", "train")
    batches = train_dataset(source, batch_size=64, seed=1)
    assert set(batches[0]) == {"values", "donors", "index"}
    np.testing.assert_array_equal(batches[5]["donors"], train_dataset(source, batch_size=64, seed=1)[5]["donors"])
    parts = [train_dataset(source, batch_size=64, seed=1, rows=rows)[5] for rows in np.arange(64).reshape(2, 32)]
    np.testing.assert_array_equal(np.concatenate([part["donors"] for part in parts]), batches[5]["donors"])
    donors = np.concatenate([batches[i]["donors"] for i in range(60)])
    for column in (1, 9):
        drawn, all_rows = (np.bincount(x[:, column].astype(int)) / len(x) for x in (donors, values(source)))
        np.testing.assert_allclose(drawn, all_rows, atol=0.03)
    assert abs(donors[:, 0].mean()) < 0.06 and abs(donors[:, 0].std() - 1) < 0.06
    # Columns are drawn by themselves: age and hours go together in rows, and not in donors.
    assert abs(np.corrcoef(donors[:, 3], values(source)[: len(donors), 4])[0, 1]) < 0.05
    # A share of the labels does not make the table smaller.
    share = train_dataset(Share(source, 0.001), batch_size=64, seed=1, labels=True)[0]
    assert len(np.unique(share["index"])) == 8 and len(np.unique(share["donors"][:, 0])) > 20
    assert "donors" not in next(eval_batches(source, 8))


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "cannot be read as csv"),
        ("a,b\n", "has no rows"),
        ("a;b\n1,5;x\n2,5;y\n", "Every row of .* another number of fields than its first line: separate them with"),
        ("a;b\n1;x\n2;y\n", "has one column, 'a;b': separate its fields with commas"),
        ("a,b\n1,x\n2,\n", "have gaps"),
        ('a,b\n1,x\n"2,y\n3,x\n', "train.csv', line 3, opens a quote that is not closed"),
        ("b\nx\ny\n", "has no columns besides the label 'b'"),
        ("a,b\ninf,x\n1,y\n", "Column 'a' of .* holds infinite numbers"),
        ("a,a,b\n1,2,x\n", "has 2 columns 'a': give each a name of its own"),
        ("a,b\n" + "".join(f"1,{i}.5\n" for i in range(30)), "'b' of .* holds 30 different numbers, not all whole"),
        ("a,b\n1,2020-01-01\n", "'b' of .* holds dates, which are no classes: name the column of the labels"),
    ],
)
def test_tables_that_cannot_be_used_are_explained(text, sentence, table):
    with pytest.raises(DataError, match=sentence):
        open_table(table(text), "train")


@pytest.mark.parametrize("text", ["a,b\n1,2\ncaf\xe9\n".encode("latin-1"), b"a,b\n1,2\nPAR1\x00\x15"])
def test_what_is_not_text_in_utf_8_is_said_in_one_sentence(text, tmp_path, monkeypatch):
    unraisable = []  # which Python would print before the sentence
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    for name, contents in (("train.csv", text), ("train.csv.gz", gzip.compress(text))):
        (tmp_path / name).write_bytes(contents)
        with pytest.raises(DataError, match=f"Line 3 of .*{name}' is not text in UTF-8: convert the file"):
            open_table(f"csv:{tmp_path / name}", "train")
    assert not unraisable
    (tmp_path / "train.csv").write_bytes("a,b\n1,2\n".encode("utf-16"))
    with pytest.raises(DataError, match="Line 1 of .*train.csv' is not text in UTF-8"):
        open_table(f"csv:{tmp_path}", "train")
    (tmp_path / "train.csv.gz").write_bytes(text)
    with pytest.raises(DataError, match="train.csv.gz' cannot be read as csv"):
        open_table(f"csv:{tmp_path / 'train.csv.gz'}", "train")


def test_too_many_categories(table):
    rows = "\n".join(f"id{i},{i % 2}" for i in range(1500))
    with pytest.raises(DataError, match="1500 different texts: .*--config.data.ignore=name"):
        open_table(f"{table(f'name,b{chr(10)}{rows}{chr(10)}')}", "train")


def test_line_breaks_in_quotes_part_no_row(table, caplog):
    text = "x\n" * 300_000  # so that a block, of 1 MB, ends among them
    assert len(open_table(table(f'a,b\n1,"{text}"\n2,"{text}"\n3,5" x\n', None), "train", label="a")) == 3
    assert not caplog.messages


def test_a_column_of_nothing_and_rows_of_another_length_are_left_out_and_said(table, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="ssljax"):
        source = open_table(table("a,b,c\n1,,x\n2,?,y\n3,4\n5,NaN,x\n"), "train")
    assert source.schema.names == ("a",) and len(source) == 3
    assert "skipped 1 row with another number of fields" in caplog.text
    assert len(source.left_out) == 1 and source.left_out[0] in caplog.messages
    assert "column 'b' has no values in the training rows, and is left out" in caplog.text
    columns = {"a": [1.0, 2.0], "b": [np.nan] * 2, "c": ["x", "y"]}  # a parquet file's NaN is not its null
    pa.parquet.write_table(pa.table(columns), tmp_path / "train.parquet")
    assert open_table(f"parquet:{tmp_path}", "train", scale="minmax").schema.names == ("a",)


def test_large_integers_and_dates_are_numbers(table, tmp_path):
    """A date is the same number as the moment at which it begins."""
    train = "id,day,y\n1000000000000000000,2020-01-01,a\n3000000000000000001,2020-01-03,b\n"
    spec = table(train, "id,day,y\n2000000000000000001,2020-01-04 12:00:00,b\n1,,a\n")
    np.testing.assert_allclose(values(open_table(spec, "train")), [[-1, -1], [1, 1]])
    np.testing.assert_allclose(values(open_table(spec, "test")), [[0, 2.5], [-2, 0]])
    with pytest.raises(DataError, match="'day' of .* holds numbers, but dates in the training rows"):
        open_table(table(train, "id,day,y\n2,2020,b\n"), "test")
    columns = {"time": [datetime.time(1), datetime.time(3)], "taken": [datetime.timedelta(days=i) for i in (1, 2)]}
    pa.parquet.write_table(pa.table(columns | {"y": ["a", "b"]}), tmp_path / "train.parquet")
    source = open_table(f"parquet:{tmp_path}", "train")
    assert values(source).tolist() == [[-1, -1], [1, 1]] and source.schema.columns[0].zero == 7200


@pytest.mark.parametrize(
    "column", [[{"q": 1}] * 2, [[1], [2]], [b"x", b"y"], pa.array([b"x", b"y"], pa.large_binary())]
)
def test_columns_that_are_neither_numbers_nor_text_are_said(column, tmp_path):
    pa.parquet.write_table(pa.table({"a": [1, 2], "c": column, "y": ["p", "q"]}), tmp_path / "train.parquet")
    spec = f"parquet:{tmp_path}"
    with pytest.raises(DataError, match="'c' of .* holds values of type .*: write .*--config.data.ignore=c"):
        open_table(spec, "train")
    with pytest.raises(DataError, match="'c' of .* holds values of type .*, which are no classes"):
        open_table(spec, "train", label="c")
    schema = open_table(spec, "train", ignore=("c",)).schema
    assert schema.names == ("a",)
    with pytest.raises(DataError, match="'a' of the input holds values of type .*, but numbers in the training rows"):
        schema.values(pa.table({"a": column}), "the input")


def test_labels_that_are_nan_are_gaps(tmp_path):
    for split, labels in (("test", [np.nan, np.nan, 1.0]), ("train", [1.0, 0.0, 1.0])):
        pa.parquet.write_table(pa.table({"a": [1, 2, 3], "y": labels}), tmp_path / f"{split}.parquet")
    for place, split in (("", "test"), ("/test.parquet", "train")):
        with pytest.raises(DataError, match="The labels of .*, column 'y', have gaps"):
            open_table(f"parquet:{tmp_path}{place}", split)


def test_one_class_alone_is_said_and_marks_in_steps_are_classes(table, caplog):
    source = open_table(table("a,y\n1,1.5\n2,1\n"), "train")
    assert source.class_names == ("1.0", "1.5") and not caplog.messages
    assert open_table(table("a,y\n1,p\n2,p\n"), "train").class_names == ("p",)
    assert "all rows are of one class, 'p' in column 'y'" in caplog.text


@pytest.mark.parametrize("train, test", [("01", ("0.0", "1.0")), (("0.0", "1.0"), "01"), (("1", "1.5"), "11")])
def test_whole_numbers_are_the_same_classes_however_they_are_written(train, test, table):
    files = ("a,y\n" + "".join(f"1,{label}\n" for label in labels) for labels in (train, test))
    source = open_table(table(*files), "test")
    assert source.labels().tolist() == [0, int(test != "11")] and len(source.class_names) == 2


def test_a_word_among_numbers_is_said(table, caplog):
    rows = "".join(f"{'oops' if i == 5 else i},{'one' if i % 4 else i},{i % 2}\n" for i in range(40))
    assert open_table(table("a,b,y\n" + rows), "train").schema.cardinalities == (41, 12)
    (told,) = caplog.messages
    assert "column 'a' is taken for a category, since 1 of its 40 values are no numbers, the first 'oops'" in told


def test_splits_that_do_not_fit_are_said(table, tmp_path):
    with pytest.raises(DataError, match="has no column 'work': it has age, paid"):
        open_table(table(CSV, "age,paid\n1,no\n"), "test")


@pytest.mark.parametrize(
    "test, sentence",
    [
        ("age,work, colour,weight,paid\n45,state,red,1,perhaps\n", "hold 'perhaps', which no training row has"),
        ("age,work, colour,weight,paid\n9,state,red,inf,no\n", "'weight' of .* holds infinite numbers"),
        ("age,work, colour,weight,paid\n1e300,state,red,1,no\n", "'age' of .* too large: correct them"),
        ("age,work, colour,weight\n9,state,red,1\n", "has no column 'paid'"),
        ("age,work, colour,weight,paid\nold,state,red,1,no\n", "'age' of .* holds text, but numbers in the training"),
        ("age,work, colour,weight,paid\n2020-01-01,state,red,1,no\n", "'age' of .* holds dates, but numbers in the"),
    ],
)
def test_test_rows_that_do_not_fit_are_said(test, sentence, table):
    with pytest.raises(DataError, match=sentence):
        open_table(table(CSV, test), "test")


@pytest.mark.parametrize(
    "spec, sentence",
    [
        ("excel:a.xls", "no data source 'excel:a.xls': write one of demo, csv:PATH, parquet:PATH"),
        ("csv:nowhere.csv", "There is no file 'nowhere.csv'"),
        ("csv:.", "has no train.csv"),
    ],
)
def test_sources_that_are_not_there(spec, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=sentence):
        open_table(spec, "train")


def test_columns_that_are_not_there(table):
    for options in ({"label": "nosuch"}, {"ignore": ("nosuch",)}):
        with pytest.raises(DataError, match="has no column 'nosuch': it has age, work"):
            open_table(table(CSV), "train", **options)
