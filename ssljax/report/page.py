"""The report of a run: one HTML file that needs nothing else, and its pictures as PNG files beside it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ssljax.evals.protocols import TITLES
from ssljax.evals.scores import written
from ssljax.evals.tables import TABLES
from ssljax.report import figures
from ssljax.report.html import card, document, inlined, listed, pairs, section, slug, table, write_page
from ssljax.report.maps import Examples, map_section

PROTOCOLS = {
    "nn1": "1-NN",
    "svm": "SVM",
    "knn": "k-NN",
    "linear": "Linear probe",
    "linear_1": "Linear probe, 1 % of the labels",
    "linear_10": "Linear probe, 10 % of the labels",
    **{f"to_{what}_{k}": f"Retrieval of {what}s, R@{k}" for what in ("text", "image") for k in (1, 5, 10)},
    "zero_shot": "Zero-shot classification",
    "groups": "Linear probe of the groups",
    "left_out": "Linear probe of left-out groups",
}
FLOORS = {"random init": "a random-init encoder"}
"""What names are called in headings and in sentences; any other stands as it is."""

LONGEST = 2000
"""Characters of a field of the config that are shown."""
ABREAST = 3
"""Protocols that stand side by side; of more, each has a line, and encoders stand side by side."""
CLEAR = 2.0
"""A margin of fewer standard errors is called no clear difference."""


@dataclass(frozen=True)
class Report:
    """All that the page tells; any part may be empty.

    title: for instance "SimCLR · resnet8 · demo".
    config: the run's, nested.
    metrics: rows of `metrics.jsonl`; a row need not have every metric.
    results: `step`; `examples` (a count for each split); `protocols` (a sentence for each); `encoders`
      ({encoder: {protocol: {accuracy, standard_error}}}, fractions of 1); `margins` ({protocol: {floor: {difference,
      standard_error}}}); `objective` (`measured on`, and `of`: {encoder: {number: {value, standard_error}}}); `tables`
      (the same for each of these protocols). Any key may be absent.
    panels: a caption that names the columns, and what the method sees: (examples, columns, h, w, 3) in [0, 1].
    maps: {kind of map: {kind of features: coordinates (n, 2) of the same n test images}}.
    map_images, map_labels: those images (n, h, w, 3) uint8, and their classes (n,).
    map_texts: what each is called, or its text; nothing where they have none.
    class_names: the name of class k at place k.
    neighbours: for each kind of features test images, each followed by its nearest training images:
      (queries, 1 + k, h, w, 3) uint8.
    neighbour_labels: for the same kinds the classes, (queries, 1 + k).
    notes: sentences worth telling.
    seen: what else there is to see: a heading, a caption that names lines and columns, and pictures (examples, lines,
      columns, h, w, 3) in [0, 1].
    things: what the examples are.
    shown: what those of maps and queries are, "test images" or what stands in for them.
    found: by what they are, queries of another kind than what they find: (queries, 1 + k, h, w, 3) uint8, and whose
      each is, (queries, 1 + k).
    """

    title: str
    config: dict[str, Any]
    metrics: list[dict[str, float]]
    results: dict[str, Any]
    panels: tuple[str, np.ndarray]
    maps: dict[str, dict[str, np.ndarray]]
    map_images: np.ndarray
    map_labels: np.ndarray | None
    class_names: tuple[str, ...] | None
    neighbours: dict[str, np.ndarray]
    neighbour_labels: dict[str, np.ndarray] | None
    notes: list[str]
    map_texts: tuple[str, ...] = ()
    seen: tuple[tuple[str, str, np.ndarray], ...] = ()
    things: str = "images"
    shown: str = "test images"
    found: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


def write_report(report: Report, workdir: Path) -> Path:
    """Writes `report.html` and `figures/*.png` into the workdir, and returns the path of the page."""
    folder = workdir / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    facts = " · ".join(map(escape, _facts(report)))
    return write_page(workdir / "report.html", document(report.title, facts, _sections(report, folder)))


def _sections(report: Report, folder: Path) -> Iterator[str]:
    yield from section("Accuracy", _accuracy(report.results, report.things))
    yield from section("What it was trained to do", _objective(report.results.get("objective")))
    for protocol, found in report.results.get("tables", {}).items():
        heading = escape(TABLES.get(protocol, protocol))
        shown = [*_numbers(found["of"], found["measured on"]), *_spectrum(found.get("spectrum"), folder)]
        yield from section(heading[:1].upper() + heading[1:], iter(shown))
    yield from section("What the method sees", _panels(report, folder))
    yield from section("Training", _of_training(figures.PROGRESS, report, folder))
    yield from section("Is the representation alive?", _of_training(figures.COLLAPSE, report, folder))
    for heading, caption, pictures in report.seen:
        yield from section(heading, _seen(caption, pictures, folder / f"{slug(heading)}.png"))
    yield from section(f"A map of the {report.shown}", _maps(report, folder))
    yield from section("Nearest neighbours", _neighbours(report, folder))
    yield from section("What finds what", _found(report, folder))
    yield from section("Config", _config(report.config))
    yield from section("Notes", _notes(report.notes))


def _facts(report: Report) -> Iterator[str]:
    """Method, encoder, data and length of the run, as far as they are known."""
    config, results = report.config, report.results
    for part, key in ("method", "name"), ("encoder", "name"), ("data", "source"):
        if key in config.get(part, {}):
            yield f"{part} {config[part][key]}"
    if "data" in results:
        yield f"judged on {results['data']}"
    if "examples" in results:
        yield " and ".join(f"{count:,} {split}" for split, count in results["examples"].items()) + f" {report.things}"
    if "step" in results:
        of = f" of {config['batch_size']:,} {report.things}" if "batch_size" in config else ""
        yield f"{results['step']:,} steps{of}"


def _accuracy(results: dict[str, Any], things: str) -> Iterator[str]:
    """Accuracies in percent with their standard errors, the margins in words, and the protocols."""
    encoders = results.get("encoders", {})
    protocols = list(dict.fromkeys(protocol for scores in encoders.values() for protocol in scores))
    if not protocols:
        yield "<p>No accuracy was measured; the notes say why.</p>"
        return
    told = [protocol for protocol in protocols if protocol in results.get("protocols", {})]
    marks = [f"<sup>{told.index(protocol) + 1}</sup>" if protocol in told else "" for protocol in protocols]
    heads = [protocol_name(protocol) + mark for protocol, mark in zip(protocols, marks, strict=True)]
    if len(protocols) > ABREAST:
        rows = {
            head: [score_cell(of.get(p)) for of in encoders.values()] for head, p in zip(heads, protocols, strict=True)
        }
        yield table(list(map(escape, encoders)), rows, "many")
    else:
        yield table(heads, {escape(name): [score_cell(of.get(p)) for p in protocols] for name, of in encoders.items()})
    for protocol, margins in results.get("margins", {}).items():
        yield f"<p>{_margin_sentence(protocol, encoders, margins)}</p>"
    yield f"<p class='reading'>Accuracy on the test {things} ± one standard error.</p>"
    if told:
        texts = [results["protocols"][name] + _chosen(name, encoders) for name in told]
        yield listed("ol", list(map(escape, texts)), "footnotes")


def _chosen(protocol: str, encoders: dict[str, Any]) -> str:
    """What the grid gave each encoder, where there was one."""
    of = {name: scores.get(protocol, {}).get("chosen") for name, scores in encoders.items()}
    said = [f"{name} {chosen}" for name, chosen in of.items() if chosen]
    return f". Chosen: {'; '.join(said)}" if said else ""


def _objective(objective: dict[str, Any] | None) -> Iterator[str]:
    if objective is not None:
        yield from _numbers(objective["of"], f"On {objective['measured on']}")


def _numbers(of: dict[str, dict[str, dict[str, float]]], measured_on: str) -> Iterator[str]:
    """A row for each number, a column for each network or floor, by which they are in `of`."""
    names = dict.fromkeys(name for numbers in of.values() for name in numbers)
    rows = {
        escape(name): [f"<td>{written(numbers[name]) if name in numbers else '–'}</td>" for numbers in of.values()]
        for name in names
    }
    yield table(list(map(escape, of)), rows)
    yield f"<p class='reading'>{escape(measured_on)}.</p>"


def _spectrum(spectrum: dict[str, list[float]] | None, folder: Path) -> Iterator[str]:
    if spectrum:
        reading = "How fast singular values fall. A cliff early on: features use few of their directions."
        alt = f"Singular values of features by their place: {', '.join(spectrum)}."
        yield pairs([card(inlined(figures.draw_spectrum(spectrum), folder / "spectrum.png", alt=alt), reading)])


def score_cell(score: dict[str, float] | None) -> str:
    """An accuracy in percent with its standard error and a bar."""
    if score is None:
        return "<td>–</td>"
    percent = 100 * score["accuracy"]
    return (
        f"<td><span class='bar'><i style='width:{percent:.1f}%'></i></span>"
        f"<b>{percent:.1f}</b> ± {100 * score['standard_error']:.1f} %</td>"
    )


def _margin_sentence(protocol: str, encoders: dict[str, Any], margins: dict[str, dict[str, float]]) -> str:
    """For instance: "k-NN: 57.1 % is 21.3 points (18 standard errors) above a random-init encoder."."""
    accuracy = encoders.get("pretrained", {}).get(protocol, {}).get("accuracy")
    subject = "pretrained" if accuracy is None else f"{100 * accuracy:.1f} %"
    clauses = [_margin(FLOORS.get(floor, floor), m["difference"], m["standard_error"]) for floor, m in margins.items()]
    return f"<b>{protocol_name(protocol)}</b>: {subject} is {' and '.join(clauses)}."


def _margin(floor: str, difference: float, standard_error: float) -> str:
    errors = abs(difference) / standard_error if standard_error else float("inf")
    if (size := f"{100 * abs(difference):.1f} points") == "0.0 points":
        return f"level with {escape(floor)}"
    if np.isfinite(errors):
        doubt = "" if errors >= CLEAR else ", no clear difference"
        size += f" ({errors:.{0 if errors >= 10 else 1}f} standard errors{doubt})"
    return f"{size} {'above' if difference >= 0 else 'below'} {escape(floor)}"


def protocol_name(protocol: str) -> str:
    return escape((TITLES | PROTOCOLS).get(protocol, protocol))


def _panels(report: Report, folder: Path) -> Iterator[str]:
    caption, pictures = report.panels
    if pictures.size:
        image = figures.draw_panels(pictures[:, None])
        text = f"Each group, from left to right: {caption}."
        yield card(inlined(image, folder / "views.png", alt=text), escape(text))


def _seen(caption: str, pictures: np.ndarray, path: Path) -> Iterator[str]:
    yield card(inlined(figures.draw_panels(pictures), path, alt=caption), escape(caption))


def _of_training(curves: tuple[figures.Curve, ...], report: Report, folder: Path) -> Iterator[str]:
    """The curves, and of which data they are, if the page is of others."""
    shown = [*_curves(curves, report, folder)]
    yield from shown
    if shown and "data" in report.results:
        source = report.config.get("data", {}).get("source", "the run's own data")
        yield f"<p class='reading'>These are of pretraining, on {escape(str(source))}.</p>"


def _curves(curves: tuple[figures.Curve, ...], report: Report, folder: Path) -> Iterator[str]:
    cards = []
    for curve in curves:
        image = figures.draw_curve(curve, report.metrics)
        if image is not None:
            alt = figures.describe_curve(curve, report.metrics)
            cards.append(card(inlined(image, folder / f"{curve.name}.png", alt=alt), curve.reading))
    if cards:
        yield pairs(cards)
    if cards and len(report.metrics) >= figures.SMOOTHED_FROM:
        yield "<p class='reading'>Pale: what each row of the log says. Dark: the running mean.</p>"


def _maps(report: Report, folder: Path) -> Iterator[str]:
    """Maps of each kind, and by whom their points may be coloured."""
    if not report.maps:
        return
    labels, names, colours = report.map_labels, None, None
    if labels is not None:
        names = _class_names(labels, report.class_names)
        palette = figures.class_colours(len(names))
        colours = palette[labels]
        if len(names) <= figures.MOST_NAMED_CLASSES:
            yield _legend(names, palette)
    classes = None if labels is None or names is None else [names[label] for label in labels]
    examples = Examples(report.map_images, classes, report.map_texts, colours)
    yield from map_section(report.maps, examples, folder, things=report.things, shown=report.shown)


def _class_names(labels: np.ndarray, names: tuple[str, ...] | None) -> list[str]:
    """A name for each class that is known or occurs."""
    known = list(names or ())
    return known + [f"class {label}" for label in range(len(known), int(labels.max()) + 1)]


def _legend(names: list[str], palette: np.ndarray) -> str:
    items = []
    for name, colour in zip(names, palette, strict=True):
        red, green, blue = np.rint(255 * colour).astype(int)
        items.append(f"<i style='background:rgb({red},{green},{blue})'></i>{escape(name)}")
    return listed("ul", items, "legend")


def _neighbours(report: Report, folder: Path) -> Iterator[str]:
    cards = []
    for name, pictures in report.neighbours.items():
        labels = (report.neighbour_labels or {}).get(name)
        caption = f"<b>{escape(name)}</b>"
        if labels is not None:
            right = labels[:, 1:] == labels[:, :1]
            caption += f": {right.sum()} of {right.size} neighbours are of the query's class"
        k = pictures.shape[1] - 1
        alt = f"{len(pictures)} {report.shown}, each with its {k} nearest training {report.things} by {name} features."
        image = figures.draw_neighbours(pictures, labels)
        cards.append(card(inlined(image, folder / f"neighbours_{slug(name)}.png", alt=alt), caption))
    if cards:
        yield pairs(cards)
        frames = " Green frames: the same class; vermilion frames: another." if report.neighbour_labels else ""
        yield (
            f"<p class='reading'>On the left of each row one of the {report.shown}, then the training "
            f"{report.things} whose features are most like its own, nearest first.{frames}</p>"
        )


def _found(report: Report, folder: Path) -> Iterator[str]:
    cards = []
    for name, (pictures, whose) in report.found.items():
        right = (whose[:, 1:] == whose[:, :1]).any(axis=1)
        caption = f"{escape(name)}: {right.sum()} of {len(right)} find their own among the first {whose.shape[1] - 1}"
        path = folder / f"found_{slug(name.split(',')[0])}.png"
        cards.append(card(inlined(figures.draw_neighbours(pictures, whose, side=96), path, alt=caption), caption))
    if cards:
        yield pairs(cards)
        yield "<p class='reading'>The most similar first. Green frames: what belongs to the query.</p>"


def _config(config: dict[str, Any]) -> Iterator[str]:
    if config:
        yield "<details><summary>All fields that are set, by their names on the command line</summary>"
        yield f"<div class='config'>{_tree(config)}</div></details>"


def _tree(config: dict[str, Any], prefix: str = "") -> str:
    """A table of the fields at this level, then those of the levels below; fields that are None are left out."""
    rows, below = "", ""
    for name, value in config.items():
        if isinstance(value, dict):
            below += _tree(value, f"{prefix}{name}.")
        elif value is not None:
            rows += f"<tr><th scope='row'>{escape(prefix + name)}</th><td>{escape(_short(value)) or '–'}</td></tr>"
    return (f"<table>{rows}</table>" if rows else "") + below


def _short(value: Any) -> str:
    """A table's columns or a vocabulary may be long."""
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def _notes(notes: list[str]) -> Iterator[str]:
    if notes:
        yield listed("ul", [escape(note) for note in notes])
