"""Every script of launch/ and .ci/ is linted, in whatever language it is; and the page names each."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def scripts(language: str) -> list[Path]:
    """Those whose first line names the language."""
    files = [file for folder in ("launch", ".ci") for file in sorted((ROOT / folder).iterdir()) if file.is_file()]
    return [file for file in files if language in file.read_text().split("\n", 1)[0]]


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def test_both_languages_are_found():
    shell = {name_of(file) for file in scripts("bash")}
    assert shell >= {"launch/tpu", "launch/slurm", "launch/gke", "launch/environment.sh", ".ci/run"}
    assert [name_of(file) for file in scripts("python")] == ["launch/processes"]


@pytest.mark.parametrize("file", scripts("bash"), ids=name_of)
def test_shellcheck_finds_nothing(file: Path):
    beside = Path(sys.executable).parent / "shellcheck"
    shellcheck = str(beside) if beside.exists() else shutil.which("shellcheck")
    assert shellcheck, "pip install -r requirements-test.txt brings shellcheck"
    process = subprocess.run([shellcheck, file], capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr


def test_ruff_finds_nothing_in_the_launcher_of_processes():
    for command in (["check"], ["format", "--check"]):
        process = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "launch/processes"], cwd=ROOT, capture_output=True
        )
        assert process.returncode == 0, process.stdout.decode() + process.stderr.decode()


@pytest.mark.parametrize("file", [f for f in (ROOT / "launch").iterdir() if f.stat().st_mode & 0o100], ids=name_of)
def test_the_page_tells_of_every_script_and_each_says_how_it_is_used(file: Path):
    page = (ROOT / "launch/README.md").read_text()
    assert f"launch/{file.name}" in page
    assert re.search(r"^(# |\"\"\")\w", file.read_text(), flags=re.M)


def test_what_the_page_links_to_exists():
    page = (ROOT / "launch/README.md").read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", page) if not link.startswith("http")]
    assert links and all((ROOT / "launch" / link).exists() for link in links if link)
