"""Clips: which frames of which videos are read, and what is said of those that cannot be."""

import importlib.util
import logging
import sys
from functools import partial
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ssljax.data import DataError, eval_batches, train_dataset
from ssljax.data.pans import DIRECTIONS, PIXELS_A_FRAME, WINDOW
from ssljax.data.subset import Share
from ssljax.data.video import open_video

CLIP = {"frames": 3, "stride": 2, "canvas": 4}
has_pyav = importlib.util.find_spec("av") is not None


def write_frames(folder, count, size=(8, 6), suffix=".png"):
    """Frame i is all of value i; their names sort otherwise than their numbers."""
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(np.full((*size, 3), i, np.uint8)).save(folder / f"frame{i}{suffix}")


def write_animation(path, count):
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = (Image.fromarray(np.full((6, 8, 3), 10 * i, np.uint8)) for i in range(count))
    first.save(path, save_all=True, append_images=rest, lossless=True)


def values(example, unit=1):
    """The value of each frame, which must be the same all over it."""
    video = example["video"].astype(int)
    assert (video == video[:, :1, :1, :1]).all()
    return (video[:, 0, 0, 0] // unit).tolist()


@pytest.fixture
def clips(tmp_path):
    """Of two classes and both splits: a folder of 12 frames, of 5, a WebP of 20, a GIF of 5."""
    write_frames(tmp_path / "train" / "wave" / "long", 12)
    write_frames(tmp_path / "train" / "jump" / "short", 5)
    write_animation(tmp_path / "train" / "jump" / "b.webp", 20)
    write_animation(tmp_path / "val" / "wave" / "c.gif", 5)
    return tmp_path


def test_a_clip_is_the_middle_and_each_frame_as_far_from_the_next(clips):
    source = open_video(f"folder:{clips}", "train", **CLIP)
    assert source.class_names == ("jump", "wave") and source.labels().tolist() == [0, 0, 1]
    assert [values(source[0], unit=10), values(source[1]), values(source[2])] == [[8, 10, 12], [0, 2, 4], [4, 6, 8]]
    assert source[2]["video"].shape == (3, 4, 4, 3) and source[2]["size"].tolist() == [8, 6]
    assert source[0]["size"].tolist() == [6, 8]
    test = open_video(f"folder:{clips}", "test", **CLIP)
    assert values(test[0], unit=10) == [0, 2, 4] and test.labels().tolist() == [1] and not test.skipped


def test_a_video_gives_several_clips_spread_over_it(clips):
    source = open_video(f"folder:{clips}", "train", **CLIP, clips=2)
    assert len(source) == 6 and source.labels().tolist() == [0, 0, 0, 0, 1, 1]
    assert [values(source[i])[0] for i in (4, 5)] == [2, 6]


def test_the_last_frame_is_repeated_where_the_distance_is_too_large(clips):
    source = open_video(f"folder:{clips}", "train", frames=3, stride=4, canvas=4)
    assert values(source[1]) == [0, 4, 4]


def test_in_training_places_are_drawn_anew_and_are_of_the_seed_and_the_step(clips):
    dataset = train_dataset(open_video(f"folder:{clips}", "train", **CLIP), batch_size=12, seed=0)
    batch, again, later = dataset[0], dataset[0], dataset[1]
    assert set(batch) == {"video", "size", "index"} and batch["video"].shape == (12, 3, 4, 4, 3)
    np.testing.assert_array_equal(batch["video"], again["video"])
    firsts = np.concatenate([b["video"][b["index"] == 2, 0, 0, 0, 0] for b in (batch, later)])
    assert len(firsts) == 8 and len(set(firsts)) > 2 and firsts.max() <= 7
    rows = train_dataset(open_video(f"folder:{clips}", "train", **CLIP), batch_size=12, seed=0, rows=np.arange(4, 8))
    np.testing.assert_array_equal(rows[0]["video"], batch["video"][4:8])


def test_places_are_drawn_in_a_part_of_the_videos_too(clips):
    part = Share(open_video(f"folder:{clips}", "train", **CLIP), 0.5)
    assert len(part) == 2
    firsts = {values(part.sample(1, np.random.default_rng(seed)))[0] for seed in range(9)}
    assert len(firsts) > 2 and values(part[1]) == [4, 6, 8]


def test_videos_that_cannot_be_read_are_skipped_and_counted(clips, caplog):
    write_frames(clips / "train" / "wave" / "one", 1)
    write_frames(clips / "train" / "wave" / "odd", 2)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(clips / "train" / "wave" / "odd" / "frame2.png")
    (clips / "train" / "wave" / "z.gif").write_bytes(b"no animation")
    source = open_video(f"folder:{clips}", "train", **CLIP)
    with caplog.at_level(logging.WARNING):
        (batch,) = eval_batches(source, 6)
    assert batch["mask"].tolist() == [True, True, True, False, False, False] and batch["label"][:3].tolist() == [
        0,
        0,
        1,
    ]
    assert batch["size"].min() == 1 and len(source.skipped) == 3
    assert source.skipped[str(clips / "train" / "wave" / "z.gif")] == "not an animation in a format that Pillow knows"
    assert "it has 1 frames, and a clip 3" in caplog.text and "its frames differ in size" in caplog.text
    training = train_dataset(source, batch_size=6, seed=0)[0]
    assert set(training["index"]) == set(range(6)) and training["size"].min() >= 6  # others stand in their places


def test_only_one_frame_everywhere_is_an_error(tmp_path):
    write_frames(tmp_path / "a" / "x", 1)
    write_frames(tmp_path / "b" / "y", 1)
    with pytest.raises(DataError, match="None of the 1 clips .* it has 1 frames, and a clip 3"):
        open_video(f"folder:{tmp_path}", "train", **CLIP)[0]


def test_wrong_folders_and_numbers_are_named(tmp_path):
    with pytest.raises(DataError, match="no folder .*nowhere"):
        open_video(f"folder:{tmp_path}/nowhere", "train", **CLIP)
    with pytest.raises(DataError, match="holds no videos: it needs files in .*mp4.* or sub-folders of frames"):
        open_video(f"folder:{tmp_path}", "train", **CLIP)
    with pytest.raises(DataError, match="no data source 'tfds:ucf101': write one of demo, folder:PATH"):
        open_video("tfds:ucf101", "train", **CLIP)
    with pytest.raises(ValueError, match="--config.data.stride=0 must be at least 1"):
        open_video(f"folder:{tmp_path}", "train", **CLIP | {"stride": 0})
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "1.png")
    with pytest.raises(DataError, match="holds '1.png', a frame of no video"):
        open_video(f"folder:{tmp_path}", "train", **CLIP)


