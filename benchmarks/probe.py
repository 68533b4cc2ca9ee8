"""How long linear probes take on many wide features, and whether they find what is there.

    python benchmarks/probe.py [--examples=50000] [--dim=2048] [--classes=10] [--only=linear,grid,simclr] [--write]

Features are drawn: each class a normal distribution about a centre of its own, so near to the others that the best
possible classifier, which knows the centres, is not always right. With --write the table goes into docs/evaluation.md.
"""

import argparse
import time

import numpy as np
from sections import machine, paragraph, publish, table

from ssljax.evals.linear import linear_probe
from ssljax.evals.probe import RECIPES, Features, sgd_probe
from ssljax.evals.scores import Score

TEST = 10_000
APART = 3.0
"""Length of a centre, where the deviation of a class is 1 in each direction."""


def drawn(examples: int, dim: int, classes: int) -> tuple[np.ndarray, ...]:
    """(train, its labels, test, their labels, centres); all features are positive, as after a ReLU is usual."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((classes, dim), np.float32)
    centres *= APART / np.linalg.norm(centres, axis=1, keepdims=True)
    parts = []
    for count in (examples, TEST):
        labels = random.integers(0, classes, count)
        parts += [4 + centres[labels] + random.standard_normal((count, dim), np.float32), labels]
    return *parts, centres


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("examples", 50_000), ("dim", 2048), ("classes", 10)):
        flags.add_argument(f"--{name}", type=int, default=default)
    flags.add_argument("--only", default="linear," + ",".join(RECIPES))
    flags.add_argument("--write", action="store_true")
    a = flags.parse_args()

    *parts, centres = drawn(a.examples, a.dim, a.classes)
    best = ((parts[2] - 4) @ centres.T).argmax(axis=1) == parts[3]
    rows = []
    for name in a.only.split(","):
        start = time.perf_counter()
        score: Score
        if name == "linear":
            score, penalty = linear_probe(*parts)
            chosen = f"penalty {penalty:g}"
        else:
            train, labels, test, truth = parts
            score, _, rate, decay = sgd_probe({"": Features(train, test)}, labels, truth, RECIPES[name])
            chosen = f"rate {rate:g}, weight decay {decay:g}"
        seconds = time.perf_counter() - start
        heads = 1 if name == "linear" else len(RECIPES[name].rates) * len(RECIPES[name].decays)
        accuracy = 100 * score.accuracy, 100 * score.standard_error
        rows.append([name, heads, seconds, accuracy, chosen])
        print(*rows[-1], flush=True)
    head = (
        f"Made by `python benchmarks/probe.py --write --only={a.only}`: {a.examples} x {a.dim} features of {a.classes} "
        f"classes, {TEST} to test, with compilation. Who knows the centres is right {100 * best.mean():.1f} % of the "
        "time."
    )
    columns = "probe", "heads at once", ("seconds", ".0f"), ("accuracy, %", ".1f"), "chosen"
    publish("evaluation.md", "How long a linear probe takes", [paragraph(head), table(columns, rows), machine()])


if __name__ == "__main__":
    main()
