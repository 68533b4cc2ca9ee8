"""The loop: step after step, metrics and a checkpoint now and then, and an orderly end whatever happens."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
from jax.sharding import Mesh

from ssljax.engine.checkpoint import Checkpoints
from ssljax.engine.logs import Logs
from ssljax.engine.mesh import to_devices
from ssljax.engine.monitors import alarm
from ssljax.engine.step import StepFunction
from ssljax.typing import PyTree, TrainState


class TrainingStopped(Exception):
    """The run cannot go on; the message says which number went wrong and where the last good checkpoint is."""


@dataclass(frozen=True)
class Every:
    """How often things happen, in steps; 0 is never."""

    log: int
    evaluate: int
    checkpoint: int


def fit(
    state: TrainState,
    step: StepFunction,
    batches: Iterator[PyTree],
    *,
    mesh: Mesh,
    total: int,
    batch_size: int,
    every: Every,
    logs: Logs,
    checkpoints: Checkpoints,
    evaluate: Callable[[TrainState], dict[str, float]],
) -> tuple[TrainState, bool]:
    """Train from `state.step` to `total`; `batches` begins with the batch of that step.

    Between two logged steps nothing waits for the device: metrics stay there until they are due. A SIGTERM lets the
    step finish, saves, and returns. Returns the state, and whether the run is complete.

    Raises TrainingStopped when a metric is no longer finite: nothing of that is saved.
    """
    start = int(state.step)
    warning: str | None = None
    with _Interrupt() as interrupt:
        clock, clock_step = time.perf_counter(), start
        for i in range(start + 1, total + 1):
            batch = to_devices(next(batches), mesh)
            with jax.transfer_guard("disallow"):
                state, metrics = step(state, batch)
            if i == start + 1:  # compilation is not throughput
                jax.block_until_ready(state)
                clock, clock_step = time.perf_counter(), i
            ending = i == total or interrupt.received
            due = {name: n > 0 and i % n == 0 or ending for name, n in vars(every).items()}
            if not any(due.values()):
                continue

            numbers = {name: float(value) for name, value in jax.device_get(metrics).items()}
            wrong = [name for name, value in numbers.items() if not math.isfinite(value)]
            if wrong:
                where = f"; the last good checkpoint is of step {checkpoints.latest}" if checkpoints.latest else ""
                raise TrainingStopped(
                    f"{', '.join(wrong)} not finite at step {i}{where}. Lower the learning rate, lengthen the "
                    "warm-up, or clip the gradient (--config.optimizer.clip_norm=1)."
                )
            if i > clock_step:
                numbers["seconds_per_step"] = (time.perf_counter() - clock) / (i - clock_step)
                numbers["examples_per_second"] = batch_size / numbers["seconds_per_step"]
            if due["evaluate"] and every.evaluate and not interrupt.received:
                numbers |= evaluate(state)
            stopping = interrupt.received  # once: a signal that comes later is for the next step
            logs.write(i, numbers)
            before, warning = warning, alarm(numbers)
            if warning and not before:
                logs.say(f"warning at step {i}: {warning}")
            if due["checkpoint"] or stopping:
                checkpoints.save(state, {k: v for k, v in numbers.items() if k == "knn"})
            if stopping:
                checkpoints.wait()
                return state, False
            clock, clock_step = time.perf_counter(), i
        checkpoints.wait()
    return state, True


class _Interrupt:
    """Notes SIGTERM (and the first Ctrl-C) instead of dying of it; a second Ctrl-C is Python's own."""

    def __enter__(self):
        self.received = False
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, number, frame):
        self.received = True
        signal.signal(signal.SIGINT, self._before[signal.SIGINT])

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)
