"""The page in a real browser, where there is one: benchmarks/browse.py finds nothing wrong, and finds what is."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ssljax.report import Report, write_report

BROWSE = Path(__file__).parents[2] / "benchmarks" / "browse.py"
pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and importlib.util.find_spec("playwright")), reason="needs Chromium and playwright"
)


@pytest.fixture
def page(tmp_path):
    """Maps of three kinds of 40 texts."""
    rng = np.random.default_rng(0)
    maps = {kind: {name: rng.normal(size=(40, 2)) for name in ("a", "b")} for kind in ("t-SNE", "UMAP", "PCA")}
    images, none = rng.integers(0, 256, (40, 16, 12, 3), dtype=np.uint8), np.zeros((0, 0, 0, 0, 3))
    labels, texts = np.arange(40) % 3, tuple(f"text {i}" for i in range(40))
    return write_report(
        Report("maps", {}, [], {}, ("", none), maps, images, labels, None, {}, None, [], texts), tmp_path
    )


def browse(page: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, BROWSE, page], capture_output=True, text=True, timeout=300)


def test_nothing_is_wrong(page):
    run = browse(page)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("nothing is wrong") == 4


@pytest.mark.parametrize(
    "old, new, sentence",
    [
        ("data:image/png;base64,", "data:image/png;base64,x", "is missing"),
        ("<h1>", "<h1><img src='https://example.invalid/x.png' alt='x'>", "it asks for https://example.invalid/x.png"),
        ("let shown = -1;", "let shown = nothing;", "the script fails: nothing is not defined"),
        ("max-width: 1000px", "width: 2000px", "it is 20"),
        ("for (const { ring, x, y } of plots)", "for (const { ring, x, y } of [])", "marks 0 maps"),
    ],
)
def test_what_is_wrong_is_found(page, old, new, sentence):
    html = page.read_text(encoding="utf-8")
    assert old in html
    page.write_text(html.replace(old, new), encoding="utf-8")
    run = browse(page)
    assert run.returncode == 1 and sentence in run.stdout, run.stdout + run.stderr
