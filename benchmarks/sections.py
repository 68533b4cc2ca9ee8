"""Sections of documents that scripts write: each script owns its own, and leaves the others as they are.

What was measured is kept as JSON, in docs/measured/DOCUMENT/, and the section is made from that. Imported before
ssljax, this makes that be found from wherever a script is run.
"""

import json
import os
import platform
import re
import sys
import textwrap
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import jax

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MEASURED = DOCS / "measured"
sys.path.insert(0, str(ROOT))

Cell = str | float | Sequence[float] | None
"""A text, a number, a mean with its spread, or nothing."""
Block = str | dict
"""A paragraph, or what `table` returns."""


def table(columns: Sequence[str | tuple[str, str]], rows: Sequence[Sequence[Cell]]) -> dict:
    """Of columns by name, those of numbers with how Python formats these (".1f")."""
    named = [(column, "") if isinstance(column, str) else column for column in columns]
    return {"columns": named, "rows": rows}


def paragraph(text: str) -> str:
    """Of lines that fit a page."""
    return textwrap.fill(" ".join(text.split()), 118, break_long_words=False, break_on_hyphens=False)


def shown(cell: Cell, form: str) -> str:
    match cell:
        case None:
            return "–"
        case str():
            return cell
        case [mean, spread]:
            return f"{mean:{form}} ± {spread:{form}}"
        case number:
            return f"{number:{form}}"


def markdown(blocks: Sequence[Block]) -> str:
    """Paragraphs and tables, with an empty line between them."""
    parts = []
    for block in blocks:
        if isinstance(block, str):
            parts.append(block)
            continue
        names, forms = zip(*block["columns"], strict=True)
        cells = [[shown(*pair) for pair in zip(row, forms, strict=True)] for row in block["rows"]]
        lines = [f"| {' | '.join(row)} |" for row in (names, *cells)]
        parts.append("\n".join([lines[0], "|---" * len(forms) + "|", *lines[1:]]))
    return "\n\n".join(parts)


def record(document: str, title: str) -> Path:
    """Where the JSON of a section is kept."""
    name = re.sub(r"\W+", "-", title.lower()).strip("-")
    return MEASURED / Path(document).stem / f"{name}.json"


def section(document: str, title: str) -> str:
    """Of a document, as its JSON says."""
    return f"## {title}\n\n{markdown(json.loads(record(document, title).read_text())['blocks'])}\n"


def measured(document: str, title: str) -> list[list]:
    """The rows of the first table that a section has; none where there is no such section yet."""
    kept = record(document, title)
    blocks = json.loads(kept.read_text())["blocks"] if kept.exists() else []
    return next((block["rows"] for block in blocks if isinstance(block, dict)), [])


def publish(document: str, title: str, blocks: Sequence[Block]) -> None:
    """Print `blocks`; with --write keep them, and put them under `## title` of docs/`document`, for what was there or
    at its end."""
    print(markdown(blocks))
    if "--write" not in sys.argv:
        return
    kept = record(document, title)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"document": document, "title": title, "blocks": blocks}, ensure_ascii=False) + "\n")
    path = DOCS / document
    before, made = path.read_text(), section(document, title)
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if pattern.search(before):
        after = pattern.sub(lambda match: made + ("" if match.end() == len(before) else "\n"), before, count=1)
    else:
        after = before.rstrip() + "\n\n" + made
    path.write_text(after)


def machine() -> str:
    """What a table was measured on."""
    devices = jax.devices()
    return f"{devices[0].platform}, {len(devices)} device(s), {os.cpu_count()} CPU cores, jax {jax.__version__}."


def compared(*packages: str) -> str:
    """The same, with the versions of what it is compared with, and the date."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{machine().removesuffix('.')}, {versions}, Python {platform.python_version()}, {date.today()}."
