"""Maps of features: one kind at a time, and beside the pointer the example that it points at."""

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssljax.report import figures
from ssljax.report.html import card, inlined, pairs, slug

READINGS = {
    "t-SNE": "t-SNE lays out the same {things} by how near their features are. Which of them lie together means "
    "something; directions, and the distances between groups, do not.",
    "UMAP": "UMAP joins each of the same {things} to those whose features are nearest, and lays out what is joined. "
    "Which of them lie together means something; directions mean nothing, and distances between groups little.",
    "PCA": "The two directions in which features of the same {things} vary most, so distances mean something; what "
    "varies in other directions is not seen, and what looks mixed may be apart.",
}
"""How each kind of map is read."""
LONGEST = 240
"""Characters of an example's text that are shown."""
SIDE = 64
"""Pixels of an example's picture in the sprite."""


class Examples(NamedTuple):
    """What the n points of each map are: images (n, h, w, 3) uint8; their classes in words; their texts or names;
    colours (n, 3) in [0, 1]. Classes, texts and colours may be missing."""

    images: np.ndarray
    classes: list[str] | None
    texts: tuple[str, ...]
    colours: np.ndarray | None


def map_section(
    maps: dict[str, dict[str, np.ndarray]], examples: Examples, folder: Path, *, things: str, shown: str
) -> Iterator[str]:
    """maps: {kind: {features: points (n, 2)}}. things, shown: what examples are called, and which these are.

    All is seen without JavaScript but the example that is pointed at. Of the first kind there is a second map by
    each kind of features, made of the images.
    """
    yield "<div class='switch'>"
    for kind in maps:
        checked = " checked" if kind == next(iter(maps)) else ""
        yield f"<input type='radio' name='map' id='map_{slug(kind)}'{checked}><label for='map_{slug(kind)}'>"
        yield f"{escape(kind)}</label>"
    for kind, by_features in maps.items():
        cards = [_plot(kind, name, points, examples, folder, shown) for name, points in by_features.items()]
        if kind == next(iter(maps)):
            cards += [_collage(name, points, examples, folder, things) for name, points in by_features.items()]
        yield f"<div>{pairs(cards)}<p class='reading'>{READINGS.get(kind, '').format(things=things)}</p></div>"
    yield "</div>"
    if "UMAP" not in maps:
        yield "<p class='reading'>No UMAP: it needs a package, <code>pip install umap-learn</code>.</p>"
    alt = f"All {things} of the maps, of which one is shown beside the pointer."
    sprite = figures.draw_sprite(examples.images, SIDE)
    yield inlined(sprite, folder / "sprite.webp", alt=alt, attributes="id='sprite' ")
    yield f"<div id='pointed'><canvas width='{2 * SIDE}' height='{2 * SIDE}'></canvas><p role='status'></p></div>"
    told: dict[str, Any] = {"side": SIDE, "classes": examples.classes, "texts": [_short(x) for x in examples.texts]}
    yield f"<script type='application/json' id='told'>{_json(told)}</script><script>{SCRIPT}</script>"


def _plot(kind: str, name: str, points: np.ndarray, examples: Examples, folder: Path, shown: str) -> str:
    """The picture, and over it a ring that a script moves; where the points are, in thousandths of it."""
    how = "" if examples.colours is None else ", coloured by class"
    alt = f"{kind} of {len(points):,} {shown} by their {name} features{how}."
    at = " ".join(str(place) for place in np.rint(1000 * figures.places(points)).astype(int).ravel())
    picture = inlined(
        figures.draw_map(points, examples.colours), folder / f"map_{slug(kind)}_{slug(name)}.png", alt=alt
    )
    label = f"{escape(kind)} by {escape(name)} features: arrow keys go from point to point"
    plot = f"<div class='plot' tabindex='0' role='group' aria-label='{label}' data-at='{at}'>{picture}<i></i></div>"
    return card(plot, f"<b>{escape(name)}</b>")


