"""Several real processes, as on the hosts of a pod: one run, whatever their number."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from ssljax.engine.logs import read_metrics
from ssljax.engine.processes import ProcessLost, join
from ssljax.methods import METHODS

ROOT = Path(__file__).parents[2]
STEPS = 10
FIELDS = {
    "all": f"batch_size=16 steps={STEPS} log.every=2 checkpoint.every=4 evaluate.every=4 evaluate.train_examples=64 "
    "evaluate.test_examples=32 evaluate.k=5 views.size=16 optimizer.name=sgd optimizer.learning_rate=0.01 "
    "optimizer.momentum=0.0 optimizer.warmup_epochs=0.0",
    "simclr": "encoder.channels=4 method.projector=(16,16) method.temperature=0.5",
    "moco_v2": "encoder.channels=4 method.projector=(16,8) method.queue=64",
    "mae": "encoder.width=16 encoder.depth=2 encoder.heads=2 method.decoder_width=16 method.decoder_heads=2",
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """What was compiled for one test is not compiled for the next."""
    compiled = str(tmp_path_factory.mktemp("compiled"))
    return os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": compiled}


@pytest.fixture(scope="module")
def start(environment):
    """`start(processes, devices, method, workdir, *fields)`: a run in so many processes with so many devices each."""

    def begin(processes, devices, method, workdir, *fields, module="ssljax.train"):
        command = [ROOT / "launch" / "processes", "-n", str(processes), "-d", str(devices), "--module", module, "--"]
        if module == "ssljax.train":
            (config,) = ROOT.glob(f"configs/*/{method}.py")
            chosen = [*FIELDS["all"].split(), *FIELDS[method].split(), *fields]
            command += [f"--config={config}:demo", *(f"--config.{field}" for field in chosen)]
        command += [f"--workdir={workdir}"]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

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


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_are_one(method, run, tmp_path, final_state):
    """State, metrics, online k-NN and evaluation of two processes with two devices each are those of one with four."""
    mesh = ("mesh.data=2", "mesh.fsdp=2")
    run(1, 4, method, tmp_path / "one", *mesh)
    printed = run(2, 2, method, tmp_path / "two", *mesh)
    assert_equal_to_rounding(final_state(tmp_path / "one"), final_state(tmp_path / "two"))
    one, two = curves(tmp_path / "one"), curves(tmp_path / "two")
    assert len(one) == STEPS // 2 and [sorted(row) for row in one] == [sorted(row) for row in two]
    for a, b in zip(one, two, strict=True):
        assert a.get("knn") == b.get("knn")
        np.testing.assert_allclose(list(a.values()), [b[name] for name in a], rtol=1e-4, atol=1e-5)
    # Process 0 alone writes logs; both wrote the checkpoint.
    assert printed.count("complete: ") == 1 and f"step {STEPS}/{STEPS}" in printed
    assert not [line for line in printed.splitlines() if line.startswith("[1]") and "step" in line]
    assert len(list((tmp_path / "two" / "tensorboard").glob("events*"))) == 1
    assert len(list((tmp_path / "two" / "checkpoints").glob("*/default/ocdbt.process_*"))) == 2 * len(
        list((tmp_path / "two" / "checkpoints").iterdir())
    )


def test_evaluation_in_two_processes(run, tmp_path):
    rng = np.random.RandomState(0)
    images = rng.randint(0, 255, (120, 16, 16, 3), np.uint8)
    labels = rng.randint(0, 3, 120)
    np.savez(tmp_path / "few.npz", x_train=images[:75], y_train=labels[:75], x_test=images[75:], y_test=labels[75:])
    run(1, 2, "mae", tmp_path / "one", f"data.source=npz:{tmp_path / 'few.npz'}", "evaluate.every=0")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    results = []
    for processes, name in ((1, "one"), (2, "two")):
        printed = run(processes, 2 // processes, "mae", tmp_path / name, module="ssljax.evaluate")
        assert printed.count("report: ") == 1
        results.append(json.loads((tmp_path / name / "results.json").read_text()))
    assert results[0] == results[1]


def test_elastic(start, run, tmp_path, final_state, assert_equal_to_the_bit):
    """Stopped with four processes, resumed with two on the same mesh, and with one on another: the same run."""
    long = ("steps=60", "checkpoint.every=0", "evaluate.every=0")
    run(2, 2, "moco_v2", tmp_path / "whole", *long)

    process = start(4, 1, "moco_v2", tmp_path / "stopped", *long)
    deadline = time.time() + 200
    while not (tmp_path / "stopped" / "config.json").exists():  # compiling still, so that no machine is too fast
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=100)
    assert process.returncode == 75, printed
    (stopped_at,) = (int(path.name) for path in (tmp_path / "stopped" / "checkpoints").iterdir())
    assert 0 < stopped_at < 60

    shutil.copytree(tmp_path / "stopped", tmp_path / "other mesh")
    assert f"going on from step {stopped_at}" in run(2, 2, "moco_v2", tmp_path / "stopped", *long)
    assert_equal_to_the_bit(final_state(tmp_path / "whole"), final_state(tmp_path / "stopped"))
    assert curves(tmp_path / "whole") == [row for row in curves(tmp_path / "stopped") if row["step"] != stopped_at] or (
        stopped_at % 2 == 0 and curves(tmp_path / "whole") == curves(tmp_path / "stopped")
    )

    run(1, 4, "moco_v2", tmp_path / "other mesh", *long, "mesh.data=2", "mesh.fsdp=2")
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
