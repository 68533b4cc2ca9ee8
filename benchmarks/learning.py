"""Pretrain and evaluate every demo with several seeds, and print the table of docs/results.md.

    python benchmarks/learning.py [--write] [--methods=simclr,byol] [--seeds=3] [--runs=runs/learning]

Runs that are complete already are not repeated, so that it may be stopped and started again, a method at a time. With
--write the table goes into docs/results.md; a method whose runs are not there is left out and named.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"
PROTOCOLS = "knn", "linear"
HEAD = """# What the demos reach

Made by `python benchmarks/learning.py --write`: each `:demo` pretrained on the 8,000 embedded training images with
{seeds} seeds, and judged on the 2,000 embedded test images by its last checkpoint. ± is the standard deviation over
seeds, which change everything: the weights, the order of the images, the views. Random init is the same encoder before
its first step, with the same seeds. The embedded images are a re-encoded part of CIFAR-10
(`ssljax/data/demo/README.md`), so these are not CIFAR-10 numbers.

"""


def cpu_minutes() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) / 60


def train_and_evaluate(config: Path, seed: int, workdir: Path) -> dict:
    """What the run's results.json says, with the CPU minutes that pretraining took."""
    spent, environment = workdir / "cpu_minutes.json", os.environ | {"PYTHONPATH": str(ROOT)}
    if not (workdir / "results.json").exists():
        before = cpu_minutes()
        train = ["ssljax.train", f"--config={config}:demo", f"--config.seed={seed}", "--config.evaluate.every=0"]
        for command in (train, ["ssljax.evaluate"]):
            subprocess.run([sys.executable, "-m", *command, f"--workdir={workdir}"], check=True, env=environment)
            if command is train:
                spent.write_text(json.dumps(cpu_minutes() - before))
    minutes = json.loads(spent.read_text()) if spent.exists() else float("nan")
    return json.loads((workdir / "results.json").read_text()) | {"minutes": minutes}


def percent(accuracies: list[float]) -> str:
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else float("nan")
    return f"{100 * statistics.mean(accuracies):.1f} ± {100 * spread:.1f}"


def row(method: str, results: list[dict]) -> str:
    cells = [method, f"{statistics.mean(r['minutes'] for r in results):.1f}"]
    for protocol in PROTOCOLS:
        of = {
            name: [r["encoders"][name][protocol]["accuracy"] for r in results] for name in ("pretrained", "random init")
        }
        ahead = [a - b for a, b in zip(*of.values(), strict=True)]
        cells += [percent(of["pretrained"]), percent(of["random init"]), percent(ahead)]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    configs = {path.stem: path for path in sorted((ROOT / "configs").glob("*/*.py"))}
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "learning")
    parser.add_argument("--methods", type=lambda names: names.split(","), default=list(configs))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()

    results: dict[str, list[dict]] = {}
    for name in arguments.methods:
        for seed in range(arguments.seeds):
            found = train_and_evaluate(configs[name], seed, arguments.runs / f"{name}-{seed}")
            results.setdefault(name, []).append(found)
        print(row(name, results[name]), flush=True)
    last = results[name][-1]
    raw = last["encoders"]["raw pixels"]
    lines = [
        "| method | CPU min | k-NN, % | random init | ahead by | linear, % | random init | ahead by |",
        "|---|---|---|---|---|---|---|---|",
        *(row(name, of) for name, of in results.items()),
        "",
        f"Raw pixels: k-NN {100 * raw['knn']['accuracy']:.1f} %, linear {100 * raw['linear']['accuracy']:.1f} %.",
        "",
        "Protocols:",
        "",
        *(f"- {name}: {text}." for name, text in last["protocols"].items()),
        "",
        f"Python {platform.python_version()}, jax {version('jax')}, {os.cpu_count()} CPU cores.",
        "",
    ]
    left_out = [name for name in configs if name not in results]
    if left_out:
        lines[-1:-1] = ["", f"Not run: {', '.join(left_out)}."]
    page = HEAD.format(seeds=arguments.seeds) + "\n".join(lines)
    print(page)
    if arguments.write:
        PAGE.write_text(page)


if __name__ == "__main__":
    main()
