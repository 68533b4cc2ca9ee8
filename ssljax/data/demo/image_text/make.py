"""Made emoji.jpg and captions.csv.gz of this folder from npm's emoji-datasource-twitter and -google 16.0.0.

python ssljax/data/demo/image_text/make.py emoji-datasource-twitter-16.0.0.tgz emoji-datasource-google-16.0.0.tgz
"""

import csv
import gzip
import io
import json
import random
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

HERE, SIDE, COLUMNS, TEST = Path(__file__).parent, 32, 60, 380
VENDORS = ("twitter", "google")
LEFT_OUT = "Component"
"""A group of five colours of skin."""
PERSONS = {"1f466", "1f467", "1f468", "1f469", "1f476", "1f9d1", "1f9d2"}
JOINS = {"200d", "2640", "2642", "27a1", "fe0f"}
"""And signs of a woman, a man and facing right."""
MOST = 4
"""Larger families are to train on."""


def captions(emoji: dict) -> list[str]:
    """Its name, its short name where that is another, and its name with its subgroup and group."""
    name, short = (text.lower() for text in (emoji["name"] or emoji["short_name"], emoji["short_name"]))
    short = short.replace("_", " ").replace("-", " ")
    groups = emoji["subcategory"].replace("-", " "), emoji["category"].lower()
    return [name, *([short] if short != name else []), ", ".join((name, *groups))]


def kin(emoji: dict) -> tuple[bool, str]:
    """The same for a woman, a man and a person who do the same, and for all that are persons alone."""
    points = emoji["image"].removesuffix(".png").split("-")
    points = [point for point in points if point not in JOINS] or points
    others = [point for point in points if point not in PERSONS]
    return (True, "-".join(others)) if len(points) > 1 else (False, points[0])


def to_test(found: list[dict]) -> set[tuple[bool, str]]:
    """The kin of TEST of them, all of each."""
    sizes = Counter(map(kin, found))
    families, chosen, room = sorted(sizes), set(), TEST
    random.Random(0).shuffle(families)
    for family in families:
        if sizes[family] <= min(room, MOST):
            chosen.add(family)
            room -= sizes[family]
    return chosen


def pictures(path: Path, vendor: str) -> Iterator[tuple[dict, Image.Image]]:
    """Each emoji of a package and its picture, averaged down."""
    with tarfile.open(path) as archive:

        def opened(name: str) -> IO[bytes]:
            file = archive.extractfile(name)
            assert file, f"{name} is no file"
            return file

        files = {member.name for member in archive.getmembers()}
        for emoji in json.load(opened("package/emoji.json")):
            name = f"package/img/{vendor}/64/{emoji['image']}"
            if name in files and emoji["category"] != LEFT_OUT:
                art = Image.open(opened(name)).convert("RGBA")
                page = Image.new("RGBA", art.size, "white")
                page.alpha_composite(art)
                yield emoji, page.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)


def main(*paths: Path) -> None:
    first, second = (list(pictures(path, vendor)) for vendor, path in zip(VENDORS, paths, strict=True))
    tested = to_test([emoji for emoji, _ in first])
    found = [(VENDORS[0], *one) for one in first]
    found += [(VENDORS[1], *one) for one in second if kin(one[0]) not in tested]
    random.Random(0).shuffle(found)
    rows, text = -(-len(found) // COLUMNS), io.StringIO()
    sheet = np.full((rows * SIDE, COLUMNS * SIDE, 3), 255, np.uint8)
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file_name", "caption", "label", "split"])
    for i, (vendor, emoji, image) in enumerate(found):
        row, column = i // COLUMNS * SIDE, i % COLUMNS * SIDE
        sheet[row : row + SIDE, column : column + SIDE] = np.asarray(image)
        split = "test" if kin(emoji) in tested else "train"
        name = f"{vendor}/{emoji['image']}"
        table.writerows([name, caption, emoji["category"].lower(), split] for caption in captions(emoji))
    Image.fromarray(sheet).save(HERE / "emoji.jpg", quality=85, subsampling=0, optimize=True)
    # The same bytes whenever it is made: no name and no time.
    (HERE / "captions.csv.gz").write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
