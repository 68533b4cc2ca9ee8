"""Batches: a pure function of (seed, step) for any number of processes; evaluation sees each example once."""

import subprocess
import sys

import numpy as np
import pytest

from ssljax.data import DataError, OnCanvas, batch_indices, eval_batches, open_source, train_batches, train_dataset


@pytest.fixture
def numbered(tmp_path):
    """21 training images of which image i is all of value i, with labels i % 3; and 1 to test."""
    images = np.arange(21, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2).repeat(3, 3)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=np.arange(21) % 3, x_test=images[:1])
    return open_source(f"npz:{tmp_path / 'a.npz'}", "train")


def ids(batch) -> list[int]:
    return batch["image"][:, 0, 0, 0].tolist()


def take(batches, n):
    return [next(batches) for _ in range(n)]


def test_batches_hold_only_what_the_method_may_see(numbered):
    batch = train_dataset(numbered, batch_size=8, seed=0)[0]
    assert set(batch) == {"image", "index"}
    assert batch["image"].shape == (8, 4, 4, 3) and batch["image"].dtype == np.uint8
    assert batch["index"].tolist() == ids(batch) and batch["index"].dtype == np.int32


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_global_batch_is_the_same_for_any_number_of_processes(numbered, processes):
    """Also where the rows of a process are not consecutive, as on a torus of chips."""
    rows = np.arange(8).reshape(2, processes, -1).transpose(1, 0, 2).reshape(processes, -1)
    parts = [train_dataset(numbered, batch_size=8, seed=3, rows=r) for r in rows]
    alone = train_dataset(numbered, batch_size=8, seed=3)
    for k in (0, 1, 2, 5, 1000):
        whole = np.zeros(8, int)
        for r, part in zip(rows, parts, strict=True):
            whole[r] = ids(part[k])
        assert whole.tolist() == ids(alone[k])
        assert [numbered[i]["image"][0, 0, 0] for i in batch_indices(21, 8, 3, k)] == ids(alone[k])


