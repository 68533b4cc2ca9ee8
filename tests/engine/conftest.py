"""What tests of whole runs share."""

import contextlib
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import pytest

from ssljax.build import build_run, build_source, example_batch
from ssljax.config import recall
from ssljax.engine.checkpoint import Checkpoints
from ssljax.engine.logs import read_metrics

sys.path.insert(0, str(Path(__file__).parent))  # where forked processes, too, find `inside`

import inside
from faults import Fault, Started, curve, losses

ROOT = Path(__file__).parents[2]
CONFIG = f"--config={ROOT}/configs/images/simclr.py:demo"
SMALL = (
    "batch_size=16 views.size=16 views.jitter=0.0 views.grey=0.0 encoder.channels=4 method.projector=(16,16) "
    "log.every=1 checkpoint.every=2 evaluate.every=0 evaluate.train_examples=64 evaluate.test_examples=32 "
    "evaluate.k=5 steps=32"
).split()


@pytest.fixture(scope="session")
def abstract_state() -> Callable:
    """`abstract_state(workdir)` is what its checkpoints are read as; made once for each config, for it takes long."""
    known = {}

    def make(workdir):
        text = (workdir / "config.json").read_text()
        if text not in known:
            config = recall(workdir)
            source = build_source(config, "train")
            known[text] = build_run(config, examples=len(source), example=example_batch(config, source)).abstract
        return known[text]

    return make


@pytest.fixture(scope="session")
def final_state(abstract_state) -> Callable:
    """`final_state(workdir)` is the newest checkpoint, in host memory; quicker where what it is read as is given."""

    def read(workdir, abstract=None):
        with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
            return jax.device_get(checkpoints.restore(abstract or abstract_state(workdir)))

    return read


@pytest.fixture(scope="session")
def assert_equal_to_the_bit() -> Callable:
    def check(a, b):
        for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))

    return check


@pytest.fixture(scope="session")
def difference(final_state, assert_equal_to_the_bit) -> Callable[[Path, Path], str]:
    """`difference(run, other)` is where two runs that log every step did not come to the same; "" if they did."""

    def compare(run, other):
        try:
            assert_equal_to_the_bit(final_state(run), final_state(other))
            assert [row["step"] for row in read_metrics(run)] == list(losses(other)), (
                "steps are missing, or there twice"
            )
            assert losses(run) == losses(other), "other losses were logged"
            assert curve(run) == {step: np.float32(loss) for step, loss in losses(run).items()}, "TensorBoard's curve"
        except Exception as error:
            return f"{run.name}: {error}"
        return ""

    return compare


@pytest.fixture
def fault(record_property) -> Iterator[Fault]:
    fault = Fault()
    yield fault
    for name, value in vars(fault).items():
        record_property(name, len(value) if name == "lost" else value)
    assert fault.name and fault.trials and not fault.lost, fault.lost


def flags(workdir: Path, fields: Sequence[str]) -> list[str]:
    return [CONFIG, f"--workdir={workdir}", *(f"--config.{field}" for field in [*SMALL, *fields])]


@pytest.fixture(scope="session")
def compilations(tmp_path_factory) -> dict[str, str]:
    """The environment of the processes that tests start: what one compiles, all of them have."""
    return {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compilations")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
        "PYTHON": sys.executable,
    }


@pytest.fixture(scope="session")
def forks(compilations):
    """A process that has imported everything, and that others are forked from: they are real, and start soon."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ssljax.train", "inside", "pytest"])
    before = {name: os.environ.get(name) for name in compilations}
    os.environ.update(compilations)
    first = context.Process(target=int)
    first.start()
    first.join()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    return context


@pytest.fixture(scope="session")
def start(forks, tmp_path_factory) -> Iterator[Callable[..., Started]]:
    """`start(workdir, *fields, befall=[...])` runs ssljax.train in a new process; `inside` has what can befall it."""
    outputs, started = tmp_path_factory.mktemp("outputs"), []

    def run(workdir: Path, *fields: str, befall: Sequence[inside.Befall] = ()) -> Started:
        output = outputs / str(len(started))
        process = forks.Process(target=inside.command, args=(flags(workdir, fields), output, list(befall)))
        process.start()
        started.append(Started(process, output))
        return started[-1]

    yield run
    for one in started:
        if one.alive():
            one.send(signal.SIGKILL)


@pytest.fixture(scope="session")
def start_processes(compilations) -> Iterator[Callable[..., Started]]:
    """`start_processes(n, workdir, *fields, restarts=0)` runs ssljax.train in n processes by launch/processes."""
    with contextlib.ExitStack() as stack:

        def run(n: int, workdir: Path, *fields: str, restarts: int = 0) -> Started:
            command = [ROOT / "launch" / "processes", "-n", n, "-d", 1, "--restarts", restarts, "--"]
            output = workdir.with_suffix(f".{time.monotonic_ns()}")
            with output.open("w") as file:
                process = subprocess.Popen(
                    list(map(str, [*command, *flags(workdir, fields)])),
                    env=os.environ | compilations,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return Started(process, output)

        yield run


@pytest.fixture(scope="session")
def undisturbed(start, tmp_path_factory) -> Callable[..., Path]:
    """`undisturbed(*fields)` is the folder of a complete run that nothing befell."""

    @functools.cache
    def run(*fields: str, befall: inside.Befall | None = None) -> Path:
        workdir = tmp_path_factory.mktemp("undisturbed") / "whole"
        assert not start(workdir, *fields, befall=[befall] if befall else []).completed()
        return workdir

    return run
