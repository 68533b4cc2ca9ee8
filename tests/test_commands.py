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


first, second = pages(), pages()
assert min(first, second) > 10_000, (first, second)
keep_memory()
pages()
assert pages() < 1000
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others are not told")
def test_freed_memory_is_kept():
    """Allocated, freed, and allocated once more: nothing is given anew."""
    subprocess.run([sys.executable, "-c", AGAIN], check=True, cwd=ROOT)
