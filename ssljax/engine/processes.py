"""Several processes that work as one: how they find each other, and how they agree."""

import os
from collections.abc import Callable
from glob import glob
from importlib.util import find_spec
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")

HEARTBEAT_SECONDS = 30
"""After so long a silence a process counts as lost, and the others stop."""


class ProcessLost(Exception):
    """Another process of the run is gone, or cannot go on; what was saved is there."""


def join(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> bool:
    """Make this process one of several, before anything else is asked of JAX; returns whether it is.

    coordinator: "host:port" of process 0, with the number of processes and this one's index. Without it, JAX finds all
    three on a Cloud TPU, under Slurm's `srun`, and under Open MPI.

    Raises ValueError if the three do not fit each other, ProcessLost if the others are not found in five minutes.
    """
    given = [x is not None for x in (coordinator, processes, process)]
    if any(given) and not all(given):
        raise ValueError("--coordinator=HOST:PORT, --processes=N and --process=I are needed together, or none of them.")
    if coordinator is not None and processes is not None and process is not None:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"--coordinator={coordinator} must be HOST:PORT, where process 0 runs.")
        if not 0 <= process < processes:
            raise ValueError(f"--process={process} must be one of 0 … {processes - 1}, for --processes={processes}.")
    elif not (_on_slurm() or _on_open_mpi() or _on_cloud_tpu()):
        return False
    try:
        jax.distributed.initialize(coordinator, processes, process, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except RuntimeError as error:
        raise ProcessLost(
            f"the {processes or ''} processes did not find each other at {coordinator or 'their coordinator'} "
            f"({_first_line(error)}): start the same command on every host, and let them reach that port."
        ) from error
    return jax.process_count() > 1


def on_first(action: Callable[[], T]) -> T | None:
    """Do something on process 0 alone; where it raises there, all processes stop.

    Raises what `action` raises on process 0, and ProcessLost on the others.
    """
    result, error = None, None
    if jax.process_index() == 0:
        try:
            result = action()
        except Exception as raised:  # whatever it is, the others are told before it goes its way
            error = raised
    if not agree(error is None) and error is None:
        raise ProcessLost("process 0 could not go on; its message says why.")
    if error is not None:
        raise error
    return result


def agree(here: bool) -> bool:
    """Whether something holds on every process."""
    return here if jax.process_count() == 1 else bool(np.all(multihost_utils.process_allgather(np.array(here))))


def lost_process(error: Exception) -> ProcessLost | None:
    """What an error of JAX's runtime means where several processes work together; None where there is one."""
    if jax.process_count() == 1:
        return None
    return ProcessLost(
        f"process {jax.process_index()} stops, for another of the {jax.process_count()} is gone "
        f"({_first_line(error)}); run the same command again on all hosts: it goes on from the last complete "
        "checkpoint."
    )


def _on_slurm() -> bool:
    """A step of `srun` with several tasks; a shell that Slurm only lent is none."""
    return "SLURM_STEP_NODELIST" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1


def _on_open_mpi() -> bool:
    return int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1")) > 1


def _on_cloud_tpu() -> bool:
    """libtpu alone says nothing: preflight installs it on laptops too."""
    asked = os.environ.get("JAX_PLATFORMS", "tpu").startswith("tpu")
    return asked and find_spec("libtpu") is not None and bool(glob("/dev/accel[0-9]*") or glob("/dev/vfio/[0-9]*"))


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
