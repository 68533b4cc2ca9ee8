"""Clips from a folder to a batch: splits, classes, speakers, rates, crops; what cannot be used is said or counted."""

import importlib.util
import logging
import re
import struct

import numpy as np
import pytest
import scipy.io.wavfile
from ml_collections import ConfigDict

from ssljax.data import DataError, eval_batches, train_dataset
from ssljax.data.speech import open_speech
from ssljax.data.speech_arrays import compress, expand
from ssljax.data.subset import Subset
from ssljax.modalities.speech import Speech

RATE = 1000
OPTIONS = {"rate": RATE, "crop": 0.3, "longest": 0.4}

NO_CHANNELS = b"RIFF\x2c\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 0, RATE, 0, 0, 16) + b"data\x08" + bytes(11)


@pytest.fixture
def folder(tmp_path):
    """`folder({path: samples})`: WAV files as a source is spelt; (rate, samples): of another rate; bytes: as is."""

    def write(clips):
        for name, samples in clips.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(samples, bytes):
                path.write_bytes(samples)
            else:
                rate, samples = samples if isinstance(samples, tuple) else (RATE, samples)
                scipy.io.wavfile.write(path, rate, samples)
        return f"folder:{tmp_path}"

    return write


def tone(samples, value):
    return np.full(samples, value, np.float32)


def test_classes_and_speakers_are_folders(folder):
    files = {
        f"{split}/{word}/{who}/{take}.wav": tone(100, 0.1)
        for split in ("train", "test")
        for word in ("yes", "no")
        for who in ("ann", "bob")
        for take in range(1 + (split == "train"))
    }
    train, test = (open_speech(folder(files), split, **OPTIONS, group="2") for split in ("train", "test"))
    assert train.class_names == test.class_names == ("no", "yes") and train.group_names == ("ann", "bob")
    assert (len(train), len(test)) == (8, 4) and test.labels().tolist() == [0, 0, 1, 1]
    assert [int(test[i]["group"]) for i in range(4)] == [0, 1, 0, 1]
    speakers = open_speech(folder(files), "train", **OPTIONS, label="2")
    assert speakers.class_names == ("ann", "bob") and "group" not in speakers[0]
    with pytest.raises(DataError, match="--config.data.group=3 says .* leave it empty if speakers are not known"):
        open_speech(folder(files), "train", **OPTIONS, group="3")


def test_splits_by_name_and_by_hash(folder, caplog):
    files = {
        f"{part}/{who}/{i}.wav": tone(99, 0.1) for part in ("train-a", "train-b", "dev") for who in "xy" for i in "12"
    }
    spec = folder(files)
    assert [len(open_speech(spec, split, **OPTIONS)) for split in ("train-a+train-b", "train-b", "dev")] == [8, 4, 4]
    assert open_speech(spec, "train-a+dev", **OPTIONS, group="1").group_names == ("x", "y")
    parts = [open_speech(spec, split, **OPTIONS) for split in ("train", "test")]
    assert sum(map(len, parts)) == 12 and parts[0].class_names == ("dev", "train-a", "train-b")
    with caplog.at_level(logging.WARNING):
        assert not open_speech(spec, "train-a", **OPTIONS, label="2").has_labels
    assert "no labels, since clips are not in two folders or more of level 2" in caplog.text