def test_without_classes_there_are_no_labels(tmp_path, caplog):
    for name in ("a", "b", "c"):
        write_animation(tmp_path / f"{name}.gif", 6)
    source = open_video(f"folder:{tmp_path}", "train", **CLIP)
    assert not source.has_labels and "label" not in source[0] and source.class_names is None
    write_animation(tmp_path / "wave" / "d.gif", 6)
    write_animation(tmp_path / "jump" / "e.gif", 6)
    with caplog.at_level(logging.WARNING):
        assert not open_video(f"folder:{tmp_path}", "train", **CLIP).has_labels
    assert "no labels, since" in caplog.text


def test_a_video_that_is_gone_stops_the_run(clips):
    source = open_video(f"folder:{clips}", "train", **CLIP)
    (clips / "train" / "wave" / "long" / "frame6.png").unlink()
    with pytest.raises(DataError, match="frame6.png was there when .* and is gone"):
        source[2]


def test_in_the_demo_a_camera_moves_in_eight_directions():
    """What the centre of a frame shows lies, two frames later, where the camera has come from."""
    source = open_video("demo", "train", frames=3, stride=1, canvas=36)
    assert len(source) == 8000 and len(open_video("demo", "test", frames=3, stride=1, canvas=36)) == 2000
    assert source.class_names is not None and set(np.bincount(source.labels())) == {1000}
    seen = set()
    for i in range(16):
        first, _, last = source[i]["video"].astype(float)
        shift = int(2 * PIXELS_A_FRAME * 36 / WINDOW)
        down, right = DIRECTIONS[source.class_names[source[i]["label"]]]
        y, x = 10 - down * shift, 10 - right * shift
        right_way = np.abs(first[10:26, 10:26] - last[y : y + 16, x : x + 16]).mean()
        y, x = 10 + down * shift, 10 + right * shift
        assert right_way < 3 < np.abs(first[10:26, 10:26] - last[y : y + 16, x : x + 16]).mean()
        seen.add((down, right))
    assert len(seen) > 5


