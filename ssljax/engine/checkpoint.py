"""Checkpoints: complete or not there at all, and a damaged one is not fatal while an older one can be read."""

import errno
import itertools
import json
import logging
import math
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as policy

from ssljax.engine.processes import ProcessLost, agree, lost_process, on_first
from ssljax.typing import PyTree, TrainState

CHECKSUMS = "checksums.json"
METRICS = "metrics.json"
CHANGES = "_CHECKPOINT_METADATA"
"""Orbax writes the time into this file as it gives a checkpoint its name."""

log = logging.getLogger(__name__)
logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax warns of the options that it was given


class CheckpointError(Exception):
    """A checkpoint that cannot be read or written, in a sentence that says what to do."""


class NotInTime(CheckpointError):
    """A checkpoint was not written in time; there is nothing to change."""


class Checkpoints:
    """The checkpoints of one run, in `directory`/<step>.

    Saving is asynchronous, and a checkpoint gets its name only when it is complete, the checksums of its files
    included; older ones go after that. Several processes write and read one checkpoint together, in a folder that all
    of them see.
    keep: how many of the newest stay, at least 1. best: the metric by whose highest value one more stays; "" for none.
    """

    def __init__(self, directory: Path, *, keep: int = 2, best: str = "", read_only: bool = False):
        if keep < 1:
            raise ValueError(f"{keep} checkpoints cannot be kept: --config.checkpoint.keep must be at least 1.")
        self.directory = Path(directory).absolute()
        self._read_only = read_only
        self.best = best
        self._metrics: dict[int, dict[str, float]] = {}
        kept: list[policy.PreservationPolicy] = [policy.LatestN(keep), _Best(self._value)]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy.AnyPreservationPolicy(kept),
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            create=not read_only,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )
        with self._one_sentence():
            self._manager = ocp.CheckpointManager(self.directory, options=options)

    def save(self, state: TrainState, metrics: dict[str, float] | None = None) -> None:
        """Begin to save; an earlier save that failed is raised here. Raises CheckpointError."""
        with self._one_sentence():
            on_first(lambda: self._check_room(sum(x.nbytes for x in jax.tree.leaves(state))))
            step = int(state.step)
            self._metrics[step] = metrics or {}
            if not self._manager.save(step, args=ocp.args.StandardSave(state)):
                raise FileExistsError(f"there is one of step {step} already")

    def restore(self, abstract: PyTree, step: int | None = None) -> TrainState | None:
        """The newest state that can be read (or that of `step`), as `abstract` says; None if there is no checkpoint.

        A newer one that cannot be read is named in the log and moved aside. Raises CheckpointError if none can.
        """
        there = sorted(self._manager.all_steps(), reverse=True)
        if step is not None and step not in there:
            raise CheckpointError(f"{self.directory} has no checkpoint of step {step}; it has {there}.")
        damaged: list[int] = []
        for candidate in there if step is None else [step]:
            problem = self._problem(candidate)
            if not agree(problem is None):
                reason = problem or "as another process found"
                log.warning("checkpoint %s is damaged (%s)", self.directory / str(candidate), reason)
                damaged.append(candidate)
                continue
            try:
                state = self._manager.restore(candidate, args=ocp.args.StandardRestore(abstract))
            except Exception as error:  # whole, and yet not what this version of the code would read
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                log.warning("checkpoint %s cannot be read (%s)", self.directory / str(candidate), reason)
                damaged.append(candidate)
                continue
            if damaged and not self._read_only:
                self._move_aside(damaged)
            return state
        if damaged:
            names = ", ".join(str(self.directory / str(s)) for s in damaged)
            raise CheckpointError(
                f"no checkpoint can be read: {names} damaged, or of another version; bring one back from a copy, or "
                "start again in another --workdir."
            )
        return None

    def wait(self) -> None:
        """Until what was saved is on disk. Raises CheckpointError if it is not."""
        with self._one_sentence():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def close(self) -> None:
        """Wait for what is being saved, and end. Raises CheckpointError if it could not be."""
        with self._one_sentence():
            self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        """Wait for what is being saved, except for processes that are gone; an error that is under way goes first."""
        if jax.process_count() == 1 or kind is None or not issubclass(kind, (jax.errors.JaxRuntimeError, ProcessLost)):
            with suppress(CheckpointError) if kind else nullcontext():
                self.close()

    @property
    def latest(self) -> int | None:
        return self._manager.latest_step()

    def _move_aside(self, damaged: list[int]) -> None:
        def move():
            for step in damaged:
                names = (f"damaged-{step}" + (f"-{i}" if i else "") for i in itertools.count())
                free = next(name for name in names if not (self.directory / name).exists())
                (self.directory / str(step)).rename(self.directory / free)

        on_first(move)
        self._manager.reload()

    def _check_room(self, needed: int) -> None:
        if shutil.disk_usage(self.directory).free < needed:
            raise OSError(errno.ENOSPC, "No space left for the next checkpoint")

    def _seal(self) -> None:
        """Write the metrics and the checksums of a checkpoint that is complete but for its name, on process 0."""
        for unnamed in self.directory.glob("*.orbax-checkpoint-tmp*"):
            (unnamed / METRICS).write_text(json.dumps(self._metrics.get(int(unnamed.name.split(".")[0]), {})))
            checksums = {str(path.relative_to(unnamed)): _checksum(path) for path in _files(unnamed)}
            (unnamed / CHECKSUMS).write_text(json.dumps(checksums))

    def _value(self, step: int) -> float:
        """By which the best checkpoint is found, those of earlier processes included."""
        if step not in self._metrics:
            try:
                self._metrics[step] = json.loads((self.directory / str(step) / METRICS).read_text())
            except (OSError, ValueError):
                self._metrics[step] = {}
        return self._metrics[step].get(self.best, -math.inf)

    def _problem(self, step: int) -> str | None:
        """What is wrong with the files of a checkpoint; of several processes, each looks at a part of them."""
        folder = self.directory / str(step)
        try:
            checksums = json.loads((folder / CHECKSUMS).read_text())
            for name in sorted(checksums)[jax.process_index() :: jax.process_count()]:
                if not (folder / name).is_file():
                    return f"{name} is missing"
                if _checksum(folder / name) != checksums[name]:
                    return f"{name} is not what was written"
        except (OSError, ValueError) as error:
            return f"{CHECKSUMS}: {error}"
        return None

    @contextmanager
    def _one_sentence(self) -> Iterator[None]:
        try:
            yield
        except ProcessLost:
            raise
        except Exception as error:  # raised by Orbax, TensorStore or the file system, in this thread or for another
            if isinstance(error, (jax.errors.JaxRuntimeError, TimeoutError)) and (lost := lost_process(error)):
                raise lost from error
            if isinstance(error, TimeoutError):  # Orbax measures by the clock of the wall
                raise NotInTime(
                    f"the checkpoint in {self.directory} was not written in time, or the clock was set meanwhile; run "
                    "the same command again: it goes on from the last complete checkpoint."
                ) from error
            text = " ".join(str(error).split())
            full = "No space left" in text or "RESOURCE_EXHAUSTED" in text
            reason = "the disk is full" if full else text[:300]
            raise CheckpointError(
                f"the checkpoint in {self.directory} could not be written ({reason}); make room or choose another "
                "--workdir, then run the same command again: it goes on from the last complete checkpoint."
            ) from error


@dataclass(frozen=True)
class _Best(policy.PreservationPolicy):
    """Keeps the checkpoint of the highest value, of several the newest; none where no value is finite."""

    value: Callable[[int], float]

    def should_preserve(
        self, checkpoints: Sequence[policy.PolicyCheckpointInfo], *, context: policy.PreservationContext
    ) -> Sequence[bool]:
        best = max(((self.value(c.step), c.step) for c in checkpoints), default=(-math.inf, 0))
        return [math.isfinite(best[0]) and c.step == best[1] for c in checkpoints]


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _checksum(path: Path) -> list[int]:
    """[bytes, CRC-32] of a file."""
    if path.name == CHANGES:
        return [0, 0]
    crc, size = 0, 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            crc, size = zlib.crc32(block, crc), size + len(block)
    return [size, crc]
