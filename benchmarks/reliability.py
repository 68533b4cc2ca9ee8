"""What happens to runs when something goes wrong: the faults of tests/engine/test_faults.py, as a table.

    python benchmarks/reliability.py [--write]

With --write the table goes into docs/reliability.md. Every row is one test, which really does what it says, and counts
its trials and what was lost by them.
"""

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import jax
from sections import ROOT, paragraph, publish, table

TESTS = "tests/engine/test_faults.py"
ABOUT = """\
Made by `python benchmarks/reliability.py --write`, which runs `pytest tests/engine/test_faults.py`, with more trials
than the suite, and writes down what the tests have done and counted. A trial is one fault, or one end of a run that
faults have befallen. It counts as lost where the run does not end with the state of an undisturbed run, bit by bit,
with its losses logged once each; where a checkpoint that had been written is gone; and where an error is not one
sentence with the exit code that [launch/README.md](../launch/README.md) gives."""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", "-q", TESTS, "-o", "junit_family=xunit1", f"--junitxml={results}"]
        code = subprocess.run(command, cwd=ROOT, env=os.environ | {"SSLJAX_FAULTS": "all"}).returncode
        cases = list(ElementTree.parse(results).iter("testcase"))
    rows = [row(name, [case for case in cases if name_of(case) == name]) for name in dict.fromkeys(map(name_of, cases))]
    of_cases = [properties(case) for case in cases]
    trials, lost = (sum(int(p.get(count, 0)) for p in of_cases) for count in ("trials", "lost"))
    seconds = sum(float(case.get("time", 0)) for case in cases)
    end = (
        f"{trials} trials, {lost} lost, in {seconds:.0f} s on {os.cpu_count()} CPU cores, others at work on them too "
        f"({platform.system()}, Python {platform.python_version()}, jax {jax.__version__})."
    )
    columns = "fault", "what is done", "what happens", "trials", "lost", ("seconds", ".0f"), "test"
    publish("reliability.md", "What was tried", [paragraph(ABOUT), table(columns, rows), end])
    return code


def name_of(case: ElementTree.Element) -> str:
    """Of the test, whatever its parameters."""
    return case.get("name", "").partition("[")[0]


def properties(case: ElementTree.Element) -> dict[str, str]:
    return {p.get("name", ""): p.get("value", "") for p in case.iter("property")}


def row(name: str, cases: list[ElementTree.Element]) -> list:
    of_each = [properties(case) for case in cases]
    first = of_each[0]
    trials, lost = (sum(int(p.get(count, 0)) for p in of_each) for count in ("trials", "lost"))
    for outcome in ("failure", "error", "skipped"):
        found = [element for case in cases for element in case.iter(outcome)]
        if found:
            what = f"**{outcome}**: " + (found[0].get("message") or "").partition("\n")[0][:200]
            break
    else:
        what = first["outcome"]
    seconds = sum(float(case.get("time", 0)) for case in cases)
    said = (text.replace("|", "\\|") for text in (first.get("name") or name, first.get("done", ""), what))
    return [*said, trials, lost, seconds, f"`{name}`"]


if __name__ == "__main__":
    sys.exit(main())
