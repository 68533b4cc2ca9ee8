"""How long it takes until something happens: from a command to its first step, cold and with what was compiled before,
and to import a loss.

    python benchmarks/start.py [--write]
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sections import ROOT, machine, paragraph, publish, table

CONFIGS = "images/simclr", "images/mae", "text/bert", "tables/scarf"
ROUNDS = 3
LATE = "sklearn.linear_model", "scipy.signal"
"""What an evaluation and speech import when they come to need it."""
IMPORTS = "jax", "ssljax.losses", "ssljax.train", f"ssljax.train, {', '.join(LATE)}"


def first_step(config: str, caches: Path, workdir: Path) -> float:
    """Seconds from the command to the line of the first step."""
    command = [sys.executable, "-m", "ssljax.train", f"--config={ROOT / 'configs' / config}.py:demo"]
    command += [f"--workdir={workdir}", "--config.steps=2", "--config.log.every=1", "--config.evaluate.every=0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(caches)}
    begun = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as run:
        for line in run.stdout or ():
            if line.startswith("step 1/"):
                seconds = time.perf_counter() - begun
        if run.wait():
            raise RuntimeError(f"{config} did not run")
    return seconds


def imported(modules: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {modules}"], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    return time.perf_counter() - begun


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for config in CONFIGS:
            place = Path(folder) / config
            cold = first_step(config, place / "cache", place / "run")
            warm = [first_step(config, place / "cache", place / f"run{i}") for i in range(ROUNDS)]
            rows.append([config, cold, statistics.median(warm)])
    times = [[f"import {modules}", statistics.median(imported(modules) for _ in range(ROUNDS))] for modules in IMPORTS]
    head = f"""Made by `python benchmarks/start.py --write`: seconds from the command to the end of the first step of
        `:demo`, with an empty compilation cache and (medians of {ROUNDS}) with what the first run left in it; and for a
        statement, in a Python that is started for it."""
    blocks = [
        paragraph(head),
        table(["demo", ("cold, s", ".1f"), ("again, s", ".1f")], rows),
        table(["statement", ("seconds", ".2f")], times),
        machine(),
    ]
    publish("performance.md", "How long a start takes", blocks)


if __name__ == "__main__":
    main()
