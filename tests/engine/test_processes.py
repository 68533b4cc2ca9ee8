"""Several real processes, as on the hosts of a pod: one run, whatever their number."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from ssljax.engine.logs import read_metrics
from ssljax.engine.processes import ProcessLost, join

ROOT = Path(__file__).parents[2]
STEPS = 10
FIELDS = (
    f"batch_size=16 steps={STEPS} log.every=2 checkpoint.every=4 evaluate.every=4 evaluate.train_examples=64 "
    "evaluate.test_examples=32 evaluate.k=5 views.size=16 views.jitter=0.0 views.grey=0.0 encoder.channels=4 "
    "method.projector=(16,8) method.queue=64 optimizer.name=sgd optimizer.learning_rate=0.01 optimizer.momentum=0.0 "
    "optimizer.warmup_epochs=0.0"
).split()


@pytest.fixture(scope="module")
def start(compilations):
    """`start(processes, devices, workdir, *fields)`: a run of MoCo v2 (whose queue is state that batches fill) in so
    many processes with so many devices each."""

    def begin(processes, devices, workdir, *fields, module="ssljax.train"):
        command = [ROOT / "launch" / "processes", "-n", str(processes), "-d", str(devices), "--module", module, "--"]
        if module == "ssljax.train":
            command += [f"--config={ROOT}/configs/images/moco_v2.py:demo"]
            command += [f"--config.{field}" for field in [*FIELDS, *fields]]
        command += [f"--workdir={workdir}"]
        pipe, environment = subprocess.PIPE, os.environ | compilations
        return subprocess.Popen(command, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)

    return begin


@pytest.fixture(scope="module")
def run(start):
    """`run(…)`: as `start`, to its end; returns what was printed."""

    def whole(*args, code=0, **options):
        process = start(*args, **options)
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == code, printed
        return printed

    return whole


def assert_equal_to_rounding(a, b):
    """Of the largest number in each part of the state: the optimiser keeps gradients, and theirs is above one."""
    for part in vars(a):
        x, y = getattr(a, part), getattr(b, part)
        scale = max([1.0, *(float(np.abs(leaf).max(initial=0.0)) for leaf in jax.tree.leaves(x))])
        for (path, u), v in zip(jax.tree_util.tree_leaves_with_path(x), jax.tree.leaves(y), strict=True):
            where = part + jax.tree_util.keystr(path)
            np.testing.assert_allclose(u, v, rtol=0, atol=5e-6 * scale, err_msg=where)


def curves(workdir):
    """What was logged, without what a clock measured."""
    timed = ("second", "_seconds")
    return [{k: v for k, v in row.items() if not any(t in k for t in timed)} for row in read_metrics(workdir)]


MESH = "mesh.data=2", "mesh.fsdp=2"


@pytest.fixture(scope="module")
def few_images(tmp_path_factory):
    """So many that neither batches nor devices divide them."""
    rng, path = np.random.RandomState(0), tmp_path_factory.mktemp("data") / "few.npz"
    images, labels = rng.randint(0, 255, (120, 20, 20, 3), np.uint8), rng.randint(0, 3, 120)
    np.savez(path, x_train=images[:75], y_train=labels[:75], x_test=images[75:], y_test=labels[75:])
    return f"data.source=npz:{path}"


@pytest.fixture(scope="module")
def one(run, few_images, tmp_path_factory):
    """A run in one process with four devices; and a copy of it that was evaluated afterwards."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    run(1, 4, workdir, few_images, *MESH)
    evaluated = shutil.copytree(workdir, workdir.with_name("evaluated"))
    run(1, 4, evaluated, module="ssljax.evaluate")
    return workdir, evaluated


