"""What `results.json` holds of accuracies and objectives, and the lines that say it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssljax.evals.scores import Score, bootstrap, margin, written

MARGIN, WIDEST = 2, 120
"""Of columns, and of lines that are printed."""
Scores = dict[str, dict[str, Score]]
"""{encoder or floor: {protocol: score}}; the pretrained encoder is the first."""


def summary(scores: Scores, described: dict[str, str]) -> dict[str, Any]:
    """Accuracies, and the margins of the pretrained encoder over the others.

    described: the protocols in words.
    """
    pretrained, *floors = scores
    margins: dict[str, dict] = {protocol: {} for protocol in described}
    for protocol in described:
        for floor in floors:
            if protocol not in scores[floor]:
                continue
            difference, error = margin(scores[pretrained][protocol], scores[floor][protocol])
            margins[protocol][floor] = {"difference": difference, "standard_error": error}
    accuracies = {
        name: {p: _numbers(score) for p, score in by_protocol.items()} for name, by_protocol in scores.items()
    }
    return {"protocols": described, "encoders": accuracies, "margins": margins}


def _numbers(score: Score) -> dict[str, Any]:
    """Its accuracy and standard error, and the interval in which 95 % of bootstrap samples of the test examples have
    theirs; where labels were drawn, the accuracy of each draw instead; and what was chosen of a grid, if it was."""
    numbers = {"accuracy": score.accuracy, "standard_error": score.standard_error}
    interval = [] if score.draws else list(bootstrap(score.correct))
    more = {"interval": interval, "draws": list(score.draws), "chosen": score.chosen}
    return numbers | {name: x for name, x in more.items() if x}


def found_before(folder: Path, data: str) -> dict[str, Any]:
    """What `results.json` in the folder holds of those data ("": the run's own); nothing if it is not there, damaged,
    or of other data."""
    try:
        before = json.loads((folder / "results.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return before if before.get("data", "") == data else {}


def found_of(workdir: Path, step: int) -> dict[str, Any]:
    """What was found of the run's checkpoint of that step, on its own data; nothing if nothing was."""
    of_each = (found_before(folder, "") for folder in (workdir, workdir / "at" / str(step)))
    return next((found for found in of_each if found.get("step") == step), {})


def merged(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """`now`, and of what was found `before` those protocols that were not judged again."""
    both = before | now
    for name in ("examples", "protocols", "margins", "tables"):
        if name in both:
            both[name] = before.get(name, {}) | now.get(name, {})
    if "encoders" in both:
        old, new, again = before.get("encoders", {}), now.get("encoders", {}), now.get("protocols", {})
        both["encoders"] = {
            encoder: {p: score for p, score in old.get(encoder, {}).items() if p not in again} | new.get(encoder, {})
            for encoder in old | new
        }
    return both


def percent(score: Mapping[str, Any]) -> str:
    return f"{100 * score['accuracy']:.1f} ± {100 * score['standard_error']:.1f}"


def accuracy_lines(results: dict[str, Any], titles: Mapping[str, str]) -> list[str]:
    """Accuracies, the margins in standard errors, and the protocols."""
    table = [["accuracy, %", *(titles[p] for p in results["protocols"])]]
    for name, row in results["encoders"].items():
        table.append([name, *(percent(row[p]) if p in row else "" for p in results["protocols"])])
    lines = ["", *_aligned(table), ""]
    if own := results.get("classifier"):
        lines.append(f"the run's own classifier: {percent(own)} % of the test examples")
    for protocol, floors in results["margins"].items():
        parts = []
        for floor, m in floors.items():
            size = (
                f"{m['difference'] / m['standard_error']:.1f} standard errors" if m["standard_error"] else "no spread"
            )
            parts.append(f"{100 * m['difference']:+.1f} points over {floor} ({size})")
        lines.append(f"{titles[protocol]}: pretrained is {', '.join(parts)}")
    return [*lines, *(f"{titles[p]} protocol: {text}" for p, text in results["protocols"].items()), ""]


def _aligned(table: list[list[str]]) -> list[str]:
    """The rows of a table, or where these are too wide its columns, one below the other."""
    widths = [max(MARGIN + max(map(len, column)), 16) for column in zip(*table, strict=True)]
    if sum(widths) > WIDEST and len(table) < len(widths):
        return _aligned([list(column) for column in zip(*table, strict=True)])
    first, *others = widths
    return [
        f"{row[0]:<{first}}" + "".join(f"{cell:>{width}}" for cell, width in zip(row[1:], others, strict=True))
        for row in table
    ]


def objective_lines(objective: dict[str, Any]) -> list[str]:
    """What a method says of itself, of each state and floor."""
    names = list(objective["of"]["pretrained"])
    lines = ["", f"{'objective':<18}" + "".join(f"{name:>27}" for name in names)]
    for encoder, of in objective["of"].items():
        cells = (written(of[name]) if name in of else "" for name in names)
        lines.append(f"{encoder:<18}" + "".join(f"{cell:>27}" for cell in cells))
    return [*lines, f"objective protocol: {objective['measured on']}"]
