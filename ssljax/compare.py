"""Several runs side by side on one page: accuracies, margins, what differs in their configs, and their curves.

    python -m ssljax.compare runs/mae runs/simclr [--out=compare.html]
    python -m ssljax.compare runs/mae/on/csv-other.csv runs/simclr/on/csv-other.csv

Each must have been evaluated (`ssljax.evaluate`); what was found on other data has a folder in the run's `on/`.
"""

import json
from pathlib import Path

from absl import app, flags
from flax.traverse_util import flatten_dict

from ssljax.commands import local_path, one_sentence
from ssljax.config import recall
from ssljax.engine.logs import read_metrics
from ssljax.report import Compared, write_comparison


def compare(workdirs: list[Path], page: Path) -> Path:
    """Writes the page and returns its path. Raises ValueError for fewer than two runs, one that is given twice, and a
    folder that holds no run or one that was not evaluated."""
    if len(workdirs) < 2:
        raise ValueError("give the folders of two runs or more: python -m ssljax.compare RUN RUN …")
    if not page.parent.is_dir():
        raise ValueError(f"there is no folder {page.parent} to write {page.name} into: make it, or give another --out.")
    given = [workdir.resolve() for workdir in workdirs]
    if twice := [str(workdir) for i, workdir in enumerate(workdirs) if given[i] in given[:i]]:
        raise ValueError(f"{twice[0]} is given twice: name each run once.")
    return write_comparison([_read(workdir, workdirs) for workdir in workdirs], page)


def _read(workdir: Path, others: list[Path]) -> Compared:
    """Called as its folder is, or by the whole path where `others` are called so too."""
    run = workdir.resolve()
    run = run.parents[1] if run.parent.name == "on" else run
    config = flatten_dict(recall(run).to_dict(), sep=".")
    path = workdir / "results.json"
    if not path.exists():
        raise ValueError(f"{workdir} was not evaluated: run `python -m ssljax.evaluate --workdir={run}` first.")
    try:
        results = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}): evaluate the run again.") from None
    alone = sum(other.resolve().name == workdir.resolve().name for other in others) == 1
    name = workdir.resolve().name if alone else str(workdir)
    config["data.source"] = results.get("data", config["data.source"])
    return Compared(name, config, read_metrics(run), results)


def _parse(arguments: list[str]) -> list[str]:
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        raise ValueError(" ".join(str(error).split())) from error


if __name__ == "__main__":
    OUT = flags.DEFINE_string("out", "compare.html", "The page that is written.")
    with one_sentence():
        app.run(
            lambda left: print(f"page: {compare([local_path(run) for run in left[1:]], Path(OUT.value))}"),
            flags_parser=_parse,
        )
