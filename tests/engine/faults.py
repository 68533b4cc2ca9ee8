"""How tests of faults look at runs and at the processes that make them."""

import os
import re
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event

from ssljax.engine.logs import read_metrics


def named(workdir: Path) -> list[int]:
    """The steps of the checkpoints that have their names."""
    folder = workdir / "checkpoints"
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.exists() else []


def unnamed(workdir: Path) -> list[Path]:
    """The checkpoints that are being written."""
    return list((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def resumed_from(said: str) -> int:
    found = re.search(r"going on from step (\d+)", said)
    return int(found[1]) if found else 0


def losses(workdir: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in read_metrics(workdir)}


def curve(workdir: Path, tag: str = "loss") -> dict[int, float]:
    """What TensorBoard would show: files by name, and the start of each takes back what is said of later steps."""
    points: dict[int, float] = {}
    for path in sorted((workdir / "tensorboard").glob("*tfevents*")):
        data = path.read_bytes()
        while len(data) >= 12 and len(data) >= 16 + (size := struct.unpack("<Q", data[:8])[0]):
            event, data = Event.FromString(data[12 : 12 + size]), data[16 + size :]
            if event.HasField("session_log"):
                points = {step: value for step, value in points.items() if step < event.step}
            for value in event.summary.value:
                if value.tag == tag:
                    points[event.step] = value.simple_value
    return points


@dataclass
class Fault:
    """What a test does to runs, and how often something was lost by it: a row of docs/reliability.md."""

    name: str = ""
    done: str = ""
    outcome: str = ""
    trials: int = 0
    lost: list[str] = field(default_factory=list)

    def trial(self, *losses: str) -> None:
        """One more; each loss says in words what is not as it should be, and empty ones are none."""
        self.trials += 1
        if any(losses):
            self.lost.append("; ".join(filter(None, losses)))


def wait_until(true: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


@dataclass
class Started:
    """A command in a process of its own."""

    process: BaseProcess | subprocess.Popen
    output: Path

    def said(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    def alive(self) -> bool:
        return self.process.is_alive() if isinstance(self.process, BaseProcess) else self.process.poll() is None

    def until(self, true: Callable[[], object]) -> None:
        """Waits for something that must come while the process lives."""
        wait_until(lambda: true() or not self.alive())
        assert true() and self.alive(), self.said()

    def step(self) -> int:
        """The newest one that it has logged; 0 before the first."""
        return max(map(int, re.findall(r"^step (\d+)/", self.said(), re.MULTILINE)), default=0)

    def stopped(self) -> bool:
        """By SIGSTOP, that is."""
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> int:
        """The exit code; minus the signal that ended it."""
        wait_until(lambda: not self.alive())
        code = self.process.exitcode if isinstance(self.process, BaseProcess) else self.process.returncode
        return -1000 if code is None else code

    def complaint(self, *wanted: str) -> str:
        """What is wrong with how it ended, if it should have ended with 1 and a sentence in which `wanted` occur."""
        code, said = self.end(), self.said()
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        fine = code == 1 and len(errors) == 1 and all(part in errors[0] for part in wanted)
        return "" if fine and "Traceback" not in said else f"ended with {code}: {said}"

    def completed(self) -> str:
        """What is wrong with how it ended, if it should have completed its run."""
        code = self.end()
        return "" if code == 0 and "Traceback" not in self.said() else f"ended with {code}: {self.said()}"


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    return [int(line) for line in listed.stdout.split()]


def arguments_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