def test_in_the_demo_a_photograph_gives_clips_of_several_directions_and_places_are_drawn():
    source = open_video("demo", "test", frames=2, stride=1, canvas=8, clips=2)
    assert len(source) == 4000 and (source[1]["label"] - source[0]["label"]) % 8 == 1
    drawn = [source.sample(0, np.random.default_rng(seed))["video"] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
    with pytest.raises(ValueError, match="--config.data.frames=16 and stride=4 lead a camera beyond the photographs"):
        open_video("demo", "train", frames=16, stride=4, canvas=8)


# Files by PyAV --------------------------------------------------------------------------------------------------------


def test_without_pyav_it_is_asked_for(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="'a.mp4' in .* needs PyAV: `pip install av`"):
        open_video(f"folder:{tmp_path}", "train", **CLIP)


class Container:
    """What PyAV gives of a file: frames at times, from the last one at or before a seek that starts a group of five."""

    def __init__(self, count, says, start):
        fields = {"frames": says, "average_rate": 25, "guessed_rate": 25, "start_time": start, "time_base": 0.02}
        self.stream = SimpleNamespace(**fields, duration=None)
        self.streams, self.duration = SimpleNamespace(video=[self.stream]), round(count / 25 * 1e6)
        self.count, self.begin, self.at = count, start or 0, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def seek(self, offset, stream):
        self.at = (offset - self.begin) // 2 // 5 * 5

    def decode(self, stream):
        for i in range(self.at, self.count):
            picture = np.full((6, 8, 3), i, np.uint8)
            to = SimpleNamespace(pts=self.begin + 2 * i, height=6, width=8)
            to.to_ndarray = lambda format, picture=picture: picture
            yield to


@pytest.fixture
def pyav(tmp_path, monkeypatch):
    """`pyav(count, says, start)`: the clip of a file of so many frames, which says that it has `says` (0: nothing) and
    that the first one is shown at `start`."""
    (tmp_path / "a.mp4").write_bytes(b"")
    found = importlib.util.find_spec

    def clip(count, says, start, part=CLIP):
        module = ModuleType("av")
        module.open, module.FFmpegError = lambda path: Container(count, says, start), OSError
        monkeypatch.setitem(sys.modules, "av", module)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "av" or found(name))
        return open_video(f"folder:{tmp_path}", "train", **part)[0]

    return clip


@pytest.mark.parametrize("says, start", [(23, 0), (0, None), (0, 100)])
def test_frames_of_a_file_are_found_by_their_times(says, start, pyav):
    example = pyav(23, says, start)
    assert values(example) == [9, 11, 13] and example["size"].tolist() == [6, 8]


def test_frames_that_a_file_promises_but_does_not_have_are_the_last_one(pyav):
    assert values(pyav(10, 13, 0, CLIP | {"stride": 5})) == [1, 6, 9]


@pytest.mark.skipif(not has_pyav, reason="PyAV is not installed")
@pytest.mark.parametrize("suffix, codec", [("mp4", "mpeg4"), ("mkv", "mpeg4"), ("avi", "mjpeg")])
def test_files_are_read_as_they_were_written(suffix, codec, tmp_path):
    """With groups of frames, so that a seek ends before what is wanted; and broken and empty files are skipped."""
    import av

    with av.open(str(tmp_path / f"a.{suffix}"), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.bit_rate = 400_000
        for i in range(40):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 6 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for at in (0, 3):  # four clips: their first frames are at 4, 13, 22, 31
        source = open_video(f"folder:{tmp_path}", "train", **CLIP, clips=4)
        found = source[at]["video"].mean(axis=(1, 2, 3))
        np.testing.assert_allclose(found, 6 * (np.array([0, 2, 4]) + [4, 13, 22, 31][at]), atol=3.5)
    whole = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(whole[: len(whole) // 20])
    read = partial(open_video, f"folder:{tmp_path}", "train", **CLIP)
    with pytest.raises(DataError, match="None of the 1 clips"):
        read()[0]
    source = read()
    (tmp_path / f"a.{suffix}").unlink()
    with pytest.raises(DataError, match="was there when .* and is gone"):
        source[0]
