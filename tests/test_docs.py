"""Tables of README and of docs/ are what scripts have measured: nothing was typed or changed by hand."""

import json
import re
from pathlib import Path

import pytest
from sections import MEASURED, ROOT, markdown, record, section
from summary import blocks
from trials import over_seeds

RECORDS = [json.loads(path.read_text()) for path in sorted(MEASURED.glob("*/*.json"))]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MEAN = re.compile(r"^\|.*\d ± \d", re.MULTILINE)


def sections_of(page: Path) -> dict[str, str]:
    """By their titles."""
    parts = re.split(r"^(?=## )", page.read_text(), flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0].removeprefix("## "): part.strip() for part in parts}


@pytest.mark.parametrize("kept", RECORDS, ids=[f"{kept['document']}-{kept['title']}" for kept in RECORDS])
def test_a_section_is_what_was_measured(kept):
    page = (ROOT / "docs" / kept["document"]).resolve()
    assert sections_of(page)[kept["title"]] == section(kept["document"], kept["title"]).strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_accuracy_in_a_table_was_measured(page):
    name = "../README.md" if page.name == "README.md" else page.name
    found = [title for title, text in sections_of(page).items() if MEAN.search(text)]
    assert [title for title in found if not record(name, title).exists()] == []


def test_readme_says_what_the_pages_say():
    assert markdown(blocks()) in section("../README.md", "What the demos reach")


def test_one_seed_has_no_deviation():
    assert (over_seeds(1), over_seeds(2)) == ("with one seed", "± the standard deviation of 2 seeds")
