"""What Python costs a step: with examples that come from the host, that lie on the device, and with many steps in one
program; and how many JPEG files a core makes batches of, beside PyTorch's DataLoader.

    python benchmarks/host.py [--part=steps] [--write]
    pip install -r requirements.txt -r benchmarks/requirements.txt && python benchmarks/host.py --part=files [--write]
"""

import argparse
import itertools
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image
from sections import ROOT, compared, machine, paragraph, publish, table

from ssljax.build import build_run, build_source, example_batch, settle
from ssljax.commands import keep_memory
from ssljax.data.canvas import OnCanvas
from ssljax.data.pipeline import all_examples, index_batches, train_batches
from ssljax.data.sources import open_source
from ssljax.engine.mesh import replicate, to_devices
from ssljax.engine.step import make_several

CONFIGS = "tables/scarf", "tables/vime", "series/ts2vec"
AT_ONCE, STEPS, ROUNDS = 5, 50, 3
FILES, CANVAS, BATCH = 512, 256, 64


def steps() -> None:
    rows = []
    for name in CONFIGS:
        config = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"]("demo")
        source = build_source(config, "train")
        settle(config, source)
        run = build_run(config, examples=len(source), example=example_batch(config, source))
        examples = {} if source.drawn else replicate(all_examples(source), run.mesh)
        several = partial(make_several(run.step, run.mesh), examples)
        data = {"batch_size": config.batch_size, "seed": 0}
        whole = to_devices(next(train_batches(source, **data)), run.mesh)

        def streaming(state, run=run, source=source, data=data):
            for batch in itertools.islice(train_batches(source, **data), STEPS):
                state, _ = run.step(state, to_devices(batch, run.mesh))
            return state

        def called(state, at_once, several=several, source=source, data=data, run=run):
            batches = train_batches(source, **data) if source.drawn else index_batches(len(source), **data)
            for _ in range(STEPS // at_once):
                some = [next(batches) for _ in range(at_once)]
                stacked = jax.tree.map(lambda *parts: np.stack(parts), *some)
                state, _ = several(state, to_devices(stacked, run.mesh, stacked=True))
            return state

        def device(state, run=run, whole=whole):
            for _ in range(STEPS):
                state, _ = run.step(state, whole)
            return state

        ways: dict[str, Callable[[Any], Any]] = {
            "device": device,
            "streaming": streaming,
            "at once": partial(called, at_once=AT_ONCE),
        }
        if not source.drawn:
            ways["resident"] = partial(called, at_once=1)
        times: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(ROUNDS + 1):
            for way, go in ways.items():
                state = jax.block_until_ready(run.init())
                begun = time.perf_counter()
                jax.block_until_ready(go(state))
                if turn:  # the first of each compiles
                    times[way].append(1000 * (time.perf_counter() - begun) / STEPS)
        ms = {way: statistics.median(of) for way, of in times.items()}
        order = ("device", "streaming", "resident", "at once")
        rows.append([name, config.batch_size, *map(ms.get, order), ms["streaming"] / ms["at once"]])
    head = f"""Made by `python benchmarks/host.py --part=steps --write`: milliseconds a step of `:demo`, medians of
        {ROUNDS} rounds of {STEPS} steps. The same batch again and again is what the device and the dispatch of a step
        take; from the host is the default; resident is `--config.data.resident=True` (not for tables, of which the host
        draws what is replaced), and {AT_ONCE} at once is, besides, `--config.train.steps_per_call={AT_ONCE}`."""
    columns = ["demo", ("batch", "d"), ("same batch", ".2f"), ("from the host", ".2f"), ("resident", ".2f")]
    columns += [(f"{AT_ONCE} at once", ".2f"), ("from the host / at once", ".2f")]
    publish("performance.md", "What the host costs a step", [paragraph(head), table(columns, rows), machine()])


def photographs(folder: Path) -> None:
    """Files of 500 x 375 pixels of two classes, cut from scikit-learn's two photographs."""
    from sklearn.datasets import load_sample_images

    random = np.random.RandomState(0)
    for number in range(FILES):
        kind = number % 2
        picture = Image.fromarray(load_sample_images().images[kind])
        left, top = random.randint(0, picture.width - 500), random.randint(0, picture.height - 375)
        path = folder / str(kind) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.crop((left, top, left + 500, top + 375)).save(path, quality=90)


def with_ssljax(folder: Path) -> float:
    """Images a second."""
    keep_memory()  # as `python -m ssljax.train` does
    source = OnCanvas(open_source(f"folder:{folder}", "train"), CANVAS)
    batches = train_batches(source, batch_size=BATCH, seed=0, threads=len(os.sched_getaffinity(0)))
    return rate(batches)


def with_torch(folder: Path) -> float:
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import Compose, InterpolationMode, PILToTensor, Resize

    resize = Resize((CANVAS, CANVAS), InterpolationMode.BICUBIC)
    data = ImageFolder(str(folder), Compose([resize, PILToTensor()]))
    workers = len(os.sched_getaffinity(0))
    loader = DataLoader(data, BATCH, shuffle=True, num_workers=workers, persistent_workers=True)
    return rate(itertools.chain.from_iterable(itertools.repeat(loader)))


def rate(batches) -> float:
    for _ in range(4):  # what was made ahead
        next(batches)
    begun, count = time.perf_counter(), 2 * FILES // BATCH
    for _ in range(count):
        next(batches)
    return count * BATCH / (time.perf_counter() - begun)


SIDES = {"ssljax": with_ssljax, "torch": with_torch}


def files() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        photographs(Path(folder))
        for cores in (1, 2):
            sides: dict[str, list[float]] = {side: [] for side in SIDES}
            for _ in range(ROUNDS):
                for side, of in sides.items():
                    command = [sys.executable, __file__, f"--side={side}", f"--folder={folder}", f"--cores={cores}"]
                    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
                    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE)
                    of.append(json.loads(done.stdout.splitlines()[-1]) / cores)
            ours, theirs = map(statistics.median, sides.values())
            rows.append([cores, ours, theirs, ours / theirs])
    head = f"""Made by `python benchmarks/host.py --part=files --write`: images a second and core, medians of {ROUNDS}
        rounds, of {FILES} JPEG files of 500 x 375 pixels, decoded whole and resized to {CANVAS} x {CANVAS}, bicubic, by
        Pillow on both sides, in shuffled batches of {BATCH}. ssljax has a thread for each core, the DataLoader a
        worker."""
    columns = ("cores", "d"), ("ssljax", ".0f"), ("DataLoader", ".0f"), ("ratio", ".2f")
    blocks = [paragraph(head), table(columns, rows), compared("torch", "torchvision", "Pillow")]
    publish("performance.md", "Files to batches", blocks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("steps", "files"), default="steps")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--side", choices=SIDES, help="measure one side, in this process")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--cores", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.side:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
        print(SIDES[arguments.side](arguments.folder))
    else:
        {"steps": steps, "files": files}[arguments.part]()


if __name__ == "__main__":
    main()
