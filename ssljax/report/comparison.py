"""Several runs on one page: accuracies, margins, what differs in their configs, and their curves in one picture."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ssljax.evals.scores import written
from ssljax.evals.tables import TABLES
from ssljax.report import figures
from ssljax.report.html import card, document, inlined, pairs, section, table, write_page
from ssljax.report.page import protocol_name, score_cell


@dataclass(frozen=True)
class Compared:
    """A run: what it is called, its config by the names of the command line, rows of its `metrics.jsonl`, and what its
    `results.json` holds (`ssljax.report.Report`)."""

    name: str
    config: dict[str, Any]
    metrics: list[dict[str, float]]
    results: dict[str, Any]


def write_comparison(runs: list[Compared], page: Path) -> Path:
    """Writes one HTML file that needs nothing else, and returns its path."""
    colours = figures.class_colours(len(runs))
    facts = f"{len(runs)} runs: {', '.join(escape(run.name) for run in runs)}"
    return write_page(page, document("Runs side by side", facts, _sections(runs, colours)))


def _sections(runs: list[Compared], colours: np.ndarray) -> Iterator[str]:
    heads = [_head(run, colour) for run, colour in zip(runs, colours, strict=True)]
    yield from section("Accuracy", _accuracy(runs, heads))
    yield from section("Margins", _margins(runs, heads))
    yield from section("What they were trained to do", _objectives(runs, heads))
    for protocol in dict.fromkeys(p for run in runs for p in run.results.get("tables", {})):
        heading = escape(TABLES.get(protocol, protocol))
        yield from section(heading[:1].upper() + heading[1:], _tables(protocol, runs, heads))
    yield from section("What differs in the configs", _differences(runs, heads))
    yield from section("Curves", _curves(runs, colours, heads))


def _head(run: Compared, colour: np.ndarray) -> str:
    red, green, blue = np.rint(255 * colour).astype(int)
    return f"<i class='run' style='background:rgb({red},{green},{blue})'></i>{escape(run.name)}"


def _accuracy(runs: list[Compared], heads: list[str]) -> Iterator[str]:
    scores = [run.results.get("encoders", {}).get("pretrained", {}) for run in runs]
    protocols = list(dict.fromkeys(protocol for by_protocol in scores for protocol in by_protocol))
    if not protocols:
        yield "<p>No accuracy was measured of any run.</p>"
        return
    yield table(heads, {protocol_name(p): [score_cell(of.get(p)) for of in scores] for p in protocols}, "compared")
    yield "<p class='reading'>Accuracy of the pretrained encoder on test examples ± one standard error.</p>"
    for protocol in protocols:
        told = {run.results["protocols"].get(protocol) for run, of in zip(runs, scores, strict=True) if protocol in of}
        if len(told) > 1:
            yield (
                f"<p><b>{protocol_name(protocol)}</b> is not the same for all runs, so that accuracies cannot be "
                f"compared: {'; or '.join(escape(str(text)) for text in sorted(map(str, told)))}.</p>"
            )
    sources = list(dict.fromkeys(str(run.config.get("data.source")) for run in runs))
    if len(sources) > 1:
        yield f"<p>The data is not the same, so that accuracies cannot be compared: {escape(', '.join(sources))}.</p>"


def _margins(runs: list[Compared], heads: list[str]) -> Iterator[str]:
    """A row for each protocol and floor."""
    found = [
        {(p, floor): m for p, floors in run.results.get("margins", {}).items() for floor, m in floors.items()}
        for run in runs
    ]
    pairs = dict.fromkeys(pair for margins in found for pair in margins)
    if not pairs:
        return
    rows = {
        f"{protocol_name(p)}, over {escape(floor)}": [_margin(of.get((p, floor))) for of in found] for p, floor in pairs
    }
    yield table(heads, rows, "compared")
    yield (
        "<p class='reading'>Percentage points by which the pretrained encoder is above what needs no pretraining, on "
        "the same test examples, ± one standard error of the difference.</p>"
    )


def _margin(margin: dict[str, float] | None) -> str:
    if margin is None:
        return "<td>–</td>"
    points = f"{100 * margin['difference']:+.1f}".replace("-", "−")
    return f"<td><b>{points}</b> ± {100 * margin['standard_error']:.1f}</td>"


def _objectives(runs: list[Compared], heads: list[str]) -> Iterator[str]:
    yield from _numbers([run.results.get("objective", {}) for run in runs], heads)


def _tables(protocol: str, runs: list[Compared], heads: list[str]) -> Iterator[str]:
    tables = [run.results.get("tables", {}).get(protocol, {}) for run in runs]
    yield from _numbers(tables, heads)
    for told in dict.fromkeys(of["measured on"] for of in tables if of):
        yield f"<p class='reading'>{escape(told)}.</p>"


def _numbers(tables: list[dict[str, Any]], heads: list[str]) -> Iterator[str]:
    """For each encoder and floor a row for each number, a column for each run."""
    of_runs = [found.get("of", {}) for found in tables]
    for encoder in dict.fromkeys(name for of in of_runs for name in of):
        found = [of.get(encoder, {}) for of in of_runs]
        names = dict.fromkeys(name for numbers in found for name in numbers)
        rows = {escape(n): [f"<td>{written(of[n]) if n in of else '–'}</td>" for of in found] for n in names}
        yield f"<p><b>{escape(encoder)}</b></p>"
        yield table(heads, rows, "compared")


def _differences(runs: list[Compared], heads: list[str]) -> Iterator[str]:
    fields = sorted({field for run in runs for field in run.config})
    rows = {}
    for field in fields:
        values = [run.config.get(field) for run in runs]
        if any(value != values[0] for value in values):
            rows[escape(field)] = [f"<td>{'–' if value is None else escape(_short(value))}</td>" for value in values]
    yield table(heads, rows, "compared fields") if rows else "<p>Nothing.</p>"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:80]} …"


def _curves(runs: list[Compared], colours: np.ndarray, heads: list[str]) -> Iterator[str]:
    cards = []
    for curve in (*figures.PROGRESS, *figures.COLLAPSE):
        image = figures.draw_curves(curve, [run.metrics for run in runs], colours)
        if image is not None:
            told = [figures.describe_curve(curve, run.metrics) for run in runs if len(curve.points(run.metrics)[0])]
            cards.append(card(inlined(image, None, alt=" ".join(told)), curve.reading))
    if cards:
        yield f"<ul class='legend'>{''.join(f'<li>{head}</li>' for head in heads)}</ul>"
        yield pairs(cards)