def _collage(name: str, points: np.ndarray, examples: Examples, folder: Path, things: str) -> str:
    alt = f"The same map by {name} features, made of the {things} themselves."
    image = figures.draw_image_map(points, examples.images)
    path = folder / f"map_images_{slug(name)}.png"
    return card(inlined(image, path, alt=alt), f"<b>{escape(name)}</b>, as pictures")


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def _json(told: dict[str, Any]) -> str:
    """As it may stand in a script element, which ends at the first "</"."""
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


SCRIPT = """
(() => {
  const told = JSON.parse(document.getElementById("told").textContent);
  const sprite = document.getElementById("sprite"), beside = document.getElementById("pointed");
  const words = beside.querySelector("p"), picture = beside.querySelector("canvas").getContext("2d");
  const plots = [...document.querySelectorAll(".plot")].map((box) => {
    const at = box.dataset.at.split(" ").map((place) => place / 1000);
    return { box, ring: box.querySelector("i"), x: at.filter((_, i) => i % 2 === 0), y: at.filter((_, i) => i % 2) };
  });
  const REACH = 24;  // pixels of the screen between the pointer and a point
  let shown = -1;
  picture.imageSmoothingEnabled = false;

  function nearest(plot, farness) {
    let best = -1, least = Infinity;
    for (let i = 0; i < plot.x.length; i++) {
      const far = farness(plot.x[i], plot.y[i]);
      if (far < least) { best = i; least = far; }
    }
    return best;
  }

  function hide() {
    shown = -1;
    beside.classList.remove("on");
    for (const plot of plots) plot.ring.classList.remove("on");
  }

  function show(plot, i) {
    if (i !== shown) {
      shown = i;
      const { side } = told, across = sprite.naturalWidth / side;
      const from = [(i % across) * side, Math.floor(i / across) * side, side, side];
      picture.drawImage(sprite, ...from, 0, 0, 2 * side, 2 * side);
      const name = document.createElement("b");
      name.textContent = told.classes ? told.classes[i] : "";
      words.replaceChildren(name, told.texts[i] ?? "");
      for (const { ring, x, y } of plots) {  // the same example in every map
        ring.style.left = `${100 * x[i]}%`;
        ring.style.top = `${100 * y[i]}%`;
        ring.classList.add("on");
      }
    }
    beside.classList.add("on");
    const box = plot.box.getBoundingClientRect(), gap = 16;
    const x = box.left + plot.x[i] * box.width, y = box.top + plot.y[i] * box.height;
    const { offsetWidth: width, offsetHeight: height } = beside;
    const left = x + gap + width < innerWidth ? x + gap : Math.max(4, x - gap - width);
    beside.style.left = `${left}px`;
    beside.style.top = `${Math.max(4, Math.min(y - height / 2, innerHeight - height - 4))}px`;
  }

  for (const plot of plots) {
    const { box } = plot;
    function point(event) {
      const { left, top, width, height } = box.getBoundingClientRect();
      const farness = (x, y) => Math.hypot(left + x * width - event.clientX, top + y * height - event.clientY);
      const i = nearest(plot, farness);
      if (farness(plot.x[i], plot.y[i]) <= REACH) show(plot, i); else hide();
    }
    box.addEventListener("pointermove", point);
    box.addEventListener("pointerdown", point);
    box.addEventListener("pointerleave", hide);
    box.addEventListener("blur", hide);
    box.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (event.key === "Escape") hide();
      if (!(event.key in steps)) return;
      event.preventDefault();
      const [right, down] = steps[event.key], from = shown;
      const ahead = (x, y) => {  // within 45 degrees of the arrow
        const dx = x - plot.x[from], dy = y - plot.y[from], along = dx * right + dy * down;
        return along > 0 && Math.abs(dx * down - dy * right) <= along ? Math.hypot(dx, dy) : Infinity;
      };
      const next = nearest(plot, from < 0 ? (x, y) => Math.hypot(x - 0.5, y - 0.5) : ahead);
      if (next >= 0) show(plot, next);
    });
  }
})();
"""
"""Shows the example of the point that is nearest to the pointer, or that arrow keys go to."""
