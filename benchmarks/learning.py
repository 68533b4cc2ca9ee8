"""Pretrain and evaluate every demo with several seeds, and print the table of docs/results.md.

    python benchmarks/learning.py [--write] [--methods=simclr,byol] [--seeds=3] [--runs=runs/learning]

What each run gave is a line of benchmarks/learning.jsonl, with a digest of its settings: a run that is there is not
repeated, so that this may be stopped and started again, or run at once for different methods. (Code is not in the
digest: where it changes what is learnt, delete the lines.) With --write the table of all that is recorded goes into
docs/results.md; a method with runs missing is left out and named.
"""

import argparse
import hashlib
import json
import os
import platform
import runpy
import shutil
import statistics
from importlib.metadata import version
from pathlib import Path

import numpy as np
from sections import ROOT, paragraph, publish, table
from trials import EVALUATE, make

import ssljax
from ssljax.build import build_method
from ssljax.config import HOW_NOT_WHAT
from ssljax.data.sources import open_source
from ssljax.engine.logs import read_metrics

RECORD = Path(__file__).with_suffix(".jsonl")
PROTOCOLS = "knn", "linear"
OF_ENCODERS = "simclr", "mae"
"""For each encoder the demo by whose config it is trained from scratch."""
SCRATCH = "from scratch"
AHEAD = ("random init", ".1f"), ("ahead by", ".1f")
COLUMNS = (
    *("method", "encoder", ("CPU min", ".1f"), ("rank", ".1f"), ("colour, %", ".0f")),
    *(("k-NN, %", ".1f"), *AHEAD, ("linear, %", ".1f"), *AHEAD),
)
HEAD = """\
Made by `python benchmarks/learning.py --write --seeds={seeds}`: each `:demo` pretrained on the 8,000 embedded
training images with so many seeds, and judged on the 2,000 embedded test images by its last checkpoint. ± is the
standard deviation over seeds, which change everything: the weights, the order of the images, the views. Random init
is the same encoder before its first step, with the same seeds: a ResNet-8 or, where a method is about patches, a ViT
of four blocks (`vit_micro`), which begins lower. CPU minutes are those of pretraining, the
least of the seeds', which the same work on a busy machine exceeds; they go from {least:.1f} to {most:.1f}. Rank is the
effective rank of the last batch's features, and colour the share of the variance of the test images' features that
follows linearly from the mean colour of each image. The embedded images are a re-encoded part of CIFAR-10
(`ssljax/data/demo/README.md`), so these are not CIFAR-10 numbers. From scratch is the same encoder, trained with all
labels and no pretraining, as `ssljax.evaluate` does it (Adam on the images as they are, until a held-out fifth gets no
better)."""


def digest(config: Path, seed: int) -> str:
    """Of the seed, of what the config says must be computed, and of what it leaves to encoders and views."""
    settings = runpy.run_path(str(config))["get_config"]("demo")
    method = build_method(settings, total_steps=1)
    with settings.unlocked():
        for name in {field.partition(".")[0] for field in HOW_NOT_WHAT} - {"encoder"}:
            del settings[name]
    return hashlib.sha256(f"{seed} {settings.to_json(sort_keys=True)} {method}".encode()).hexdigest()[:16]


def colour(workdir: Path) -> float:
    """Share of the variance of the test images' features that follows linearly from each image's mean colour."""
    source = open_source("demo", "test")
    images = np.stack([source[i]["image"] for i in range(len(source))])
    features, mean = ssljax.load(workdir)(images), images.mean(axis=(1, 2))
    features, mean = features - features.mean(axis=0), mean - mean.mean(axis=0)
    foretold = mean @ np.linalg.lstsq(mean, features, rcond=None)[0]
    return float(np.square(foretold).sum() / np.square(features).sum())


def recorded() -> dict[str, dict]:
    """The lines of the record by their digest, the last one where there are several."""
    lines = RECORD.read_text().splitlines() if RECORD.exists() else ()
    return {line["digest"]: line for line in map(json.loads, lines)}


def train_and_evaluate(config: Path, seed: int, key: str, workdir: Path) -> None:
    """Runs the demo from its beginning, and adds what its results.json says and its CPU minutes to the record."""
    shutil.rmtree(workdir, ignore_errors=True)
    seconds, _ = make(workdir, config, "demo", {"seed": seed}, EVALUATE)
    results = json.loads((workdir / "results.json").read_text())
    last = [row for row in read_metrics(workdir) if "effective_rank" in row][-1]
    line = {"digest": key, "method": config.stem, "seed": seed, "minutes": seconds / 60, "rank": last["effective_rank"]}
    line |= {
        "colour": colour(workdir),
        "python": platform.python_version(),
        "jax": version("jax"),
        "protocols": results["protocols"],
        "accuracy": {
            name: {protocol: of[protocol]["accuracy"] for protocol in PROTOCOLS}
            for name, of in results["encoders"].items()
        },
    }
    with RECORD.open("a") as file:
        file.write(json.dumps(line) + "\n")