def test_every_example_once_in_each_epoch_and_in_another_order(numbered):
    batches = train_batches(numbered, batch_size=7, seed=0)
    epochs = [sum(map(ids, take(batches, 3)), []) for _ in range(3)]
    assert all(sorted(epoch) == list(range(21)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert tuple(epochs[0]) != tuple(range(21))


def test_resuming_gives_the_same_batches_and_seeds_differ(numbered):
    whole = list(map(ids, take(train_batches(numbered, batch_size=8, seed=1), 9)))
    assert list(map(ids, take(train_batches(numbered, batch_size=8, seed=1, start_step=5, threads=4), 4))) == whole[5:]
    assert ids(train_dataset(numbered, batch_size=8, seed=1)[7]) == whole[7]
    far = next(train_batches(numbered, batch_size=8, seed=1, start_step=10**9))
    assert ids(far) == ids(train_dataset(numbered, batch_size=8, seed=1)[10**9])
    assert ids(next(train_batches(numbered, batch_size=8, seed=2))) != whole[0]


def test_dataset_smaller_than_a_batch(numbered, write_images):
    batch = next(train_batches(numbered, batch_size=50, seed=0))
    assert np.bincount(ids(batch)).min() == 2
    one = open_source(f"folder:{write_images('1.png')}", "train")
    assert next(train_batches(OnCanvas(one, 8), batch_size=4, seed=0))["image"].shape == (4, 8, 8, 3)


def test_canvas_resizes_and_tells_the_original_sizes(write_images):
    source = open_source(f"folder:{write_images(*[f'train/{i}.png' for i in range(6)])}", "train")
    batch = next(train_batches(OnCanvas(source, 10), batch_size=6, seed=0))
    assert set(batch) == {"image", "index", "size"}
    assert batch["image"].shape == (6, 10, 10, 3) and batch["image"].dtype == np.uint8
    assert batch["size"].dtype == np.int32
    # Image i was written with a height of 6 + i % 3, a width of 8, and the value i everywhere.
    assert batch["size"].tolist() == [[6 + i % 3, 8] for i in ids(batch)]
    assert sorted(ids(batch)) == list(range(6))


def test_images_of_varying_size_need_a_canvas(write_images):
    source = open_source(f"folder:{write_images('1.png', '2.png')}", "train")
    for start in (lambda: train_batches(source, batch_size=2, seed=0), lambda: eval_batches(source, 2)):
        with pytest.raises(DataError, match="images of .* may differ in size"):
            start()


def test_undecodable_files_do_not_stop_training(write_images):
    root = write_images(*[f"train/{i}.png" for i in range(6)])
    (root / "train/2.png").write_bytes(b"")
    source = open_source(f"folder:{root}", "train")
    batch = next(train_batches(OnCanvas(source, 8), batch_size=6, seed=0))
    assert sorted(ids(batch)) == [0, 1, 3, 3, 4, 5]


def test_evaluation_sees_each_once_in_order_and_pads(numbered):
    batches = list(eval_batches(numbered, 8))
    assert [batch["image"].shape for batch in batches] == [(8, 4, 4, 3)] * 3
    assert sum(map(ids, batches), [])[:21] == list(range(21))
    masks = np.concatenate([batch["mask"] for batch in batches])
    assert masks.dtype == bool and masks.tolist() == [True] * 21 + [False] * 3
    labels = np.concatenate([batch["label"] for batch in batches])
    assert labels.dtype == np.int32 and labels.tolist() == [i % 3 for i in range(21)] + [-1] * 3
    assert not batches[-1]["image"][5:].any()


def test_evaluation_of_exact_batches_has_no_padding(numbered):
    assert [batch["mask"].all() for batch in eval_batches(numbered, 7)] == [True] * 3


def test_evaluation_leaves_undecodable_files_out(write_images):
    root = write_images(*[f"test/{i}.png" for i in range(9)])
    for i in (1, 2, 8):
        (root / f"test/{i}.png").write_bytes(b"")
    source = open_source(f"folder:{root}", "test")
    batches = list(eval_batches(OnCanvas(source, 8), 4))
    assert sum(map(ids, batches), []) == [0, 0, 0, 3, 4, 5, 6, 7, 0, 0, 0, 0]
    masks = np.concatenate([batch["mask"] for batch in batches])
    assert np.flatnonzero(masks).tolist() == [0, 3, 4, 5, 6, 7]
    assert set(batches[0]) == {"image", "size", "label", "mask"}
    assert batches[1]["size"].tolist() == [[7, 8], [8, 8], [6, 8], [7, 8]]
    assert (batches[0]["label"] == -1).all()
    assert len(source.skipped) == 3


def test_evaluation_in_parts_is_the_same_batch(numbered):
    whole = list(eval_batches(numbered, 8))
    parts = [list(eval_batches(numbered, 8, rows=rows)) for rows in (np.array([0, 1, 4, 5]), np.array([2, 3, 6, 7]))]
    for batch, a, b in zip(whole, *parts, strict=True):
        for name in batch:
            np.testing.assert_array_equal(batch[name][[0, 1, 4, 5, 2, 3, 6, 7]], np.concatenate([a[name], b[name]]))


def test_files_that_vanish_are_no_damaged_files(write_images):
    root = write_images(*[f"train/{i}.png" for i in range(6)])
    source = open_source(f"folder:{root}", "train")
    batches = train_batches(OnCanvas(source, 8), batch_size=6, seed=0)
    next(batches)
    for path in root.rglob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match="was there when .* was listed, and is gone .* bring the data back"):
        take(batches, 10)


def test_evaluation_of_nothing_decodable(write_images):
    root = write_images("test/1.png", "test/2.png")
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="None of the 2 images"):
        list(eval_batches(OnCanvas(open_source(f"folder:{root}", "test"), 8), 4))


def test_interpreter_exits_though_batches_are_being_made():
    program = (
        "from ssljax.data import OnCanvas, open_source, train_batches\n"
        "batches = train_batches(OnCanvas(open_source('demo', 'train'), 64), batch_size=64, seed=0, threads=4)\n"
        "next(batches)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_closing_ends_the_iteration(numbered):
    batches = train_batches(numbered, batch_size=8, seed=0)
    next(batches)
    batches.close()
    assert next(batches, None) is None
