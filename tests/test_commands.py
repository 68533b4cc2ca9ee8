"""What commands do before they begin."""

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from ssljax import commands

ROOT = Path(__file__).parents[1]
AGAIN = """
from resource import RUSAGE_SELF, getrusage

from ssljax.commands import keep_memory


def pages():
    before = getrusage(RUSAGE_SELF).ru_minflt
    assert len(b"x" * 2**27)
    return getrusage(RUSAGE_SELF).ru_minflt - before


pages()
before = pages()
keep_memory()
pages()
print(before, pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others are not told")
def test_freed_memory_is_kept():
    """Allocated, freed, and allocated once more: nothing is given anew."""
    run = subprocess.run([sys.executable, "-c", AGAIN], check=True, cwd=ROOT, stdout=subprocess.PIPE)
    before, now = map(int, run.stdout.split())
    if before < 1000:
        pytest.skip("this system gives pages by the megabyte")
    assert now < before / 10


@pytest.mark.parametrize(
    "known, arguments, meant",
    [
        ("workdir protocol", "runs/x --protocol=knn", "'runs/x' is not a flag; write --workdir=runs/x."),
        ("workdir protocol", "protocol=knn", "write --protocol=knn."),
        (
            "workdir protocol",
            "--workdir=runs/x --protocol=knn, linear",
            "write --flag=value, with no blanks",
        ),
        ("config workdir", "runs/x", "write --workdir=runs/x."),
        ("config workdir", "configs/images/mae.py:demo --workdir=runs/x", "write --config=configs/images/mae.py:demo."),
        ("config workdir", "config.seed=1", "write --config.seed=1."),
        ("config workdir", "seed=1", "write --config.field=value."),
        ("config topology", "configs/images/mae.py", "write --config=configs/images/mae.py."),
        ("config topology", "runs/x", "write --config.field=value."),
    ],
)
def test_what_is_no_flag_is_told_as_the_command_takes_it(known, arguments, meant, monkeypatch):
    monkeypatch.setattr(flags, "FLAGS", flags.FlagValues())
    for name in known.split():
        flags.DEFINE_string(name, None, "", flag_values=flags.FLAGS)
    with pytest.raises(ValueError, match=re.escape(meant)):
        commands._parse(["command", *arguments.split()])
