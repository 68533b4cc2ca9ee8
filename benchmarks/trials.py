"""Runs that scripts make as a user does, by the commands of ssljax."""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sections import ROOT

SECONDS = "seconds.json"
EVALUATE = "ssljax.evaluate", "--noscratch"


def parser(documentation: str | None, folder: str, *, source: bool = True) -> argparse.ArgumentParser:
    """Of the flags of a script that makes the same runs with several seeds. source: with --source."""
    made = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    if source:
        made.add_argument("--source", required=True)
    made.add_argument("--runs", type=Path, default=ROOT / "runs" / folder)
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--write", action="store_true")
    return made


def make(workdir: Path, config: Path, variant: str, fields: dict[str, Any], *commands: Sequence[str]) -> list:
    """Train, and then run `commands` on the folder; what is finished is not repeated.

    Returns the CPU seconds of each, None for training that an earlier call had begun.
    """
    finished = workdir / SECONDS
    if not finished.exists():
        begun, seconds = workdir.exists(), []
        of_fields = (f"--config.{name}={value}" for name, value in fields.items())
        train = "ssljax.train", f"--config={config}:{variant}", "--config.evaluate.every=0", *of_fields
        for command in (train, *commands):
            before = cpu_seconds()
            line = [sys.executable, "-m", *command, f"--workdir={workdir}"]
            subprocess.run(line, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
            seconds.append(cpu_seconds() - before)
        finished.write_text(json.dumps([None if begun else seconds[0], *seconds[1:]]))
    return json.loads(finished.read_text())


def cpu_seconds() -> float:
    """Of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def over_seeds(seeds: int) -> str:
    """What a table's numbers are over seeds, in words."""
    return f"± the standard deviation of {seeds} seeds" if seeds > 1 else "with one seed"


def minutes(seconds: Sequence[float | None]) -> str:
    """The least of all runs but those that were interrupted: the same work takes more on a busy machine."""
    known = [each / 60 for each in seconds if each is not None]
    return f"{min(known):.1f}" if known else "not measured"
