"""launch/processes, in a copy of the repository whose ssljax.train only does what a test tells it to."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Each argument is a statement, run in order; I is the number of the process. `say` is one write, so that the processes,
# whose output is not buffered, cannot cut each other's lines.
TRAIN = """
import json, os, signal, subprocess, sys, time
from pathlib import Path

*statements, coordinator, count, number = sys.argv[1:]
I = int(number.removeprefix("--process="))
say = lambda *words: os.write(1, " ".join(map(str, words)).encode() + b"\\n")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
signal.signal(signal.SIGINT, lambda *_: sys.exit(75))
for statement in statements:
    exec(statement)
"""
WAIT = "Path(f'pid{I}').write_text(str(os.getpid())); time.sleep(60)"
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


class Clone:
    def __init__(self, home: Path):
        self.home, self.launcher = home, home / "my clone/launch/processes"
        for name in ("my clone/launch", "my clone/ssljax"):
            (home / name).mkdir(parents=True)
        shutil.copy(ROOT / "launch/processes", self.launcher)
        (home / "my clone/ssljax/train.py").write_text(TRAIN)
        (home / "my clone/ssljax/evaluate.py").write_text("import sys; print('evaluates', sys.argv[1])")
        self.started: list[subprocess.Popen] = []

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen:
        environ = {"PATH": os.environ["PATH"], "PYTHON": sys.executable} | environ
        pipe = subprocess.PIPE
        command = [str(self.launcher), *arguments]
        self.started.append(subprocess.Popen(command, cwd=self.home, env=environ, text=True, stdout=pipe, stderr=pipe))
        return self.started[-1]

    def run(self, *arguments: str, **environ: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **environ)
        out, err = process.communicate(timeout=30)
        return process.returncode, out, err

    def pids(self, count: int) -> list[int]:
        """Of processes that run WAIT, once all of them have begun it."""
        files = [self.home / f"pid{i}" for i in range(count)]
        wait_until(lambda: all(file.exists() and file.read_text() for file in files))
        return [int(file.read_text()) for file in files]


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    clone = Clone(tmp_path)
    yield clone
    for process in clone.started:
        process.kill()
        process.communicate()


def wait_until(true: Callable[[], bool]):
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout[:1] != "Z"
    except ProcessLookupError:
        return False


def test_each_knows_its_number_and_all_are_given_the_same_arguments(clone: Clone):
    show = "say(json.dumps([I, number, count, coordinator, statements[1:], os.getcwd(), os.environ['PYTHONPATH']]))"
    arguments = ["'a \"b\" $c *'", "'-n 7'", ""]
    code, out, err = clone.run("-n", "3", "--", show, *arguments)
    assert (code, err) == (0, "")
    first, *others = sorted(out.splitlines())
    said = [json.loads(line) for line in (first, others[0].removeprefix("[1] "), others[1].removeprefix("[2] "))]
    coordinator = said[0][3]
    assert coordinator.startswith("--coordinator=127.0.0.1:")
    same = ["--processes=3", coordinator, arguments, str(clone.home), str(clone.home / "my clone")]
    assert said == [[i, f"--process={i}", *same] for i in range(3)]


def test_every_line_of_the_others_is_marked_and_those_of_process_0_are_not(clone: Clone):
    write = "sys.stderr.write('x\\ny\\n') if I else sys.stderr.write('zero\\n\\n')"
    code, out, err = clone.run("-n", "2", "--", write, "sys.stdout.write('no end')")
    assert code == 0
    assert sorted(err.split("\n")) == ["", "", "[1] x", "[1] y", "zero"]
    assert out in ("no end[1] no end\n", "[1] no end\nno end")


def test_virtual_devices_and_gpus_of_each(clone: Clone):
    names = "XLA_FLAGS", "JAX_NUM_CPU_DEVICES", "JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"
    show = f"say('|'.join([str(I), *(os.environ.get(name, '-') for name in {names})]))"
    flags = "--xla_force_host_platform_device_count=8 --xla_dump_to=x"
    _, out, _ = clone.run("-n", "2", "-d", "3", "--", show, XLA_FLAGS=flags)
    assert sorted(out.split("\n")) == ["", "0| --xla_dump_to=x|3|cpu|-", "[1] 1| --xla_dump_to=x|3|cpu|-"]
    _, out, _ = clone.run("-n", "2", "-g", "2", "--", show)
    assert sorted(out.split("\n")) == ["", "0|-|-|-|0,1", "[1] 1|-|-|-|2,3"]


def test_another_module(clone: Clone):
    assert clone.run("-n", "1", "--module", "ssljax.evaluate", "--", "--workdir=runs/a") == (
        0,
        "evaluates --workdir=runs/a\n",
        "",
    )


def test_the_python_of_the_repository_goes_before_that_of_the_path(clone: Clone):
    python = clone.home / "my clone/.venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho $2")
    python.chmod(0o755)
    assert clone.run("-n", "1", "--") == (0, "ssljax.train\n", "")


@pytest.mark.parametrize(
    "statements, code",
    [
        (["pass"], 0),
        (["sys.exit(1 if I == 2 else 75)"], 1),
        (["sys.exit(2 * I)"], 1),
        (["sys.exit(75 * (I == 1))"], 75),
        (["sys.exit(137 * (I == 1))"], 75),
        (["if I == 0: os.kill(os.getpid(), signal.SIGABRT)"], 75),
    ],
    ids=["complete", "an error of one", "an unknown error", "stopped", "killed by a signal of a shell", "aborted"],
)
def test_one_exit_code_for_all(clone: Clone, statements: list[str], code: int):
    assert clone.run("-n", "3", "--", *statements)[0] == code


def test_when_one_is_killed_the_others_may_stop_and_then_are_killed(clone: Clone):
    grandchild = "if I == 1: Path('grandchild').write_text(str(subprocess.Popen(['sleep', '60']).pid))"
    launcher = clone.start("-n", "3", "--grace", "0.5", "--", DEAF, grandchild, WAIT)
    pids = clone.pids(3)
    os.kill(pids[1], signal.SIGKILL)
    _, err = launcher.communicate(timeout=10)
    assert launcher.returncode == 75
    assert err.splitlines() == [
        "processes: process 1 was ended by SIGKILL; the others have 0.5 s to stop by themselves.",
        "processes: process 0 did not stop in 0.5 s and was killed.",
        "processes: process 2 did not stop in 0.5 s and was killed.",
    ]
    assert not any(alive(pid) for pid in [*pids, int((clone.home / "grandchild").read_text())])


def test_the_others_are_left_alone_while_they_stop(clone: Clone):
    code, out, err = clone.run("-n", "2", "--", "if I == 0: sys.exit(75)", "time.sleep(0.5)", "print('saved')")
    assert (code, out) == (75, "[1] saved\n")
    assert err == "processes: process 0 ended with exit code 75; the others have 60 s to stop by themselves.\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_given_to_all_and_nothing_is_started_again(clone: Clone, number: signal.Signals):
    launcher = clone.start("-n", "2", "--restarts", "3", "--", WAIT)
    pids = clone.pids(2)
    launcher.send_signal(number)
    out, err = launcher.communicate(timeout=10)
    assert (launcher.returncode, out, err) == (75, "", "")
    assert not any(map(alive, pids))


def test_who_asks_three_times_is_obeyed(clone: Clone):
    launcher = clone.start("-n", "2", "--", DEAF, WAIT)
    pids = clone.pids(2)
    for _ in range(3):
        launcher.terminate()
        time.sleep(0.2)
    _, err = launcher.communicate(timeout=10)
    assert launcher.returncode == 75 and err.count("told to stop three times") == 2
    assert not any(map(alive, pids))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells children that their parent has died")
def test_a_launcher_that_is_killed_leaves_nothing_behind(clone: Clone):
    launcher = clone.start("-n", "2", "--", DEAF, WAIT)
    pids = clone.pids(2)
    launcher.kill()
    wait_until(lambda: not any(map(alive, pids)))


COUNT = "starts = len(list(Path().glob(f'start{I}-*'))); Path(f'start{I}-{starts}').write_text(coordinator)"


def test_restarts_go_on_until_it_is_complete(clone: Clone):
    code, _, err = clone.run("-n", "2", "--restarts", "5", "--", COUNT, "if starts < 2: sys.exit(75)")
    assert code == 0
    assert "restart 1 of 5" in err and "restart 2 of 5" in err and "restart 3" not in err
    ports = [(clone.home / f"start1-{k}").read_text() for k in range(3)]
    assert len(set(ports)) == 3 and not (clone.home / "start1-3").exists()


@pytest.mark.parametrize("code, starts", [(75, 3), (1, 1)])
def test_restarts_are_bounded_and_an_error_is_not_tried_again(clone: Clone, code: int, starts: int):
    assert clone.run("-n", "2", "--restarts", "2", "--", COUNT, f"sys.exit({code})")[0] == code
    assert len(list(clone.home.glob("start0-*"))) == starts


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ("", "-n; try launch/processes -h"),
        ("-n two", "invalid int value: 'two'"),
        ("-n 0 -- x", "at least 1"),
        ("-n 2 --config=a.py --workdir=b", "'--config=a.py' is no option of this launcher"),
    ],
)
def test_what_is_wrong_with_the_command_is_said_in_one_sentence(clone: Clone, arguments: str, sentence: str):
    code, out, err = clone.run(*arguments.split())
    assert (code, out) == (1, "")
    assert err.startswith("processes: ") and sentence in err and err.count("\n") == 1


def test_without_a_python_for_the_command(clone: Clone):
    (clone.home / "python3").symlink_to(sys.executable)
    launcher = subprocess.run(
        [clone.home / "python3", clone.launcher, "-n", "1", "--"], env={"PATH": ""}, capture_output=True, text=True
    )
    assert launcher.returncode == 1 and "./launch/quickstart makes .venv" in launcher.stderr
