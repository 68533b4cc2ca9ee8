"""The launchers, in a copy of the repository whose Python makes real environments but whose pip only pretends."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("python3", "python3.13", "python3.12", "python3.11", "python")
TOOLS = "bash cat cksum cp cut flock grep head readlink rm sed sha256sum tail touch tr".split()

INTERPRETER = """#!/bin/bash
if [[ "$1 $2" == "-m venv" ]]; then
  '{python}' -m venv --without-pip "$3" && cd "$3"/lib/python*/site-packages && cp -r '{pip}' .
else
  '{python}' -I -c {change} "$3"
fi
"""
PIP = """
import os, pathlib, sys, sysconfig
if "OFFLINE" in os.environ:
    sys.exit("no network")
(pathlib.Path(sysconfig.get_path("purelib")) / "jax").mkdir(exist_ok=True)
"""
TRAIN = """
import os, sys
print("train", *sys.argv[1:], "in", os.getcwd())
sys.exit(int(os.environ.get("TRAIN_EXIT", 0)))
"""
EVALUATE = "import sys; print('evaluate', *sys.argv[1:])"


class Machine:
    """A clone, and a PATH with nothing on it but what the launchers need."""

    def __init__(self, home: Path):
        self.home, self.bin, self.repository = home, home / "bin", home / "my clone"
        shutil.copytree(ROOT / "launch", self.repository / "launch")
        files = {"requirements.txt": "jax", "ssljax/train.py": TRAIN, "ssljax/evaluate.py": EVALUATE}
        files |= {"configs/images/mae.py": "", "../pip/__init__.py": "", "../pip/__main__.py": PIP}
        for name, text in files.items():
            path = self.repository / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or pytest.skip(f"{tool} is not installed"))
        self.python()

    def python(self, change: str = "pass"):
        """Every Python on PATH is this one, changed by a statement."""
        change = shlex.quote(f"import sys; {change}; exec(sys.argv[1])")
        script = INTERPRETER.format(python=sys.executable, pip=self.home / "pip", change=change)
        for name in NAMES:
            (self.bin / name).write_text(script)
            (self.bin / name).chmod(0o755)

    def start(self, *arguments: str, launcher: Path | None = None, **environ: str) -> subprocess.Popen:
        # The variables are those of a shell in which some other Python was set up.
        environ |= {"PATH": str(self.bin), "PYTHONHOME": "/nowhere", "VIRTUAL_ENV": "/nowhere", "PIP_USER": "1"}
        command = [str(launcher or self.repository / "launch/quickstart"), *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.home, env=environ, text=True, stdout=pipe, stderr=pipe)

    def run(self, *arguments: str, **options) -> tuple[int, str, str]:
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ("sys.version_info = (3, 9, 18)", f"3.11 or later, and this machine has 3.9.18 ({{bin}}/{NAMES[0]})"),
        ("sys.version_info = (3, 12, 1); sys.modules['ensurepip'] = None", "sudo apt install python3.12-venv"),
        ("sys.exit(127)", "this machine has none"),
    ],
)
def test_an_unfit_python_is_named_in_one_sentence(machine: Machine, change: str, sentence: str):
    machine.python(change)
    code, out, err = machine.run()
    assert code == 1 and out == ""
    assert sentence.format(bin=machine.bin) in err and err.count("\n") == 1


def test_works_from_another_directory_through_a_link_and_installs_once(machine: Machine):
    link = machine.home / "link"
    link.symlink_to(machine.repository / "launch/quickstart")
    code, out, err = machine.run(launcher=link)
    assert (code, err) == (0, "") and "Installing" in out

    code, out, err = machine.run(launcher=link)
    workdir = machine.repository / "runs/quickstart"
    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == [
        f"train --config=configs/images/simclr.py:demo --workdir={workdir} in {machine.home}",
        f"evaluate --workdir={workdir}",
    ]
    assert f"{link} --config=configs/images/mae.py:demo" in out


@pytest.mark.parametrize(
    "arguments, config, workdir",
    [
        ("--config=configs/images/mae.py:demo", "{}/configs/images/mae.py:demo", "{}/runs/quickstart-mae-demo"),
        ("--config configs/images/mae.py", "{}/configs/images/mae.py", "{}/runs/quickstart-mae"),
        ("--config=mine.py:x --workdir runs/a", "mine.py:x", "runs/a"),
        ("--config.a.b=folder:/c/d", "configs/images/simclr.py:demo", "{}/runs/quickstart-a.b-folder-c-d"),
        ("--config.data.source=npz:x --workdir=a", "configs/images/simclr.py:demo", "a"),
    ],
)
def test_config_and_workdir_follow_from_the_arguments(machine: Machine, arguments: str, config: str, workdir: str):
    code, out, _ = machine.run(*arguments.split())
    expected = f"train --config={config} --workdir={workdir} ".replace("{}", str(machine.repository))
    assert code == 0 and expected in out


def test_long_arguments_give_short_workdirs_that_differ(machine: Machine):
    outputs = [machine.run("--config.data.source=folder:" + 300 * "a" + end)[1] for end in "xy"]
    names = [out.split("--workdir=")[1].split(" --config")[0].rpartition("/")[2] for out in outputs]
    assert names[0] != names[1] and max(map(len, names)) < 80


def test_a_failed_training_is_not_evaluated_and_its_exit_code_is_passed_on(machine: Machine):
    code, out, _ = machine.run(TRAIN_EXIT="7")
    assert code == 7 and "evaluate" not in out and "Next" not in out


BREAKAGES = {
    "dangling interpreter": "ln -sfn /nowhere .venv/bin/python",
    "interrupted install": "touch .venv/.incomplete",
    "deleted package": "rm -r .venv/lib/python*/site-packages/jax",
    "a file": "rm -r .venv; touch .venv",
}


@pytest.mark.parametrize("breakage", BREAKAGES.values(), ids=BREAKAGES)
def test_a_broken_environment_is_made_anew(machine: Machine, breakage: str):
    machine.run()
    subprocess.run(breakage, shell=True, check=True, cwd=machine.repository)
    code, out, err = machine.run()
    assert (code, err) == (0, "") and "made anew" in out and "evaluate" in out
    assert "Making" not in machine.run()[1]


def test_changed_requirements_are_installed_into_the_same_environment(machine: Machine):
    machine.run()
    (machine.repository / "requirements.txt").write_text("jax\nflax")
    code, out, _ = machine.run()
    assert code == 0 and "Installing" in out and "Making" not in out


def test_a_failed_install_ends_in_one_sentence_and_is_repaired_by_the_next_run(machine: Machine):
    code, _, err = machine.run(OFFLINE="1")
    log = machine.repository / ".venv/pip.log"
    assert code == 1 and str(log) in err and err.count("\n") == 1
    assert log.read_text() == "no network\n"
    assert machine.run()[0] == 0


def test_two_at_once_install_once(machine: Machine):
    processes = [machine.start() for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum("Installing" in out for out in outputs) == 1
