"""Documents that several scripts write: each script owns one section, and leaves the others as they are.

Imported before ssljax, it makes that be found from wherever a script is run.
"""

import os
import re
import sys
from pathlib import Path

import jax

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT))


def publish(document: str, title: str, lines: list[str]) -> None:
    """Print `lines`; with --write put them under `## title` of docs/`document`, for what was there or at its end."""
    print("\n".join(lines))
    if "--write" not in sys.argv:
        return
    path = DOCS / document
    before = path.read_text()
    section = f"## {title}\n\n" + "\n".join(lines).strip() + "\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if pattern.search(before):
        after = pattern.sub(lambda match: section + ("" if match.end() == len(before) else "\n"), before, count=1)
    else:
        after = before.rstrip() + "\n\n" + section
    path.write_text(after)


def machine() -> str:
    """What a table was measured on."""
    devices = jax.devices()
    return f"{devices[0].platform}, {len(devices)} device(s), {os.cpu_count()} CPU cores, jax {jax.__version__}."
