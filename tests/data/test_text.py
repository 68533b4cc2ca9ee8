"""Text from files to batches: pieces of one length, rows of a table, vocabularies; what is wrong is said."""

import gzip

import pytest

from ssljax.data import DataError, eval_batches, train_dataset
from ssljax.data.text import Reading, hashed_words, open_text
from ssljax.data.tokens import CLS, MASK, PAD, SEP, SPECIAL, Bytes, learn, recalled
from ssljax.methods.text import bert

LETTERS = "".join(chr(97 + i % 26) for i in range(200))


@pytest.fixture
def letters(tmp_path):
    """200 letters, of which the last 20 are for testing."""
    (tmp_path / "letters.txt").write_text(LETTERS)
    return f"txt:{tmp_path / 'letters.txt'}"


def texts(source):
    return [source.tokenizer.decode(source[i]["tokens"][source[i]["valid"]]) for i in range(len(source))]


def test_each_letter_is_once_to_be_told_from_those_before_it(letters):
    train, test = (open_text(letters, split, Reading(length=16)) for split in ("train", "test"))
    pieces = texts(train)
    assert pieces[0] + "".join(piece[1:] for piece in pieces[1:]) == LETTERS[:180]
    assert texts(test) == [LETTERS[180:196], LETTERS[195:]]
    assert sum(float(x["bytes"]) for x in map(train.read, range(len(train)))) == 179
    last = test[1]
    assert last["valid"].sum() == 5 and (last["tokens"][5:] == PAD).all() and len(last["tokens"]) == 16
    assert train.stream().tolist() == Bytes().encode(LETTERS[:180]).tolist()


def test_pieces_may_begin_anywhere_in_training(letters):
    train, test = (open_text(letters, split, Reading(length=16, stride=1)) for split in ("train", "test"))
    assert texts(train) == [LETTERS[i : i + 16] for i in range(165)] and len(test) == 2


def test_marks_stand_around_the_text_and_no_letter_is_lost(letters):
    source = open_text(letters, "train", Reading(length=16, marks=True))
    assert "".join(texts(source)) == LETTERS[:180] and source[0]["tokens"][[0, -1]].tolist() == [CLS, SEP]
    last = source[len(source) - 1]
    assert last["tokens"][last["valid"]][-1] == SEP and last["valid"].sum() == 2 + 180 % 14


def test_batches_for_training_hold_no_more_than_a_method_may_see(letters):
    source = open_text(letters, "train", Reading(length=16))
    batch = train_dataset(source, batch_size=4, seed=0)[0]
    assert set(batch) == {"tokens", "valid", "index"} and batch["tokens"].shape == (4, 16)
    (only,) = eval_batches(source, batch_size=14)
    assert only["mask"].sum() == len(source) == 12 and only["words"].shape == (14, 16) and not only["words"][13].any()


