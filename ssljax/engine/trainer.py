"""The loop: step after step, metrics and a checkpoint now and then, and an orderly end whatever happens."""

import contextlib
import math
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from ssljax.engine.checkpoint import Checkpoints
from ssljax.engine.logs import Logs
from ssljax.engine.mesh import to_devices
from ssljax.engine.monitors import alarm
from ssljax.engine.step import StepFunction
from ssljax.typing import PyTree, TrainState

STARVED = 1.25
"""Steps that take so many times what the device needs for them wait for the input."""
WORTH_SAYING = 0.02
"""Seconds a step: shorter waits are not the input's, but the price of a step so small."""


class TrainingStopped(Exception):
    """The run cannot go on; the message says which number went wrong and where the last good checkpoint is."""


@dataclass(frozen=True)
class Every:
    """How often things happen, in steps; 0 is never."""

    log: int
    evaluate: int
    checkpoint: int


@dataclass(frozen=True)
class Profile:
    """Which steps are traced, first and last, and the folder that TensorBoard and XProf read the trace from.

    Of several processes the first is traced: they all do the same.
    """

    first: int
    last: int
    folder: Path


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
    replay: Callable[[int], PyTree],
    post_mortem: Callable[[int, dict[str, float]], str],
    profile: Profile | None = None,
    several: Callable[[TrainState, PyTree], tuple[TrainState, dict[str, jax.Array]]] | None = None,
    steps_per_call: int = 1,
    stop: Callable[[int, dict[str, float]], str | None] | None = None,
) -> tuple[TrainState, bool]:
    """Train from `state.step` to `total`; `batches` begins with the batch of that step.

    Between two logged steps nothing waits for the device: metrics stay there until they are due, and a step that is not
    finite undoes itself and all that follow it (`make_train`). The step before each log is waited for, so that the
    logged one's `device_seconds` is its own. A SIGTERM, to any of the processes, lets the step finish, saves, and
    returns. Returns the state, and whether the run is complete.

    replay: the batch of a step, counted from 0; post_mortem: writes down the step that was not finite with its metrics,
    and says where. several: makes `steps_per_call` steps of stacked batches at once, and one at a time up to a multiple
    of these and at the end; None: `step` makes all. `every` and the profile are looked at after each call. stop: the
    method's own word on the logged metrics (`Method`).

    Raises TrainingStopped when a metric is no longer finite, or `stop` says so: nothing of that is saved.
    """
    start = int(state.step)
    warned: set[str] = set()
    waited = 0.0
    with _runtime_errors(), _Interrupt() as interrupt, contextlib.ExitStack() as trace:
        clock, clock_step = time.perf_counter(), start
        i, tracing, compiled = start, False, set()
        while i < total:
            count = steps_per_call if i % steps_per_call == 0 and i + steps_per_call <= total else 1
            i += count
            asked = time.perf_counter()
            if several is None:
                batch = to_devices(next(batches), mesh)
            else:
                batch = to_devices(_stacked([next(batches) for _ in range(count)]), mesh, stacked=True)
            waited += time.perf_counter() - asked
            if profile and not tracing and profile.first <= i and i - count < profile.last and jax.process_index() == 0:
                options = jax.profiler.ProfileOptions()
                options.python_tracer_level = 0  # its hooks in threads that are at work have ended a process
                trace.enter_context(jax.profiler.trace(str(profile.folder), profiler_options=options))
                tracing = True
            due_now = i == total or any(n > 0 and i % n == 0 for n in vars(every).values())
            if due_now:
                jax.block_until_ready(state)
            begun = time.perf_counter()
            with jax.transfer_guard("disallow"):
                state, metrics = several(state, batch) if several else step(state, batch)
            if profile and i - count < profile.last <= i:
                jax.block_until_ready(state)
                trace.close()
            if count not in compiled:  # compilation is not throughput
                compiled.add(count)
                jax.block_until_ready(state)
                clock, clock_step, waited = time.perf_counter(), i, 0.0
            stopping = interrupt.stops_at(i)
            if not (due_now or stopping):
                continue

            jax.block_until_ready(state)
            ended = time.perf_counter()
            due = {name: n > 0 and i % n == 0 or i == total or stopping for name, n in vars(every).items()}
            numbers = {name: float(value) for name, value in jax.device_get(metrics).items()}
            reached = int(numbers.pop("step"))
            if reached < 0:  # the state is the one before that step still, so that it can be made once more
                before = state.replace(step=jax.jit(lambda halted: -halted - 1)(state.step))
                state, metrics = step(before, to_devices(replay(-reached - 1), mesh))
                numbers = {name: float(value) for name, value in jax.device_get(metrics).items() if name != "step"}
            wrong = [name for name, value in numbers.items() if not math.isfinite(value)]
            if wrong or reached < 0:
                at = -reached if reached < 0 else i
                where = f"; the last good checkpoint is of step {checkpoints.latest}" if checkpoints.latest else ""
                raise TrainingStopped(
                    f"{', '.join(wrong) or 'something'} not finite at step {at}{where}. {post_mortem(at, numbers)} "
                    "Lower the learning rate, lengthen the warm-up, or clip the gradient "
                    "(--config.optimizer.clip_norm=1)."
                )
            if i > clock_step:
                seconds = (time.perf_counter() - clock) / (i - clock_step)
                numbers |= {"seconds_per_step": seconds, "examples_per_second": batch_size / seconds}
                numbers["input_seconds"] = waited / (i - clock_step)
                if due_now:
                    numbers["device_seconds"] = (ended - begun) / count
            if due["evaluate"] and every.evaluate and not stopping:
                numbers |= evaluate(state)
            logs.write(i, numbers)
            if stop and (reason := stop(i, numbers)):
                where = f" The last checkpoint is of step {checkpoints.latest}." if checkpoints.latest else ""
                raise TrainingStopped(f"stopped at step {i}: {reason}{where}")
            found = {"collapse": alarm(numbers), "input": _starving(numbers)}
            for kind, text in found.items():
                if text and kind not in warned:
                    logs.say(f"warning at step {i}: {text}")
            warned = {kind for kind, text in found.items() if text}
            stopping = stopping or interrupt.stops_at(i)
            if due["checkpoint"] or stopping:
                checkpoints.save(state, {k: v for k, v in numbers.items() if k == checkpoints.best})
            if stopping:
                checkpoints.wait()
                return state, i == total
            clock, clock_step, waited = time.perf_counter(), i, 0.0
        checkpoints.wait()
    return state, True