def test_two_processes_are_one(one, run, few_images, tmp_path, final_state):
    """State, metrics and online k-NN of two processes with two devices each are those of one with four. (That four
    processes are two, `test_elastic` shows.)"""
    workdir, _ = one
    several = tmp_path / "several"
    printed = run(2, 2, several, few_images, *MESH)
    assert_equal_to_rounding(final_state(workdir), final_state(several))
    ours, theirs = curves(workdir), curves(several)
    assert len(ours) == STEPS // 2 and [sorted(row) for row in ours] == [sorted(row) for row in theirs]
    assert sum("knn" in row for row in ours) == STEPS // 4 + 1
    for a, b in zip(ours, theirs, strict=True):
        assert a.get("knn") == b.get("knn")
        np.testing.assert_allclose(list(a.values()), [b[name] for name in a], rtol=1e-4, atol=1e-5)
    # Process 0 alone writes logs; all wrote the checkpoints.
    assert printed.count("complete: ") == 1 and f"step {STEPS}/{STEPS}" in printed
    assert not [line for line in printed.splitlines() if line.startswith("[") and "step" in line]
    assert len(list((several / "tensorboard").glob("events*"))) == 1
    for checkpoint in (several / "checkpoints").iterdir():
        assert len(list(checkpoint.glob("default/ocdbt.process_*"))) == 2


def test_two_processes_evaluate_as_one(one, run, tmp_path):
    workdir, evaluated = one
    again = shutil.copytree(workdir, tmp_path / "again")
    printed = run(2, 2, again, module="ssljax.evaluate")
    assert printed.count("report: ") == 1
    results = [json.loads((folder / "results.json").read_text()) for folder in (evaluated, again)]
    assert results[0] == results[1]


def test_elastic(start, run, tmp_path, final_state, assert_equal_to_the_bit):
    """Stopped with four processes, resumed with two on the same mesh, and with one on another: the same run."""
    long = ("steps=24", "checkpoint.every=0", "evaluate.every=0")
    run(2, 2, tmp_path / "whole", *long)

    process = start(4, 1, tmp_path / "stopped", *long)
    deadline = time.time() + 200
    while not (tmp_path / "stopped" / "config.json").exists():  # compiling still, so that no machine is too fast
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=100)
    assert process.returncode == 75, printed
    (stopped_at,) = (int(path.name) for path in (tmp_path / "stopped" / "checkpoints").iterdir())
    assert 0 < stopped_at < 24

    shutil.copytree(tmp_path / "stopped", tmp_path / "other mesh")
    assert f"going on from step {stopped_at}" in run(2, 2, tmp_path / "stopped", *long)
    assert_equal_to_the_bit(final_state(tmp_path / "whole"), final_state(tmp_path / "stopped"))
    assert curves(tmp_path / "whole") == [row for row in curves(tmp_path / "stopped") if row["step"] != stopped_at] or (
        stopped_at % 2 == 0 and curves(tmp_path / "whole") == curves(tmp_path / "stopped")
    )

    run(1, 4, tmp_path / "other mesh", *long, *MESH)
    assert_equal_to_rounding(final_state(tmp_path / "whole"), final_state(tmp_path / "other mesh"))


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (("localhost:1", 2, None), "needed together"),
        ((None, None, 0), "needed together"),
        (("localhost", 2, 0), "must be HOST:PORT"),
        (("localhost:1", 2, 2), r"--process=2 must be one of 0 … 1"),
    ],
)
def test_flags_that_do_not_fit(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        join(*arguments)


@pytest.mark.parametrize(
    "variables, joins",
    [
        ({}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, False),  # a shell inside an allocation
        ({"SLURM_STEP_NODELIST": "a,b", "SLURM_NTASKS": "1"}, False),
        ({"SLURM_STEP_NODELIST": "a,b", "SLURM_NTASKS": "2"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
    ],
)
def test_joins_where_the_environment_says_that_there_are_others(variables, joins, monkeypatch):
    asked = []

    def initialize(*args, **options):
        asked.append(args)
        raise RuntimeError("DEADLINE_EXCEEDED: nobody answers")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if joins:
        with pytest.raises(ProcessLost, match="did not find each other .*nobody answers"):
            join()
    else:
        assert join() is False
    assert bool(asked) == joins