def test_files_of_a_folder_are_documents_and_those_not_in_utf8_are_counted(tmp_path, caplog):
    for i in range(30):
        (tmp_path / f"{i}.txt").write_text(f"document {i}, Ä\n")
    (tmp_path / "old.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "packed.txt.gz").write_bytes(gzip.compress("packed, \N{GREEK SMALL LETTER PI}".encode()))
    spec = f"txt:{tmp_path}"
    train, test = (open_text(spec, split, Reading(length=16)) for split in ("train", "test"))
    both = train.stream().tolist() + [SEP] + test.stream().tolist()
    assert both.count(SEP) == 30 and 0 < len(test.stream()) < len(train.stream())
    assert len(train.skipped) == 1 and "old.txt" in next(iter(train.skipped))
    assert "is not in UTF-8 (byte 0xe9 at place 3" in caplog.text
    assert max(message.count("old.txt") for message in caplog.messages) == 1
    (tmp_path / "train.txt").write_text("learn this")
    (tmp_path / "test.txt").write_text("\N{ZERO WIDTH NO-BREAK SPACE}and tell\r\nthis")
    assert texts(open_text(spec, "train", Reading(length=16))) == ["learn this"]
    assert texts(open_text(spec, "test", Reading(length=16))) == ["and tell\nthis"]


@pytest.mark.parametrize("bad", ["train", "test"])
def test_a_split_that_is_not_in_utf8_is_said_and_no_other_file_is_cut_in_its_place(bad, tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.txt").write_bytes(("été " * 50).encode("latin-1" if split == bad else "utf-8"))
    for split in ("train", "test"):
        with pytest.raises(DataError, match=f"{bad}.txt' is not in UTF-8 .*: convert it, for instance with iconv"):
            open_text(f"txt:{tmp_path}", split, Reading(length=16))


def test_text_shorter_than_one_piece_is_padded(tmp_path):
    (tmp_path / "short.txt").write_text("a short text")
    assert texts(open_text(f"txt:{tmp_path / 'short.txt'}", "train", Reading(length=64))) == ["a short te"]


@pytest.mark.parametrize(
    "contents, sentence",
    [
        ("naïve".encode("latin-1"), r"is not in UTF-8 \(byte 0xef at place 2; it may be another encoding"),
        ("text".encode("utf-16"), "it may be UTF-16.*iconv"),
        (b"a\0b", "holds zero bytes"),
        (b" \n", "wrong.txt' is empty"),
        (b"x", "fewer than two tokens"),
    ],
)
def test_what_is_wrong_with_a_text_is_said(tmp_path, contents, sentence):
    (tmp_path / "wrong.txt").write_bytes(contents)
    with pytest.raises(DataError, match=sentence):
        open_text(f"txt:{tmp_path / 'wrong.txt'}", "test" if contents == b"x" else "train", Reading())


def test_what_is_not_there_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"text" * 99)[:-9])
    for spec, sentence in (
        ("text:here", "write one of demo, demo_speeches, txt:PATH, csv:PATH, tsv:PATH"),
        (f"txt:{tmp_path / 'nowhere'}", "There is no file or folder"),
        (f"csv:{tmp_path / 'empty'}", "has no files whose names end in .csv or .csv.gz"),
        (f"txt:{tmp_path / 'cut.txt.gz'}", "cannot be read .* check that the file is whole"),
    ):
        with pytest.raises(DataError, match=sentence):
            open_text(spec, "train", Reading())
    with pytest.raises(DataError, match="has no split 'other'"):
        open_text("demo", "other", Reading())
    for fields, sentence in (
        ({"length": 3, "marks": True}, "length=3 must leave room for two tokens"),
        ({"stride": -1}, "stride=-1"),
        ({"tokenizer": "letters"}, "tokenizer=letters is unknown; use bytes, bpe, wordpiece, words"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Reading(**fields)


# Tables ---------------------------------------------------------------------------------------------------------------


def write(path, *rows):
    path.write_text("\n".join(rows) + "\n")
    return f"{path.suffix[1:]}:{path}"


def test_rows_of_a_table_have_labels_and_are_cut_and_counted(tmp_path, caplog):
    write(tmp_path / "train.csv", "text,mood", '"one, two",good', "a\u2028much longer text,bad", ",good", "x,good,more")
    write(tmp_path / "test.csv", "text,mood", "three,bad")
    train, test = (open_text(f"csv:{tmp_path}", split, Reading(length=8)) for split in ("train", "test"))
    assert texts(train) == ["one, two", "a\u2028much"] and texts(test) == ["three"]
    assert [train.text(i) for i in range(2)] == texts(train)
    assert train.class_names == test.class_names == ("bad", "good")
    assert train.labels().tolist() == [1, 0] and test[0]["label"] == 0
    assert "1 of 2 texts are cut to 8 tokens" in caplog.text
    assert "skipped 2 rows without text or label, or with another number of fields" in caplog.text
    assert len(train.left_out) == 1 and train.left_out == test.left_out and train.left_out[0] in caplog.messages
    assert train[0]["words"].tolist() == hashed_words("ONE two") + [0] * 6


def test_columns_by_name_or_place(tmp_path):
    named = write(tmp_path / "named.tsv", "mood\tsaid\tid", *(f'good\tso "{i}\t{i}' for i in range(20)))
    source = open_text(named, "train", Reading(length=8, text="said", label="mood"))
    assert all(text.startswith('so "') for text in texts(source)) and source.class_names == ("good",)
    bare = write(tmp_path / "bare.tsv", *(f"so {i}\t{i % 2}" for i in range(20)))
    source = open_text(bare, "train", Reading(length=8, text="0", label="1"))
    assert source.class_names == ("0", "1") and 16 <= len(source) <= 19
    for split in ("train", "test"):  # and without being told: no column is named "0"
        assert texts(open_text(bare, split, Reading(length=8))) == texts(
            open_text(bare, split, Reading(length=8, text="0", label="1"))
        )
    assert not open_text(named, "train", Reading(label="none", text="said")).has_labels


def test_what_is_wrong_with_a_table_is_said(tmp_path):
    (tmp_path / "lone").mkdir()
    write(tmp_path / "lone" / "train.csv", "text,label", "a,x", "b,y")
    write(tmp_path / "lone" / "test.csv", "text,label", "c,z")
    one = write(tmp_path / "one.csv", "text", "a", "b")
    none = write(tmp_path / "none.csv", "text,label")
    tabs = write(tmp_path / "tabs.csv", "text\tlabel", "a\tx")
    many = write(tmp_path / "many.csv", "text,label", *(f"so,{i}" for i in range(1200)))
    quote = write(tmp_path / "quote.csv", "text,label", "a,x", '"b,y', *["c,x"] * 9)
    for spec, split, fields, sentence in (
        (quote, "train", {}, "quote.csv', line 3, opens a quote that is not closed .*: close it"),
        (f"csv:{tmp_path / 'lone'}", "test", {}, "hold 'z', which no training row has"),
        (one, "train", {}, "would both be column 'text'"),
        (one, "train", {"text": "said"}, "has no column 'said': it has text"),
        (none, "train", {}, "has no rows with a text"),
        (many, "train", {}, "values, which are no classes"),
        (tabs, "train", {}, "has tabs between its fields: write tsv: instead of csv:"),
    ):
        with pytest.raises(DataError, match=sentence):
            open_text(spec, split, Reading(**fields))


def test_the_demo_is_tiny_shakespeare_and_its_plays():
    train, test = (open_text("demo", split, Reading(length=64)) for split in ("train", "test"))
    assert (len(train.stream()), len(test.stream())) == (1_003_854, 111_540)
    speeches = open_text("demo_speeches", "train", Reading(length=64))
    assert len(speeches.class_names) == 9 and len(speeches) == 2610


# Vocabularies ---------------------------------------------------------------------------------------------------------


def test_bytes_go_there_and_back_and_have_the_ids_that_bert_takes_for_special():
    ids = Bytes().encode("Ä b")
    assert Bytes().decode(ids) == "Ä b" and len(ids) == 4 and ids.min() >= len(SPECIAL)
    assert (*bert.SPECIAL, bert.MASK) == tuple(range(len(SPECIAL))) and bert.MASK == MASK
    assert len(Bytes().names) == len(Bytes().lengths) == Bytes.size


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "words"])
def test_a_vocabulary_is_learnt_and_remembered(kind, tmp_path):
    pytest.importorskip("tokenizers")
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be that is the question\n" * 40)
    source = open_text(f"txt:{path}", "train", Reading(length=8, tokenizer=kind, vocabulary=300))
    text = "to be that is the question"
    ids = source.tokenizer.encode(text)
    again = recalled(source.tokenizer.to_json())
    assert again.decode(ids) == text and again.encode(text).tolist() == ids.tolist()
    assert len(ids) < len(text) / 2 and ids.min() >= len(SPECIAL) and again.size <= 300
    assert len(again.names) == len(again.lengths) == again.size
    if kind == "words":
        assert again.decode(again.encode("Be, or  UNHEARD!")) == "be or ?"
    if kind == "bpe":  # whose tokens are the text, byte by byte
        strange = again.encode("Ä \N{GREEK SMALL LETTER PI}\n")
        assert again.decode(strange) == "Ä \N{GREEK SMALL LETTER PI}\n" and again.lengths[strange].sum() == 6
    with pytest.raises(ValueError, match="vocabulary=100 must be at least 261"):
        learn(kind, 100, [text])
