"""The pieces of HTML that pages are made of. A page is one file that needs nothing else."""

import base64
import io
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image


def document(title: str, facts: str, body: Iterator[str]) -> Iterator[str]:
    """A whole page. title: as text; facts: one line under it, as HTML; body: its sections."""
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
    yield f"<header><h1>{escape(title)}</h1><p class='facts'>{facts}</p></header>"
    yield from body
    yield "</main></body></html>"


def section(heading: str, content: Iterator[str]) -> Iterator[str]:
    """A section under its heading, or nothing where there is no content."""
    body = "\n".join(content)
    if body:
        yield f"<section><h2>{heading}</h2>\n{body}\n</section>"


def write_page(page: Path, lines: Iterator[str]) -> Path:
    """Into the place of an older page at once, so that nobody sees half of it."""
    part = page.with_suffix(".part")
    part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    part.replace(page)
    return page


def listed(tag: str, items: list[str], style: str = "") -> str:
    """A list of pieces of HTML."""
    return f"<{tag} class='{style}'>" + "".join(f"<li>{item}</li>" for item in items) + f"</{tag}>"


def table(columns: list[str], rows: dict[str, list[str]], style: str = "") -> str:
    """columns: headings; rows: by their headings, cells as `<td>` elements. All are HTML."""
    heads = "".join(f"<th scope='col'>{column}</th>" for column in columns)
    body = "".join(f"<tr><th scope='row'>{head}</th>{''.join(cells)}</tr>" for head, cells in rows.items())
    return (
        f"<div class='scroll'><table class='accuracy {style}'>"
        f"<thead><tr><th scope='col'></th>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def pairs(cards: list[str]) -> str:
    """Side by side where there is room for two."""
    return "<div class='pairs'>" + "\n".join(cards) + "</div>"


def card(picture: str, caption: str) -> str:
    """`picture` and `caption` are HTML."""
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def inlined(image: Image.Image, path: Path | None, *, alt: str, attributes: str = "") -> str:
    """The image as an element, a PNG; it is also written to a `path`, whose suffix says if it is to be a WebP."""
    buffer = io.BytesIO()
    kind = path.suffix.removeprefix(".") if path else "png"
    image.save(buffer, kind, **SAVED[kind])
    if path:
        path.write_bytes(buffer.getvalue())
    data = base64.b64encode(buffer.getvalue()).decode()
    width, height = image.size
    return (
        f"<img alt='{escape(alt)}' width='{width}' height='{height}' {attributes}src='data:image/{kind};base64,{data}'>"
    )


SAVED: dict[str, dict[str, Any]] = {"png": {"optimize": True}, "webp": {"quality": 85}}
"""Drawings lose nothing; of many photographs in one image no eye sees what is lost, and it is a tenth of the size."""


def slug(name: str) -> str:
    """A name that is safe in a file name."""
    return re.sub(r"\W+", "_", name)


STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --muted: #667085; --line: #e4e7ec; --ground: #fbfbfa;
  --accent: #3563a8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --muted: #9aa4b2; --line: #2d333b; --ground: #15181c;
  --accent: #7ea6e0; } img { filter: brightness(0.92); } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.55; font-size: 16px;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 3rem 1.25rem 5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 1.15rem; margin: 0 0 1rem; }
section { margin-top: 2.75rem; padding-top: 1.5rem; border-top: 1px solid var(--line); }
p { margin: 0.5rem 0; max-width: 46rem; }
.facts, .reading, .footnotes, figcaption { color: var(--muted); font-size: 0.875rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; }
.accuracy { width: 100%; margin-bottom: 1rem; }
.accuracy th, .accuracy td { padding: 0.6rem 1rem 0.6rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
.accuracy thead th { color: var(--muted); font-size: 0.875rem; }
.accuracy tbody tr:first-child { font-size: 1.1rem; }
.accuracy tbody tr:first-child .bar i, .compared .bar i { background: var(--accent); }
.compared tbody tr:first-child, .many tbody tr:first-child { font-size: inherit; }
.many .bar { width: 2.5rem; }
.many tbody tr:first-child .bar i { background: var(--muted); }
.many tbody td:first-of-type .bar i { background: var(--accent); }
.fields th, .fields td { padding: 0.25rem 1rem 0.25rem 0; }
.fields td, .fields th[scope=row] { white-space: normal; min-width: 5rem; overflow-wrap: anywhere; }
.fields th[scope=row] { min-width: 9rem; }
.bar { display: inline-block; width: 7rem; height: 0.4rem; margin-right: 0.75rem; vertical-align: 0.15em;
  background: var(--line); border-radius: 1rem; overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--muted); border-radius: 1rem; }
sup { line-height: 0; color: var(--muted); }
.facts { max-width: none; }
.footnotes { padding-left: 1.2rem; margin: 0.25rem 0 0; }
.pairs { display: grid; gap: 1.25rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 380px), 1fr)); }
figure { margin: 0; }
img { display: block; width: 100%; height: auto; padding: 0.75rem; background: #fff; border: 1px solid var(--line);
  border-radius: 10px; }