def _stacked(batches: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *parts: np.stack(parts), *batches)


def _starving(numbers: dict[str, float]) -> str | None:
    """A sentence where the device waits for its input, or None."""
    total, device, waited = (numbers.get(name) for name in ("seconds_per_step", "device_seconds", "input_seconds"))
    if total is None or device is None or waited is None or waited < WORTH_SAYING:
        return None
    if total < STARVED * device or waited < 0.5 * (total - device):
        return None
    return (
        f"the input is the bottleneck: a step takes {total:.3g} s, of which the device computes for {device:.3g} s. "
        "More CPU cores or hosts would help; so would, where the kind of data has them, a smaller "
        "--config.data.canvas, or arrays (npz:PATH) instead of files."
    )


@contextlib.contextmanager
def _runtime_errors() -> Iterator[None]:
    """What JAX's runtime reports comes as JaxRuntimeError, but from `block_until_ready` as ValueError: make it one."""
    try:
        yield
    except ValueError as error:
        if re.match(r"[A-Z_]+: ", str(error)):
            raise jax.errors.JaxRuntimeError(str(error)) from error
        raise


class _Interrupt:
    """Notes SIGTERM (and the first Ctrl-C) instead of dying of it; a second Ctrl-C is Python's own.

    Of several processes all must stop after the same step. JAX notes the SIGTERM then, and lets them agree.
    """

    def __enter__(self):
        self.received, self._agreed = False, (0, False)
        self._alone = jax.process_count() == 1
        signals = (signal.SIGTERM, signal.SIGINT) if self._alone else (signal.SIGINT,)
        self._before = {s: signal.signal(s, self._note) for s in signals}
        return self

    def stops_at(self, step: int) -> bool:
        """Whether `step` is to be the last; asked of every step, from all processes."""
        if self._alone:
            return self.received
        if self._agreed[0] != step:
            self._agreed = step, multihost_utils.reached_preemption_sync_point(step)
        return self._agreed[1]

    def _note(self, number, frame):
        self.received = True
        signal.signal(signal.SIGINT, self._before[signal.SIGINT])
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)
