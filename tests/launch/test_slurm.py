"""launch/slurm as Slurm runs it: a copy in a spool folder, with stand-ins for srun and scontrol that record."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["--config=configs/images/mae.py:demo", "--workdir=/shared/it's a run", "--config.x=$HOME *"]
RECORD = """#!{python} -IS
import json, os, sys, time
from pathlib import Path

name = Path(sys.argv[0]).name
with open("calls", "a") as calls:
    calls.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
if sys.argv[1] == "show":
    print(os.environ.get("SHOWN", ""))
if name == "srun":
    Path("environ").write_text(json.dumps(dict(os.environ)))
    time.sleep(float(os.environ.get("SRUN_SECONDS", 0)))
    sys.exit(int(os.environ.get("SRUN_EXIT", 0)))
"""


class Slurm:
    def __init__(self, home: Path):
        self.home, self.bin, self.clone = home, home / "bin", home / "clone"
        self.bin.mkdir()
        for name in ("srun", "scontrol"):
            (self.bin / name).write_text(RECORD.format(python=sys.executable))
            (self.bin / name).chmod(0o755)
        (self.clone / "ssljax").mkdir(parents=True)
        (self.clone / "ssljax/train.py").touch()
        self.script = home / "slurm_script"
        shutil.copy(ROOT / "launch/slurm", self.script)

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen:
        environ = {"SLURM_JOB_ID": "42", "SLURM_SUBMIT_DIR": str(self.clone), "HOME": str(self.home)} | environ
        environ |= {"PATH": f"{self.bin}:{os.environ['PATH']}"}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            ["bash", self.script, *arguments], cwd=self.home, env=environ, text=True, stdout=pipe, stderr=pipe
        )

    def run(self, *arguments: str, **environ: str) -> tuple[int, str, str]:
        out, err = (process := self.start(*arguments, **environ)).communicate(timeout=20)
        return process.returncode, out, err

    def calls(self, name: str) -> list[list[str]]:
        file = self.home / "calls"
        calls = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [call for call in calls if call[0] == name and call[1] != "show"]


@pytest.fixture
def slurm(tmp_path: Path) -> Slurm:
    return Slurm(tmp_path)


def test_srun_is_given_the_same_flags(slurm: Slurm):
    python = slurm.clone / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    code, _, err = slurm.run(*FLAGS)
    assert (code, err) == (0, "")
    options = ["--gpu-bind=none", "--kill-on-bad-exit=0", "--wait=120"]
    assert slurm.calls("srun") == [["srun", *options, str(python), "-m", "ssljax.train", *FLAGS]]
    assert json.loads((slurm.home / "environ").read_text())["PYTHONPATH"] == str(slurm.clone)
    assert slurm.calls("scontrol") == []


@pytest.mark.parametrize("code", [75, 137])
def test_a_run_that_stopped_is_queued_again(slurm: Slurm, code: int):
    assert slurm.run(*FLAGS, SRUN_EXIT=str(code))[0] == code
    assert slurm.calls("scontrol") == [["scontrol", "requeue", "42"]]


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_run_that_is_complete_or_needs_a_change_is_not(slurm: Slurm, code: int):
    assert slurm.run(*FLAGS, SRUN_EXIT=str(code))[0] == code
    assert slurm.calls("scontrol") == []


def test_queueing_again_is_bounded(slurm: Slurm):
    assert slurm.run(*FLAGS, SRUN_EXIT="75", SLURM_RESTART_COUNT="99")[0] == 75
    assert len(slurm.calls("scontrol")) == 1
    code, _, err = slurm.run(*FLAGS, SRUN_EXIT="75", SLURM_RESTART_COUNT="100")
    assert code == 1 and "queued again often enough" in err and len(slurm.calls("scontrol")) == 1


def test_a_job_that_is_cancelled_is_not_queued_again(slurm: Slurm):
    process = slurm.start(*FLAGS, SRUN_EXIT="75", SRUN_SECONDS="0.5")
    while not slurm.calls("srun"):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 75 and slurm.calls("scontrol") == []


def test_the_repository_is_where_sbatch_found_the_script(slurm: Slurm):
    shown = f"JobId=42 JobName=ssljax\n   Command={slurm.clone}/launch/slurm\n   WorkDir=/elsewhere"
    assert slurm.run(*FLAGS, SHOWN=shown, SLURM_SUBMIT_DIR="/elsewhere")[0] == 0
    assert slurm.run(*FLAGS, SSLJAX_ROOT=str(slurm.clone), SLURM_SUBMIT_DIR="/elsewhere")[0] == 0
    code, _, err = slurm.run(*FLAGS, SLURM_SUBMIT_DIR="/elsewhere")
    assert code == 1 and "/elsewhere is not the repository" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, job, sentence", [(FLAGS, "", "sbatch launch/slurm"), ([], "42", "--workdir=… are needed")]
)
def test_what_is_wrong_is_said_in_one_sentence(slurm: Slurm, arguments: list[str], job: str, sentence: str):
    code, out, err = slurm.run(*arguments, SLURM_JOB_ID=job)
    assert (code, out) == (1, "") and sentence in err and err.count("\n") == 1


def test_sbatch_reads_what_it_must():
    directives = re.findall(r"^#SBATCH (\S+)$", (ROOT / "launch/slurm").read_text(), flags=re.M)
    assert {"--requeue", "--open-mode=append", "--signal=TERM@300"} <= set(directives)
    # sbatch stops reading them at the first command.
    head = (ROOT / "launch/slurm").read_text().split("\nset -euo")[0]
    assert len(re.findall(r"^#SBATCH", head, flags=re.M)) == len(directives)