figcaption { padding: 0.5rem 0.25rem 0; }
figcaption b { color: var(--ink); font-weight: 600; }
.switch > input { position: absolute; opacity: 0; }
.switch > label { display: inline-block; padding: 0.2rem 0.8rem; margin: 0 0.25rem 1rem 0; cursor: pointer;
  font-size: 0.875rem; border: 1px solid var(--line); border-radius: 1rem; }
.switch > input:checked + label { border-color: var(--accent); color: var(--accent); }
.switch > input:focus-visible + label, .plot:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.switch > div { display: none; }
.switch > input:nth-of-type(1):checked ~ div:nth-of-type(1),
.switch > input:nth-of-type(2):checked ~ div:nth-of-type(2),
.switch > input:nth-of-type(3):checked ~ div:nth-of-type(3) { display: block; }
.plot { position: relative; border-radius: 10px; touch-action: pan-y; }
.plot img { padding: 0; }
.plot i { position: absolute; width: 16px; height: 16px; margin: -8px; border: 2px solid #1f2328; border-radius: 50%;
  pointer-events: none; visibility: hidden; }
.plot i.on { visibility: visible; }
#sprite { display: none; }
#pointed { position: fixed; visibility: hidden; width: 146px; padding: 8px; pointer-events: none; font-size: 0.8rem;
  background: var(--ground); border: 1px solid var(--line); border-radius: 10px;
  box-shadow: 0 4px 16px rgb(0 0 0 / 0.25); }
#pointed.on { visibility: visible; }
#pointed canvas { display: block; background: #fff; border-radius: 4px; }
#pointed p { margin: 0.4rem 0 0; line-height: 1.35; overflow-wrap: anywhere; }
#pointed b { display: block; }
.legend { display: flex; flex-wrap: wrap; gap: 0.25rem 1.1rem; list-style: none; padding: 0; margin: 0 0 1rem;
  font-size: 0.875rem; }
.legend i, th i.run { display: inline-block; width: 0.7rem; height: 0.7rem; margin-right: 0.4rem; border-radius: 50%; }
summary { cursor: pointer; color: var(--accent); }
.config { columns: 22rem; column-gap: 2.5rem; margin-top: 1rem;
  font: 0.8rem/1.5 ui-monospace, Menlo, Consolas, monospace; }
.config table { width: 100%; margin-bottom: 1rem; break-inside: avoid; }
.config th, .config td { padding: 0.15rem 1rem 0.15rem 0; vertical-align: top; border-bottom: 1px solid var(--line); }
.config th { color: var(--muted); font-weight: 400; width: 60%; }
.config td { overflow-wrap: anywhere; }
@media (max-width: 640px) { .bar { display: none; } }
"""
