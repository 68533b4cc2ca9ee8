"""What goes wrong with long runs, really done to real processes; the table in docs/reliability.md is made of this.

`python benchmarks/reliability.py --write` writes it.
"""

import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import cache, partial
from pathlib import Path

import inside
import jax
import numpy as np
import pytest
from faults import arguments_of, children, named, resumed_from, unnamed
from PIL import Image

from ssljax.data.pipeline import batch_indices
from ssljax.data.sources import open_source
from ssljax.engine.checkpoint import Checkpoints

AGAIN = 75  # as launch/README.md has it
POISONED_STEP = 7
ALL = os.environ.get("SSLJAX_FAULTS") == "all"
"""As benchmarks/reliability.py has it; the suite tries some of each."""
KILLS, PROCESSES = (36, 4) if ALL else (6, 2)
LONG = ("steps=90", "evaluate.every=4", "checkpoint.every=4")


def test_kill_minus_nine_over_and_over(start, undisturbed, difference, fault, tmp_path):
    rng, workdir, startup = random.Random(0), tmp_path / "killed", 3.0
    moments = [*rng.sample(["starting", "writing", "training"] * (KILLS // 3), KILLS)[1:], "training"]
    while_writing = while_starting = saved = 0
    while moments:
        moment, begun = moments.pop(), time.monotonic()
        run = start(workdir, *LONG)
        if moment == "starting":
            end = begun + rng.uniform(0, startup)
            run.until(lambda run=run, end=end: run.step() or time.monotonic() > end)
            if run.step():  # starts take less time than they did: another one is killed, sooner
                moments, startup = [*moments, moment], startup / 2
        else:
            run.until(run.step)
            startup = time.monotonic() - begun
            first, more = run.step(), rng.randint(1, 6)
            run.until(lambda run=run, first=first, more=more: run.step() >= first + more)
            run.until(lambda moment=moment: bool(unnamed(workdir)) == (moment == "writing"))
            time.sleep(rng.uniform(0, 0.01 if moment == "writing" else 0.03))
        assert run.alive(), "the run must be longer than all that befalls it"
        run.send(signal.SIGKILL)
        assert run.end() == -signal.SIGKILL
        while_writing += bool(run.step() and unnamed(workdir))
        while_starting += not run.step()
        going_on = run.step() and resumed_from(run.said()) < saved
        fault.trial("a checkpoint was lost" * bool(going_on), "a traceback" * ("Traceback" in run.said()))
        saved = max(named(workdir), default=0)
    kills = fault.trials
    assert while_writing >= KILLS // 4 and while_starting >= KILLS // 6
    last = start(workdir, *LONG)
    whole = undisturbed(*LONG)
    problems = last.completed(), difference(workdir, whole), "other checkpoints" * (named(workdir) != named(whole))
    fault.trial(*problems, "a checkpoint was damaged" * bool(list(workdir.glob("checkpoints/damaged*"))))
    fault.name = "`kill -9`"
    fault.done = (
        f"a run is killed {kills} times at random moments: {while_starting} times before its first step, "
        f"{while_writing} times in the middle of a checkpoint, else between two; the last trial is its end"
    )
    fault.outcome = "it goes on from the newest checkpoint; state, logged losses, curves and checkpoints are the same"


def test_sigterm_at_random_moments(start, undisturbed, difference, fault, tmp_path):
    rng, workdir, whole = random.Random(1), tmp_path / "stopped", undisturbed()
    for moment in ("starting", "training", "training") * (2 if ALL else 1):
        run = start(workdir)
        if moment == "starting":
            time.sleep(rng.uniform(0, 0.5))
        else:
            run.until(run.step)
            first, more = run.step(), rng.randint(0, 2)
            run.until(lambda run=run, first=first, more=more: run.step() >= first + more)
            time.sleep(rng.uniform(0, 0.03))
        run.send(signal.SIGTERM)
        code, said = run.end(), run.said()
        if code == -signal.SIGTERM and moment == "starting":  # before there is anything to save
            fault.trial()
        else:
            saved = code == AGAIN and "stopped and saved" in said and max(named(workdir)) == run.step()
            fault.trial("" if saved else f"ended with {code}: {said}")
    fault.trial(start(workdir).completed(), difference(workdir, whole))
    fault.name = "SIGTERM, as of a pre-emption"
    fault.done = "a run is told to stop while it starts and while it trains; the last trial is its end"
    fault.outcome = "it saves the step it is at and ends with exit code 75; before its first step it only ends"


@pytest.mark.parametrize("moment", ["evaluate", "device_get"])
def test_sigterm_is_noted_whatever_is_being_done(moment, start, fault, tmp_path):
    befall = partial(inside.sigterm_during, moment)
    fields = ("log.every=1", "checkpoint.every=1000", "evaluate.every=4")
    run = start(tmp_path / "stopped", *fields, befall=[befall])
    step = 4 if moment == "evaluate" else 1
    fine = run.end() == AGAIN and named(tmp_path / "stopped") == [step]
    fault.trial("" if fine else run.said())
    fault.name = "SIGTERM in the middle of something"
    fault.done = "while k-NN is measured, and while metrics are fetched, at a step that has no checkpoint due"
    fault.outcome = "the same"


@pytest.fixture(scope="module")
def processes_undisturbed(start_processes, tmp_path_factory):
    """`processes_undisturbed(n)` is the folder of a complete run of n processes."""

    @cache
    def run(n: int) -> Path:
        workdir = tmp_path_factory.mktemp("processes") / "whole"
        assert not start_processes(n, workdir, "steps=12").completed()
        return workdir

    return run


def test_sigterm_to_several_processes(start_processes, processes_undisturbed, difference, fault, tmp_path):
    whole, broken = processes_undisturbed(2), tmp_path / "broken"
    run = start_processes(2, broken, "steps=12")
    # Before the first step is compiled: JAX looks for signals once a second, in which all twelve steps could be made.
    run.until((broken / "config.json").exists)
    run.send(signal.SIGTERM)
    saved = run.end() == AGAIN and max(named(broken)) == run.step() < 12
    fault.trial("" if saved else run.said())
    fault.trial(start_processes(2, broken, "steps=12").completed(), difference(broken, whole))
    fault.name = "SIGTERM to several processes"
    fault.done = "two processes that train together are told to stop, and started again"
    fault.outcome = "both stop after the same step, which is saved; exit code 75; the end is the same"


def told(output: str) -> set[str]:
    """The processes that say that another one is gone, in our words or, where it was faster, in JAX's."""
    lines = [line for line in output.splitlines() if "is gone" in line or "another task died" in line]
    return {line[:3] if line.startswith("[") else "[0]" for line in lines}


def test_one_of_several_processes_is_killed(start_processes, processes_undisturbed, difference, fault, tmp_path):
    whole, broken = processes_undisturbed(PROCESSES), tmp_path / "broken"
    run = start_processes(PROCESSES, broken, "steps=12", restarts=2)
    seconds = []
    for restart, (victim, step) in enumerate([(PROCESSES // 2, 3), (0, 7)], start=1):
        run.until(lambda step=step: run.step() >= step)
        (pid,) = [p for p in children(run.process.pid) if f"--process={victim}" in arguments_of(p)]
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        run.until(lambda restart=restart: f"starting all of them again (restart {restart} of 2)" in run.said())
        seconds.append(time.monotonic() - killed)
        then = run.said().split("starting all of them again")[restart - 1]
        fault.trial(
            ""
            if len(told(then)) == PROCESSES - 1 and re.search(r" is gone( \(.*\))?; run the same command", then)
            else f"not said by all others: {then}",
            "" if seconds[-1] < 60 else f"the others needed {seconds[-1]:.0f} s",
        )
    fault.trial(run.completed(), difference(broken, whole))
    fault.name = "one of several processes is killed"
    fault.done = f"of {PROCESSES} that train together one is killed by `kill -9`, and later the first one"
    fault.outcome = (
        f"the others say which one is gone and stop, after {' and '.join(f'{s:.1f}' for s in seconds)} s; "
        "`launch/processes --restarts` starts all again; the end is the same"
    )


def damages(checkpoint: Path, rng: random.Random):
    """Ways to damage a checkpoint: names, and what does it to a copy in another folder."""

    def truncate(path: Path) -> None:
        os.truncate(path, rng.randrange(path.stat().st_size))

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)

    files = [path.relative_to(checkpoint) for path in sorted(checkpoint.rglob("*")) if path.is_file()]
    for damage in (truncate, flip, Path.unlink):
        for name in files:
            yield f"{damage.__name__} {name}", lambda copy, damage=damage, name=name: damage(copy / name)
    yield "half of the files deleted", lambda copy: [(copy / name).unlink() for name in files[::2]]
    yield "the other half", lambda copy: [(copy / name).unlink() for name in files[1::2]]
    yield "all files halved", lambda copy: [os.truncate(copy / n, (copy / n).stat().st_size // 2) for n in files]
    yield "empty", lambda copy: (shutil.rmtree(copy), copy.mkdir())


def test_the_newest_checkpoint_is_damaged(
    undisturbed, abstract_state, assert_equal_to_the_bit, fault, tmp_path, caplog
):
    workdir = undisturbed("evaluate.every=4")
    abstract = abstract_state(workdir)

    def restored(folder: Path):
        with Checkpoints(folder, best="knn") as checkpoints:
            return jax.device_get(checkpoints.restore(abstract))

    newest, previous = named(workdir)[-1], named(workdir)[-2]
    copy, used = tmp_path / "checkpoints", 0
    states = {}
    for step in (newest, previous):
        shutil.copytree(workdir / "checkpoints" / str(step), tmp_path / "one" / str(step))
        states[step] = restored(tmp_path / "one")
        shutil.rmtree(tmp_path / "one")
    for name, damage in list(damages(workdir / "checkpoints" / str(newest), random.Random(2)))[:: 1 if ALL else 5]:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(workdir / "checkpoints", copy)
        damage(copy / str(newest))
        caplog.clear()
        try:
            with caplog.at_level(logging.WARNING, logger="ssljax"):
                state = restored(copy)
            assert_equal_to_the_bit(state, states[int(state.step)])
            if int(state.step) == previous:
                used += 1
                assert f"checkpoints/{newest} " in caplog.text, "the damaged one is not named"
                assert (copy / f"damaged-{newest}").exists() and not (copy / str(newest)).exists()
            fault.trial()
        except Exception as error:
            fault.trial(f"{name}: {type(error).__name__} {error}")
    assert 2 * used > fault.trials, "most of these damages must have been noticed"
    fault.name = "the newest checkpoint is damaged"
    fault.done = (
        "each of its files truncated, with one bit flipped, deleted; half of them deleted; all halved; none left"
    )
    fault.outcome = (
        f"{used} times the checkpoint is named and moved aside, and the previous one is used; "
        f"{fault.trials - used} times the file was of no account and the state is whole"
    )


def test_a_run_whose_checkpoints_are_damaged(start, undisturbed, difference, fault, tmp_path):
    whole, workdir = undisturbed(), tmp_path / "damaged"
    shutil.copytree(whole, workdir)
    newest, previous = named(workdir)[-1], named(workdir)[-2]

    def halve(step: int) -> None:
        for path in (workdir / "checkpoints" / str(step)).rglob("*"):
            if path.is_file():
                os.truncate(path, path.stat().st_size // 2)

    for aside in (f"damaged-{newest}", f"damaged-{newest}-1"):
        halve(newest)
        run = start(workdir)
        problems = run.completed(), difference(workdir, whole)
        fine = f"checkpoints/{newest} is damaged" in run.said() and resumed_from(run.said()) == previous
        fault.trial(*problems, "" if fine and (workdir / "checkpoints" / aside).exists() else run.said())
    for step in (previous, newest):
        halve(step)
    fault.trial(start(workdir).complaint("no checkpoint can be read"))
    fault.trial("" if named(workdir) == [previous, newest] else "damaged ones are moved though nothing was read")
    fault.name = "all of a run with damaged checkpoints"
    fault.done = "all files of its newest checkpoint are cut in half, twice, and in the end those of all checkpoints"
    fault.outcome = "it makes the lost steps again, to the same end; where none can be read it says so and ends with 1"


@pytest.fixture
def disk(tmp_path):
    """`disk(megabytes)` is a file system of its own, and `disk.read_only(True)` makes it so."""
    mounted = []

    def mount(*options: str) -> bool:
        return subprocess.run(["mount", *options], capture_output=True).returncode == 0

    def make(name: str, megabytes: int) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        if sys.platform != "linux" or not mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)):
            pytest.skip("to mount a file system takes the rights of root, on Linux")
        mounted.append(folder)
        return folder

    def read_only(folder: Path, yes: bool) -> None:
        assert mount("-o", "remount," + ("ro" if yes else "rw"), str(folder))

    make.read_only = read_only
    yield make
    for folder in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_the_disk_is_full(start, undisturbed, abstract_state, difference, fault, disk, tmp_path):
    folder = disk("disk", 16)
    workdir, filler, whole = folder / "run", folder / "filler", undisturbed()
    left_and_seen = [(8192, True), (0, False), (8192, False), (40_000, False), (100_000, False)][: 5 if ALL else 2]
    for left, seen in left_and_seen:
        befall = partial(inside.fill_disk, filler, save=3, left=left, seen=seen)
        full = start(workdir, befall=[befall])
        problem = full.complaint("the disk is full")
        newest = named(workdir)[-1]
        with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
            state = checkpoints.restore(abstract_state(whole))
        intact = int(state.step) == newest > resumed_from(full.said())
        fault.trial(problem, "" if intact else f"of {newest} there is {int(state.step)}")
        if not left:  # and once more while it is full
            with filler.open("ab") as file:
                file.write(bytes(shutil.disk_usage(folder).free))
            fault.trial(start(workdir).complaint("the disk is full"), "" if named(workdir)[-1] == newest else "lost")
        filler.unlink()
    fault.trial(start(workdir).completed(), difference(workdir, whole))
    fault.name = "the disk is full"
    fault.done = (
        "a file fills the disk before a save or after the check that there is room for it, down to "
        + ", ".join(f"{left // 1000}" for left in sorted({left for left, _ in left_and_seen}))
        + " kB; the last trial is the end of the run, after room was made"
    )
    fault.outcome = "one sentence, exit code 1; the last checkpoint is intact, and the same command goes on from it"


def test_a_disk_that_is_said_to_be_full(start, fault, tmp_path):
    run = start(tmp_path / "run", befall=[partial(inside.say_the_disk_is_full, from_save=2)])
    fault.trial(run.complaint("the disk is full"), "" if named(tmp_path / "run") == [2] else "no checkpoint")
    fault.name = "the disk is about to be full"
    fault.done = "the system says that there is less room than a checkpoint needs (where no disk can be mounted, too)"
    fault.outcome = "nothing is begun; one sentence, exit code 1"


POISON = {
    "NaN in the loss": (np.nan, 0.0),
    "Inf in the loss": (np.inf, 0.0),
    "NaN in the gradient": (0.0, np.nan),
    "Inf in the gradient": (0.0, -np.inf),
    "a gradient that overflows": (0.0, 1e30),
}


def test_a_step_that_is_not_finite(start, undisturbed, difference, fault, tmp_path):
    rarely = ("log.every=5", "checkpoint.every=4", "steps=12")
    healthy = partial(inside.poison, POISONED_STEP, 0.0, 0.0, tmp_path / "evidence.npy")
    whole, images = undisturbed(*rarely, befall=healthy), open_source("demo", "train")
    tried = POISON if ALL else {what: POISON[what] for what in ("NaN in the loss", "a gradient that overflows")}
    for what, (in_loss, in_gradient) in tried.items():
        workdir, evidence = tmp_path / what.replace(" ", "-"), tmp_path / "evidence.npy"
        befall = partial(inside.poison, POISONED_STEP, in_loss, in_gradient, evidence)
        wrong = "loss" if in_loss else "gradient_norm"
        problem = start(workdir, *rarely, befall=[befall]).complaint(
            f"{wrong}", f"not finite at step {POISONED_STEP};", "the last good checkpoint is of step 4", "post-mortem"
        )
        found = json.loads((workdir / "post-mortem" / f"step-{POISONED_STEP}.json").read_text())
        noted = (
            found["step"] == POISONED_STEP
            and found["metrics"][wrong] in ("nan", "inf", "-inf")
            and found["indices"] == batch_indices(len(images), 16, 0, POISONED_STEP - 1).tolist()
            and np.array_equal(np.load(evidence), np.stack([images[i]["image"] for i in found["indices"]]))
        )
        fault.trial(problem, "" if noted and named(workdir) == [4] else f"{what}: {found}, {named(workdir)}")
        fault.trial(start(workdir, *rarely, befall=[healthy]).completed(), difference(workdir, whole))
    fault.name = "a step is not finite"
    fault.done = f"{', '.join(tried)}, at a step that is neither logged nor saved; then the same without it"
    fault.outcome = (
        "it stops at that step, keeps the checkpoint before, and writes down the metrics and the batch's indices"
    )


def test_two_runs_on_one_workdir(start, undisturbed, difference, fault, tmp_path):
    workdir, whole = tmp_path / "run", undisturbed()
    hold_still = partial(inside.at_step, 5, partial(inside.signal_oneself, signal.SIGSTOP))
    first = start(workdir, befall=[hold_still])
    first.until(first.stopped)
    for _ in range(2):
        fault.trial(start(workdir).complaint("is in use by a run that is going on", f"process {first.process.pid} on "))
    first.send(signal.SIGCONT)
    fault.trial(first.completed(), difference(workdir, whole))

    other = tmp_path / "killed"
    holder = start(other, befall=[hold_still])
    holder.until(holder.stopped)
    holder.send(signal.SIGKILL)
    assert holder.end() == -signal.SIGKILL
    fault.trial(start(other).completed(), difference(other, whole))
    fault.name = "two runs on one workdir"
    fault.done = "a second run is started twice while the first one trains; a holder is killed by `kill -9`"
    fault.outcome = (
        "the second ends with 1 and names the process and host of the first, which is not disturbed; after the kill a "
        "new run begins at once"
    )


def test_clock_and_host_name_change(start, undisturbed, difference, fault, tmp_path):
    workdir, whole, codes = tmp_path / "run", undisturbed(), []
    for i, step in enumerate((4, 9, 15, 20) if ALL else (4, 15)):
        stop = partial(inside.at_step, step, partial(inside.signal_oneself, signal.SIGTERM))
        run = start(workdir, befall=[partial(inside.wrong_clock, i, f"host-{9 - i}"), stop])
        codes.append(run.end())
        fault.trial("" if codes[-1] == AGAIN and "Traceback" not in run.said() else run.said())
    while codes[-1] == AGAIN and len(codes) < 12:
        run = start(workdir, befall=[partial(inside.wrong_clock, len(codes), "host")])
        codes.append(run.end())
        fault.trial("" if codes[-1] in (0, AGAIN) and "Traceback" not in run.said() else run.said())
    fault.trial(difference(workdir, whole))
    fault.name = "clock and host name change"
    fault.done = "between starts and every few steps the clock jumps by up to ten years, and hosts have other names"
    fault.outcome = (
        "the run goes on to the same end; logs and curves are in order; a save during which the clock has jumped by "
        f"more than minutes can count as timed out, and ends with {AGAIN}"
    )


def test_the_workdir_is_read_only(start, undisturbed, difference, fault, disk, tmp_path):
    folder, whole = disk("disk", 16), undisturbed()
    stop = partial(inside.at_step, 5, partial(inside.signal_oneself, signal.SIGTERM))
    workdir = folder / "run"
    assert start(workdir, befall=[stop]).end() == AGAIN
    disk.read_only(folder, True)
    a_file = tmp_path / "file"
    a_file.write_text("")
    for place in (workdir, folder / "new", Path("/proc/run"), Path("/sys/run"), a_file, a_file / "run"):
        fault.trial(start(place).complaint(f"{place} cannot be written", "choose another --workdir"))
    disk.read_only(folder, False)
    fault.trial(start(workdir).completed(), difference(workdir, whole))

    part = tmp_path / "part"
    disk.read_only(disk("part/checkpoints", 1), True)
    fault.trial(start(part).complaint(f"the checkpoint in {part}/checkpoints could not be written", "Read-only"))
    fault.name = "the workdir cannot be written"
    fault.done = "a mount becomes read-only, with a run in it and without; /proc, /sys, a file; only the checkpoints"
    fault.outcome = "one sentence, exit code 1; once it can be written the same command goes on to the same end"


def test_the_data_go_away(start, undisturbed, difference, fault, tmp_path):
    rng = np.random.RandomState(0)
    images, labels = rng.randint(0, 256, (40, 20, 20, 3), np.uint8), np.arange(40, dtype=np.int32) % 2
    folder, away = tmp_path / "images", tmp_path / "away"
    for i, image in enumerate(images):
        (folder / f"{labels[i]}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{labels[i]}" / f"{i}.png")
    source, workdir = f"data.source=folder:{folder}", tmp_path / "run"
    whole = undisturbed(source)
    one = next(folder.rglob("*.png"))
    for step, (there, elsewhere) in {5: (folder, away), 12: (one, tmp_path / "one.png")}.items():
        vanish = partial(inside.at_step, step, partial(os.rename, there, elsewhere))
        run = start(workdir, source, befall=[vanish])
        fault.trial(run.complaint(f"{there}", "is gone", "bring the data back"))
        if there == folder:
            fault.trial(start(workdir, source).complaint(f"There is no folder '{folder}'"))
        elsewhere.rename(there)
    fault.trial(start(workdir, source).completed(), difference(workdir, whole))

    archive = tmp_path / "images.npz"
    np.savez(archive, train_image=images, train_label=labels, test_image=images, test_label=labels)
    source, workdir = f"data.source=npz:{archive}", tmp_path / "of-arrays"
    whole = undisturbed(source)
    fault.trial(start(workdir, source, befall=[partial(inside.at_step, 5, archive.unlink)]).completed())
    np.savez(archive, train_image=images, train_label=labels, test_image=images, test_label=labels)
    fault.trial(difference(workdir, whole))
    fault.name = "the data go away"
    fault.done = "while a run trains, the folder of its images is moved away, later one image; an array file is deleted"
    fault.outcome = "one sentence that names the file, exit code 1, the same end once it is back; arrays are in memory"