def from_scratch(config: Path, seed: int, key: str, workdir: Path) -> None:
    """Adds what the encoder comes to by labels alone to the record. (Of the run, two steps are enough.)"""
    shutil.rmtree(workdir, ignore_errors=True)
    make(workdir, config, "demo", {"seed": seed, "steps": 2}, ("ssljax.evaluate", "--protocol=linear", "--scratch"))
    results = json.loads((workdir / "results.json").read_text())
    line = {"digest": key, "encoder": encoder(config), "seed": seed}
    line["accuracy"] = results["encoders"][SCRATCH]["linear"]["accuracy"]
    with RECORD.open("a") as file:
        file.write(json.dumps(line) + "\n")


def percent(accuracies: list[float]) -> float | tuple[float, float]:
    mean = 100 * statistics.mean(accuracies)
    return (mean, 100 * statistics.stdev(accuracies)) if len(accuracies) > 1 else mean


def encoder(config: Path) -> str:
    return runpy.run_path(str(config))["get_config"]("demo").encoder.name


def behind(results: dict[str, list[dict]]) -> str:
    """The methods whose mean over seeds is below raw pixels, and by which protocol."""
    found = []
    for protocol in PROTOCOLS:
        for name, runs in results.items():
            kinds = "pretrained", "raw pixels"
            mine, raw = (statistics.mean(run["accuracy"][kind][protocol] for run in runs) for kind in kinds)
            found += [f"{name} ({protocol})"] if mine < raw else []
    return ", ".join(found) or "none"


def row(method: str, encoder: str, results: list[dict]) -> list:
    cells = [method, encoder, min(r["minutes"] for r in results)]
    cells.append(statistics.mean(r["rank"] for r in results))
    cells.append(100 * statistics.mean(r["colour"] for r in results))
    for protocol in PROTOCOLS:
        of = {name: [r["accuracy"][name][protocol] for r in results] for name in ("pretrained", "random init")}
        ahead = [a - b for a, b in zip(*of.values(), strict=True)]
        cells += [percent(of["pretrained"]), percent(of["random init"]), percent(ahead)]
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    configs = {path.stem: path for path in sorted((ROOT / "configs" / "images").glob("*.py"))}
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "learning")
    parser.add_argument("--methods", type=lambda names: names.split(","), default=list(configs))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()

    for seed in range(arguments.seeds):
        for name in arguments.methods:
            if (key := digest(configs[name], seed)) not in recorded():
                train_and_evaluate(configs[name], seed, key, arguments.runs / f"{name}-{seed}")
        for name in set(OF_ENCODERS) & set(arguments.methods):
            if (key := f"{SCRATCH} {digest(configs[name], seed)}") not in recorded():
                from_scratch(configs[name], seed, key, arguments.runs / f"{encoder(configs[name])}-{seed}")

    found, results = recorded(), {}
    for name, config in configs.items():
        runs = [found.get(digest(config, seed)) for seed in range(arguments.seeds)]
        if all(runs):
            results[name] = runs
    if not results:
        raise SystemExit(f"no method has all {arguments.seeds} runs in {RECORD.name}: nothing to show.")
    minutes = [min(run["minutes"] for run in runs) for runs in results.values()]
    last = next(reversed(results.values()))[-1]
    raw = last["accuracy"]["raw pixels"]
    nothing = None, None
    pixels = ["raw pixels", *nothing, *nothing, 100 * raw["knn"], *nothing, 100 * raw["linear"], *nothing]
    labelled = []
    for config in (configs[name] for name in OF_ENCODERS):
        runs = [found.get(f"{SCRATCH} {digest(config, seed)}") for seed in range(arguments.seeds)]
        if all(runs):
            reached = percent([run["accuracy"] for run in runs])
            labelled.append([SCRATCH, encoder(config), None, *nothing, None, *nothing, reached, *nothing])
    left_out = ", ".join(name for name in configs if name not in results)
    blocks = [
        paragraph(HEAD.format(seeds=arguments.seeds, least=min(minutes), most=max(minutes))),
        table(COLUMNS, [*(row(name, encoder(configs[name]), of) for name, of in results.items()), *labelled, pixels]),
        f"Below raw pixels: {behind(results)}.",
        *([f"Not run: {left_out}."] if left_out else []),
        "Protocols:",
        "\n".join(f"- {name}: {text}." for name, text in last["protocols"].items()),
        f"Python {last['python']}, jax {last['jax']}, {os.cpu_count()} CPU cores.",
    ]
    publish("results.md", "What the demos reach", blocks)


if __name__ == "__main__":
    main()