def test_any_rate_and_type_and_channels(folder):
    """A tone of 50 Hz is the same from each file, to what resampling leaves at the ends."""
    wave = {rate: 0.5 * np.sin(2 * np.pi * 50 * np.arange(rate // 2) / rate) for rate in (RATE, 2000, 4410)}
    spec = folder(
        {
            "a.wav": wave[RATE].astype(np.float32),
            "b.wav": (2000, (wave[2000] * 2**15).astype(np.int16)),
            "c.wav": (4410, (wave[4410] * 2**31).astype(np.int32)),
            "d.wav": (2000, np.round(128 + 128 * wave[2000]).astype(np.uint8)),
            "e.wav": (2000, np.stack([wave[2000] * 2, 0 * wave[2000]], axis=1).astype(np.float32)),
        }
    )
    clips = [
        x["clip"] for split in ("train", "test") for x in map(open_speech(spec, split, **OPTIONS).__getitem__, range(1))
    ]
    source = open_speech(spec, "train", **OPTIONS)
    for clip in [*clips, *(source[i]["clip"] for i in range(len(source)))]:
        assert clip.dtype == np.float32 and len(clip) == 500
        np.testing.assert_allclose(clip[50:-50], wave[RATE][50:-50], atol=0.02)


def test_evaluation_hears_the_middle_and_padding_is_told(folder):
    ramp = (np.arange(600) / 1000).astype(np.float32)
    spec = folder({"train/long.wav": ramp, "train/short.wav": ramp[:100], "test/x.wav": ramp})
    source = open_speech(spec, "train", **OPTIONS)
    (batch,) = eval_batches(source, 4)
    assert set(batch) == {"audio", "length", "label", "mask"} and batch["audio"].shape == (4, 400)
    assert batch["length"].tolist() == [400, 100, 0, 0] and batch["mask"].tolist() == [True, True, False, False]
    np.testing.assert_array_equal(batch["audio"][0], ramp[100:500])
    np.testing.assert_array_equal(batch["audio"][1], np.pad(ramp[:100], (0, 300)))
    normalised = open_speech(spec, "train", **OPTIONS, normalise=True)
    expected = (ramp - ramp.mean()) / ramp.std()
    np.testing.assert_allclose(normalised[0]["clip"], expected, rtol=1e-4, atol=1e-5)


def test_crops_are_drawn_anew_and_short_clips_are_followed_by_others_of_their_speaker(folder):
    ramp = (np.arange(900) / 1000).astype(np.float32)
    files = {"train/ann/long.wav": ramp, "train/ann/other.wav": ramp, "test/ann/x.wav": ramp, "test/bob/y.wav": ramp}
    files |= {f"train/bob/{i}.wav": tone(100, -0.1 - 0.01 * i) for i in range(8)}
    source = open_speech(folder(files), "train", **OPTIONS, group="1")
    batches = [train_dataset(source, batch_size=10, seed=0)[step] for step in (0, 0, 1)]
    assert set(batches[0]) == {"audio", "length", "group", "index"} and batches[0]["audio"].shape == (10, 300)
    for name in batches[0]:
        np.testing.assert_array_equal(batches[0][name], batches[1][name])
    starts = set()
    for batch in (batches[0], batches[2]):
        assert (batch["length"] == 300).all()
        for audio, group, index in zip(batch["audio"], batch["group"], batch["index"], strict=True):
            if group == 0:  # a part of the ramp, from anywhere
                starts.add(round(1000 * audio[0]))
                np.testing.assert_allclose(np.diff(audio), 0.001, atol=1e-6)
            else:  # three tones of the other one, the example's own first
                assert len(np.unique(audio)) <= 3 and audio.max() <= -0.1
                assert audio[0] == np.float32(-0.1 - 0.01 * (index - 2))
    assert len(starts) > 2
    whole = train_dataset(open_speech(folder({}), "train", **(OPTIONS | {"crop": 0})), batch_size=3, seed=0)[0]
    assert whole["audio"].shape == (3, 400) and set(whole["length"]) <= {100, 400}
    part = train_dataset(Subset(source, 3), batch_size=3, seed=0)[0]
    assert part["audio"].shape == (3, 300) and (part["length"] == 300).all()


@pytest.mark.parametrize(
    "samples, reason",
    [
        (np.zeros(0, np.int16), "it is empty"),
        (tone(40, 0.1), "0.040 seconds are too short, 0.05 is the least"),
        (np.array([np.nan] * 99, np.float32), "numbers that are not finite"),
        *(((rate, tone(99, 0.1)), f"its rate is {rate} samples") for rate in (0, 1, 400_000_009)),
        (tone(99, 20_000), r"it holds 20000, and floats must be in about \[-1, 1\]"),
        (b"no audio at all", "no audio that can be read"),
        (b"", "no audio that can be read"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "no audio that can be read"),
        (NO_CHANNELS, "no audio that can be read"),
    ],
)
def test_clips_that_cannot_be_used_are_skipped_and_counted(samples, reason, folder, caplog):
    spec = folder({"train/a.wav": samples, "train/b.wav": tone(200, 0.1), "test/a.wav": samples})
    source = open_speech(spec, "train", **OPTIONS)
    with caplog.at_level(logging.WARNING):
        batch = train_dataset(source, batch_size=4, seed=0)[0]
    assert (batch["length"] == 300).all() and list(source.skipped) == ["train/a.wav"]
    assert re.search(reason, caplog.text) and "1 skipped so far" in caplog.text
    (whole,) = eval_batches(source, 2)
    assert whole["mask"].tolist() == [False, True]
    with pytest.raises(DataError, match="None of the 1 clips of .* can be decoded"):
        open_speech(spec, "test", **OPTIONS)[0]


def test_an_encoder_is_given_no_clip_that_is_too_short():
    speech = Speech(ConfigDict({"data": {"rate": RATE, "normalise": False}}))
    assert speech.as_batch([tone(50, 0.1), tone(80, 0.1)])["length"].tolist() == [50, 80]
    with pytest.raises(ValueError, match="clips must have 50 samples at least, which are 0.05 seconds, but one has 5"):
        speech.as_batch([tone(80, 0.1), tone(5, 0.1)])


def test_an_encoder_is_given_what_training_takes(folder):
    """Floats beyond 1, as in some files and after resampling, but no whole numbers as floats."""
    speech = Speech(ConfigDict({"data": {"rate": RATE, "normalise": False}}))
    steps = np.sign(np.sin(np.arange(400) / 9)).astype(np.float32)
    spec = folder({"train/a.wav": (2 * RATE, steps), "train/b.wav": 3 * steps, "test/c.wav": steps})
    clips = [open_speech(spec, "train", **OPTIONS)[i]["clip"] for i in range(2)]
    assert 1.01 < np.abs(clips[0]).max() < 2 and np.abs(clips[1]).max() == 3
    np.testing.assert_array_equal(speech.as_batch(clips)["audio"][1], clips[1])
    with pytest.raises(ValueError, match="floats in about .* but one has 32767: divide floats by"):
        speech.as_batch([clips[0], 32767 * steps])


def test_a_clip_that_is_gone_ends_the_run(folder, tmp_path):
    spec = folder({"train/a.wav": tone(99, 0.1), "test/b.wav": tone(99, 0.1)})
    source = open_speech(spec, "train", **OPTIONS)
    (tmp_path / "train" / "a.wav").unlink()
    with pytest.raises(DataError, match="a.wav was there when .* was listed, and is gone"):
        source[0]


@pytest.mark.skipif(bool(importlib.util.find_spec("soundfile")), reason="soundfile is installed")
def test_other_files_need_soundfile(folder):
    source = open_speech(folder({"train/a.flac": b"fLaC", "test/b.flac": b"fLaC"}), "train", **OPTIONS)
    with pytest.raises(DataError, match="a.flac of .* is no WAV file: `pip install soundfile`, or convert it"):
        source[0]


@pytest.mark.skipif(not importlib.util.find_spec("soundfile"), reason="soundfile is not installed")
def test_flac_is_what_was_written(folder, tmp_path):
    import soundfile

    (tmp_path / "train").mkdir()
    wave = np.random.RandomState(0).uniform(-0.5, 0.5, 300)
    soundfile.write(tmp_path / "train" / "a.flac", wave, 2 * RATE)
    files = {"test/b.wav": tone(99, 0.1), "train/b.flac": b"fLaC"}
    source = open_speech(folder(files), "train", **(OPTIONS | {"rate": 2 * RATE}))
    np.testing.assert_allclose(source[0]["clip"], wave, atol=1e-4)
    assert source.read(1) is None and "object at" not in source.skipped["train/b.flac"]  # the same in every run


def test_the_demo():
    train, test = (
        open_speech("demo", split, rate=8000, crop=1.0, longest=1.0, group="2") for split in ("train", "test")
    )
    assert (len(train), len(test)) == (480, 120) and len(train.class_names) == 10 and len(train.group_names) == 6
    assert np.bincount(train.labels()).tolist() == [48] * 10 and np.bincount(test.labels()).tolist() == [12] * 10
    assert 0.05 < np.abs(train[0]["clip"]).max() <= 1


def test_compressed_samples_come_back_to_a_share_of_their_size():
    wave = np.random.RandomState(0).uniform(-1, 1, 1000) ** 3
    assert (np.abs(expand(compress(wave)) - wave) <= 0.025 * np.abs(wave) + 1e-4).all()
    np.testing.assert_allclose(expand(compress(np.array([-1.0, 0.0, 1.0]))), [-1, 0, 1], atol=1e-6)


@pytest.mark.parametrize(
    "spec, options, sentence",
    [
        ("folder:nowhere", {}, "There is no folder 'nowhere'"),
        ("mp3:x", {}, "no data source 'mp3:x': write one of demo, folder:PATH, npz:PATH"),
        ("demo", {"rate": 10}, "--config.data.rate=10 must be a rate in samples a second"),
        ("demo", {"crop": 0.01}, "--config.data.crop=0.01 must be seconds of audio, from 0.05"),
        ("demo", {"longest": 1e6}, "--config.data.longest=1000000.0 must be seconds"),
        ("demo", {"label": "-1"}, "--config.data.label=-1 must be a level of folders"),
    ],
)
def test_what_cannot_be_is_said(spec, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        open_speech(spec, "train", **(OPTIONS | options))


def test_folders_without_audio_or_such_a_split(folder, tmp_path):
    with pytest.raises(DataError, match=r"holds no audio: it needs files in .wav, .flac"):
        open_speech(f"folder:{tmp_path}", "train", **OPTIONS)
    spec = folder({"train/a.wav": tone(99, 0.1), "test/b.wav": tone(99, 0.1)})
    with pytest.raises(DataError, match="has no split 'extra': choose one of test, train"):
        open_speech(spec, "extra", **OPTIONS)


@pytest.fixture
def archive(tmp_path):
    """`archive(name=array)`: an .npz file of twenty clips of 100 samples of one ramp, with `take` 0 … 9 twice."""

    def write(**more):
        path = tmp_path / "clips.npz"
        arrays = {"wave": np.arange(2000, dtype=np.int16), "offset": np.arange(0, 2001, 100), "rate": RATE}
        arrays |= {"take": np.tile(np.arange(10), 2), "digit": np.arange(20) // 10 * 3} | more
        np.savez(path, **{name: x for name, x in arrays.items() if x is not None})
        return f"npz:{path}"

    return write


def test_clips_of_an_archive(archive):
    spec = archive(who=np.array(["bob", "ann"] * 10), digit_name=np.array(["zero", "one", "two", "three"]))
    test, train = (open_speech(spec, s, **OPTIONS, label="digit", group="who") for s in ("take<3", "take>=3"))
    assert (len(test), len(train)) == (6, 14) and test.class_names == ("zero", "three") == train.class_names
    assert test.labels().tolist() == [0, 0, 0, 1, 1, 1] and test.group_names == ("ann", "bob")
    assert [int(test[i]["group"]) for i in range(6)] == [1, 0, 1] * 2
    np.testing.assert_allclose(test[4]["clip"], np.arange(1100, 1200) / 2**15, rtol=1e-6)
    assert test[0]["audio"].shape == (400,) and test[0]["length"] == 100


@pytest.mark.parametrize("largest, full", [(1999, 2**15), (2**20, 2**31)])
def test_whole_numbers_are_scaled_by_the_bits_that_hold_them_and_not_by_their_type(archive, largest, full):
    wave = np.append(np.arange(1999), largest)
    speech = Speech(ConfigDict({"data": {"rate": RATE, "normalise": False}}))
    for kind in (np.int32, np.int64):
        clip = open_speech(archive(wave=wave.astype(kind)), "take=1", **OPTIONS, label="digit")[0]["clip"]
        np.testing.assert_allclose(clip, np.arange(100, 200) / full, rtol=1e-6)
        given = speech.as_batch([wave[100:200].astype(kind), wave[1900:].astype(kind)])["audio"]
        np.testing.assert_allclose(given[0], clip, rtol=1e-6)
    with pytest.raises(DataError, match="clips must be whole numbers of 8, 16 or 32 bits.* to 2147483648: divide"):
        speech.as_batch([np.full(100, 2**31)])


def test_splits_and_rate_of_an_archive(archive):
    def sizes(spec, *splits, **options):
        return [len(open_speech(spec, split, **(OPTIONS | {"label": ""} | options))) for split in splits]

    train, test = sizes(archive(), "train", "test")
    assert train + test == 20 and 0 < test < 8
    assert sizes(archive(test=np.arange(20) < 4), "train", "val") == [16, 4]
    assert sizes(archive(split=np.array(["train"] * 9 + ["dev"] * 11)), "train", "dev") == [9, 11]
    assert sizes(archive(), "take=1", "take<=1", "take>7") == [2, 4, 4]
    half = open_speech(archive(rate=2000), "take=0", **OPTIONS, label="digit")
    same = open_speech(archive(rate=None), "take=0", **OPTIONS, label="digit")
    assert (len(half[0]["clip"]), len(same[0]["clip"])) == (50, 100)


@pytest.mark.parametrize(
    "arrays, split, options, sentence",
    [
        ({"offset": None}, "train", {}, "has no array 'offset', but wave, rate, take, digit: join the samples"),
        ({"wave": np.zeros((2, 9))}, "train", {}, r"The wave \(2, 9\) of float64 of .* must be \(samples,\)"),
        ({"wave": np.zeros(9, np.uint16)}, "train", {}, "must be .*: integers of 8 bits, signed ones"),
        ({"wave": np.full(2000, -(2**40))}, "train", {}, "The wave of .* of 8, 16 or 32 bits, .* from -1099511627776"),
        ({"wave": np.full(2000, 2e4)}, "train", {}, "The wave of .* must be .* but one is 20000: divide them by"),
        ({"offset": np.array([0, 9, 5, 2000])}, "train", {}, "must be integers that rise from 0 to the 2000 samples"),
        ({"offset": np.array([0, 900])}, "train", {}, "must be integers that rise from 0 to the 2000 samples"),
        *(({"rate": rate}, "train", {}, "The rate of .* must be one whole number .* from 1000") for rate in (0, 10**6)),
        ({}, "take<0", {}, r"has no clip in the split 'take<0': take begins \[0, 1, 2, 3, 4\]"),
        (
            {},
            "day<5",
            {},
            "has no array 'day' for the split 'day<5': there are take, digit with a whole number or text",
        ),
        ({}, "dev-clean", {}, "has no split 'dev-clean': choose one of test, train"),
        ({}, "train", {"label": "word"}, "has no array 'word' for --config.data.label: there are take, digit with"),
        ({"who": np.zeros(20, int)}, "train", {"group": "who"}, "--config.data.group=who: all clips of .* the same"),
        ({"take_name": np.array(["a"])}, "train", {"label": "take"}, "take_name of .* with a name for each number"),
        ({"test": np.zeros(3, bool)}, "train", {}, "has no array 'test' for a split"),
    ],
)
def test_what_an_archive_cannot_be_is_said(archive, arrays, split, options, sentence):
    with pytest.raises(DataError, match=sentence):
        open_speech(archive(**arrays), split, **(OPTIONS | {"label": "digit"} | options))
