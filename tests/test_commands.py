"""What commands do before they begin."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

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
