"""launch/Dockerfile, read as Docker reads it; building it needs Docker."""

import json
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KNOWN = {"FROM", "ENV", "WORKDIR", "ARG", "COPY", "RUN", "USER", "VOLUME", "STOPSIGNAL", "ENTRYPOINT"}


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "launch/Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def test_every_instruction_is_one():
    steps = instructions()
    assert steps[0][0] == "FROM" and {name for name, _ in steps} <= KNOWN


def test_what_is_copied_exists_and_is_not_ignored():
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    copied = [source for name, rest in instructions() if name == "COPY" for source in shlex.split(rest)[:-1]]
    assert set(copied) >= {"requirements.txt", "ssljax", "configs"}
    for source in copied:
        assert (ROOT / source).exists() and f"!{source}" in rules


def test_what_is_installed_is_kept_when_only_the_source_changes():
    steps = instructions()
    installs = steps.index(next(step for step in steps if step[0] == "RUN" and "pip install" in step[1]))
    assert '${EXTRA:+"jax[$EXTRA]"}' in steps[installs][1]
    sources = [steps.index(("COPY", f"{folder} {folder}")) for folder in ("ssljax", "configs")]
    requirements = steps.index(("COPY", "requirements.txt ./"))
    assert steps.index(("ARG", "EXTRA=")) < requirements < installs < min(sources)


def test_it_runs_training_as_somebody_who_is_not_root():
    steps = instructions()
    assert steps[-1][0] == "ENTRYPOINT" and json.loads(steps[-1][1]) == ["python", "-m", "ssljax.train"]
    assert [rest for name, rest in steps if name == "USER"] == ["ssljax"]
