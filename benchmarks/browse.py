"""Opens pages (`report.html`, `compare.html`) in headless Chromium, light and dark, wide and narrow, and says what is
wrong with them.

    python benchmarks/browse.py PAGE … [--shots=FOLDER]

Needs `pip install playwright` and a Chromium (Debian: `apt install chromium`). What is wrong: a message on the console,
an address that is asked for, a picture that is missing or has no size, a page that is wider than the window, maps that
do not change, and a point of a map that does not show its example to the pointer and to arrow keys. Exit code 1 if
there is anything. With --shots a picture of each page as it was seen is kept.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

SCHEMES = "light", "dark"
WIDTHS = 1280, 390
BROWSERS = "chromium", "chromium-browser", "google-chrome"
MISSING = """() => [...document.images].filter((x) => !(x.complete && x.naturalWidth > 1)).map((x) => x.alt)"""
SHOWN = """() => {
  const visible = (x) => x.offsetParent !== null && getComputedStyle(x).visibility === "visible";
  const beside = document.getElementById("pointed"), copy = new OffscreenCanvas(128, 128);
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(beside.querySelector("canvas"), 0, 0);
  return {
    on: getComputedStyle(beside).visibility === "visible",
    text: beside.querySelector("p").textContent,
    rings: [...document.querySelectorAll(".plot i")].filter(visible).length,
    box: beside.getBoundingClientRect().toJSON(),
    pixels: new Set(context.getImageData(0, 0, 128, 128).data).size,
  };
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path, metavar="PAGE")
    parser.add_argument("--shots", type=Path)
    arguments = parser.parse_args()
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        sys.exit(f"there is no Chromium: install one, as {', '.join(BROWSERS)}.")
    wrong = False
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        for path in arguments.pages:
            for scheme in SCHEMES:
                for width in WIDTHS:
                    sentences = list(_look(browser, path.resolve(), scheme, width, arguments.shots))
                    wrong |= bool(sentences)
                    print(f"{path}, {scheme}, {width} pixels wide: {'; '.join(sentences) or 'nothing is wrong'}")
        browser.close()
    sys.exit(int(wrong))


def _look(browser: Browser, path: Path, scheme: str, width: int, shots: Path | None) -> Iterator[str]:
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(f"the console says {message.text!r}"))
    page.on("pageerror", lambda error: said.append(f"the script fails: {error}"))
    page.on("request", lambda request: said.append(f"it asks for {request.url[:80]}") if _leaves(request.url) else None)
    page.goto(path.as_uri())
    yield from (f"the picture {alt!r} is missing" for alt in page.evaluate(MISSING))
    if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
        yield f"it is {wide} pixels wide"
    if page.locator(".switch").count():
        yield from _maps(page, width)
    if shots:
        shots.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=shots / f"{path.parent.name}_{path.stem}_{scheme}_{width}.png", full_page=True)
    page.close()
    yield from said


def _leaves(url: str) -> bool:
    return not url.startswith(("data:", "file:"))


def _maps(page: Page, width: int) -> Iterator[str]:
    """Each kind of map is switched to, and its first plot pointed at."""
    for label in page.locator(".switch > label").all():
        label.click()
        kind = label.inner_text()
        if page.locator(".switch > div:visible").count() != 1:
            yield f"{kind} is not the only kind of map to be seen"
        plot = page.locator(".plot:visible").first
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        assert box is not None
        x, y = map(int, (plot.get_attribute("data-at") or "").split()[:2])
        page.mouse.move(box["x"] + box["width"] * x / 1000, box["y"] + box["height"] * y / 1000)
        shown = page.evaluate(SHOWN)
        if not shown["on"] or shown["pixels"] < 2:
            yield f"pointing at {kind} shows no example"
        if shown["rings"] != page.locator(".plot:visible").count():
            yield f"pointing at {kind} marks {shown['rings']} maps"
        if shown["box"]["left"] < 0 or shown["box"]["right"] > width:
            yield f"what {kind} shows beside the pointer is cut off"
        page.mouse.move(box["x"] - 2, box["y"] - 2)
        if page.evaluate(SHOWN)["on"]:
            yield f"{kind} shows an example where nothing is pointed at"
        plot.focus()
        texts = []
        for key in "ArrowRight", "ArrowRight", "ArrowUp":
            page.keyboard.press(key)
            texts.append(page.evaluate(SHOWN)["text"] if page.evaluate(SHOWN)["on"] else "")
        if len(set(texts)) < 2 or not all(texts):
            yield f"arrow keys do not move in {kind}"
        page.keyboard.press("Escape")
        if page.evaluate(SHOWN)["on"]:
            yield f"Escape does not hide what {kind} shows"


if __name__ == "__main__":
    main()
