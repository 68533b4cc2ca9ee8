"""Where numbers go: a progress bar or lines, `metrics.jsonl`, TensorBoard, and Weights & Biases if asked."""

import json
import re
import time
import uuid
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

SHOWN = {
    "loss": "loss {:.4f}",
    "examples_per_second": "{:.0f} ex/s",
    "feature_std": "std {:.2f}",
    "effective_rank": "rank {:.1f}",
    "knn": "k-NN {:.1%}",
}


class Logs:
    """Writes the metrics of a run; on any process but the first, every call does nothing.

    total, start: the last step of the run and the one it goes on from; what a killed run had written of later steps is
    cut away, for it will be written again. wandb: name of a Weights & Biases project, or "".
    """

    def __init__(
        self, workdir: Path, *, total: int, start: int = 0, wandb: str = "", config: dict[str, Any] | None = None
    ):
        self.active = jax.process_index() == 0
        if not self.active:
            return
        self._total = total
        self._newest: dict[str, float] = {}
        self._wandb = _start_wandb(wandb, workdir, config) if wandb else None
        _truncate(workdir / "metrics.jsonl", start)
        self._file = (workdir / "metrics.jsonl").open("a")
        self._tensorboard = _TensorBoard(workdir / "tensorboard", start)
        console = Console(stderr=True)
        self._progress: Progress | None = None
        if console.is_terminal:
            # Eighty columns hold all of it.
            columns = BarColumn(10), TextColumn("{task.completed}/{task.total}"), TimeRemainingColumn(compact=True)
            self._progress = Progress(*columns, TextColumn("{task.fields[shown]}"), console=console)
            self._task = self._progress.add_task("", total=total, completed=start, shown="compiling")
            self._progress.start()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Metrics after `step` steps."""
        if not self.active:
            return
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        self._tensorboard.write(step, metrics)
        if self._wandb is not None:
            self._wandb.log(metrics, step=step)
        self._newest |= metrics
        shown = "  ".join(form.format(self._newest[name]) for name, form in SHOWN.items() if name in self._newest)
        if self._progress is not None:
            self._progress.update(self._task, completed=step, shown=shown)
        elif "loss" in metrics:
            left = (self._total - step) * metrics.get("seconds_per_step", 0.0)
            print(f"step {step}/{self._total}  {shown}  {int(left // 60)}m{int(left % 60):02d}s left", flush=True)

    def say(self, text: str) -> None:
        """A line for the reader, above the progress bar."""
        if self.active and self._progress is not None:
            self._progress.console.print(text, highlight=False)
        elif self.active:
            print(text, flush=True)

    def close(self) -> None:
        if not self.active:
            return
        if self._progress is not None:
            self._progress.stop()
        self._file.close()
        self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


def read_metrics(workdir: Path) -> list[dict[str, float]]:
    """The rows of `metrics.jsonl`; a last line that a crash cut short is left out."""
    path = workdir / "metrics.jsonl"
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _truncate(path: Path, start: int) -> None:
    rows = [row for row in read_metrics(path.parent) if row["step"] <= start]
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(row) + "\n" for row in rows))
    part.replace(path)


class _TensorBoard:
    """Event files, written at once and in this thread: what a step has logged is on disk when its checkpoint is.

    TensorBoard reads them in the order of their names, and lets each one replace what those before it say of the steps
    after its start. So their names are numbers that grow, for clocks can be set back and hosts have other names.
    """

    def __init__(self, folder: Path, start: int):
        folder.mkdir(exist_ok=True)
        found = (re.match(r"events\.out\.tfevents\.(\d+)", path.name) for path in folder.iterdir())
        number = 1 + max((int(match[1]) for match in found if match), default=0)
        self._records = RecordWriter(str(folder / f"events.out.tfevents.{number:010d}"))
        self._add(file_version="brain.Event:2")
        self._add(step=start + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, metrics: dict[str, float]) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._add(step=step, summary=Summary(value=values))

    def close(self) -> None:
        self._records.close()

    def _add(self, **contents: Any) -> None:
        self._records.write(Event(wall_time=time.time(), **contents).SerializeToString())
        self._records.flush()


def _start_wandb(project: str, workdir: Path, config: dict[str, Any] | None):
    import wandb  # only where it is asked for

    path = workdir / "wandb_id"  # so that a resumed run goes on in the same curves
    if not path.exists():
        path.write_text(uuid.uuid4().hex)
    return wandb.init(
        project=project, id=path.read_text(), dir=workdir, name=workdir.name, config=config, resume="allow"
    )
