"""Views beside those of lightly's pipeline: the same operations with the same strengths, on one core.

    pip install -r requirements.txt -r benchmarks/requirements.txt
    python benchmarks/augmentation.py [--only=SimCLR, 32 px] [--rounds=3] [--write]

Each side is a process of its own that sees one core; they take turns. lightly is given what its datasets give it,
Pillow images one at a time; we are given a batch of the same pixels. Neither decodes files.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SECONDS = 6.0
"""For which each side is measured in each round."""
ROWS = {"SimCLR, 32 px": (32, 256), "SimCLR, 224 px": (256, 8), "DINO, 2 x 224 + 6 x 96 px": (256, 8)}
"""The side of the images, and how many are in a batch."""


def images(row: str) -> np.ndarray:
    """(batch, side, side, 3), uint8: smooth, with some noise."""
    side, count = ROWS[row]
    random = np.random.RandomState(0)
    coarse = random.randint(0, 200, (count, 8, 8, 3)).repeat(side // 8, axis=1).repeat(side // 8, axis=2)
    return (coarse + random.randint(0, 56, coarse.shape)).astype(np.uint8)


def with_ssljax(row: str) -> float:
    """Images a second."""
    import jax

    from ssljax.views.images import draw_views
    from ssljax.views.recipes import make_views

    if row.startswith("DINO"):
        recipe = make_views("dino", local_crops=6)
    else:
        recipe = make_views("simclr", size=32, blur=0.0) if "32" in row else make_views("simclr")
    draw, batch = jax.jit(lambda key, x: draw_views(recipe, key, x)), jax.numpy.asarray(images(row))
    return rate(lambda i: jax.block_until_ready(draw(jax.random.key(i), batch)), len(batch))


def with_lightly(row: str) -> float:
    import torch
    from lightly.transforms import DINOTransform, SimCLRTransform
    from PIL import Image

    torch.set_num_threads(1)
    if row.startswith("DINO"):
        transform = DINOTransform()
    else:
        transform = SimCLRTransform(input_size=32, gaussian_blur=0.0) if "32" in row else SimCLRTransform()
    pictures = [Image.fromarray(x) for x in images(row)]
    return rate(lambda _: [transform(picture) for picture in pictures], len(pictures))


def rate(once, count: int) -> float:
    once(0)
    begun, calls = time.perf_counter(), 0
    while time.perf_counter() - begun < SECONDS:
        calls += 1
        once(calls)
    return calls * count / (time.perf_counter() - begun)


SIDES = {"ssljax": with_ssljax, "lightly": with_lightly}


def measure(side: str, row: str, core: int) -> float:
    """In a process of its own."""
    command = [sys.executable, __file__, f"--side={side}", f"--only={row}", f"--core={core}"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "JAX_PLATFORMS": "cpu"}
    return json.loads(subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help="measure one side, in this process")
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)))
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if arguments.side:
        os.sched_setaffinity(0, {arguments.core})
        print(json.dumps(SIDES[arguments.side](arguments.only)))
        return

    from sections import compared, paragraph, publish, table

    rows = []
    for row in [arguments.only] if arguments.only else ROWS:
        rounds = [[measure(side, row, arguments.core) for side in SIDES] for _ in range(arguments.rounds)]
        ours, theirs = map(statistics.median, zip(*rounds, strict=True))
        rows.append([row, ours, theirs, ours / theirs])
    head = f"""Made by `python benchmarks/augmentation.py --write`: images a second of which all views are made, from
        uint8 pixels in memory to normalised floats, on one core; medians of {arguments.rounds} rounds. Pictures of 224
        and of 96 pixels are cut from images of 256, ours in batches of 8, which stay in the cache."""
    columns = "views", ("ssljax", ".0f"), ("lightly", ".0f"), ("ratio", ".2f")
    publish(
        "performance.md", "Views on one core", [paragraph(head), table(columns, rows), compared("lightly", "torch")]
    )


if __name__ == "__main__":
    main()
