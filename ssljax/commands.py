"""What the commands share: flags, and errors that end in one sentence."""

import contextlib
import ctypes
import errno
import logging
import os
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from absl import app, flags
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from ssljax.engine.checkpoint import CheckpointError, NotInTime
from ssljax.engine.processes import ProcessLost, join, lost_process
from ssljax.engine.trainer import TrainingStopped
from ssljax.engine.watch import leave_at_once, say_error, watch_others
from ssljax.wording import nearest

AGAIN = 75
"""Exit code of what only has to be started again, by a launcher or by hand: EX_TEMPFAIL."""
CACHE_BYTES = 4 << 30
MALLOPT = {-1: -1, -4: 0}
"""By the numbers in malloc.h: M_TRIM_THRESHOLD, how many free bytes are kept, which is all; M_MMAP_MAX, how many
allocations have pages of their own, which is none."""
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


def launch(main: Callable[[], int | None], *, alone: bool = False) -> None:
    """Parse the flags and run `main`, as one of several processes if there are any (`ssljax.engine.processes.join`).

    alone: not so; the command is for one process.

    Whatever a user can cause ends in one sentence and an exit code that is not 0: 1 if something has to be changed,
    AGAIN if the same command goes on. With SSLJAX_TRACEBACK=1 the traceback comes as well.
    """
    coordinator = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where JAX cannot find out itself.")
    processes = flags.DEFINE_integer("processes", None, "How many processes run this command.")
    process = flags.DEFINE_integer("process", None, "Which of them this is, from 0.")
    # Several steps in flight on virtual devices that share a few cores can starve each other in a collective.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    keep_compilations()
    keep_memory()

    def joined() -> int | None:
        quiet_logs()
        if alone or not join(coordinator.value, processes.value, process.value):
            return main()
        farewell = watch_others(lambda sentence: leave_at_once(sentence, AGAIN))
        code = main()
        farewell()
        return code

    with one_sentence():
        app.run(lambda _: joined(), flags_parser=_parse)


def local_path(workdir: str) -> Path:
    """A run's folder as a path. Raises ValueError for a bucket's address."""
    if "://" in workdir:
        raise ValueError(
            f"'{workdir}' must be a folder that every host sees, not an address: mount the bucket "
            "(launch/README.md says how), and give the folder."
        )
    return Path(workdir)


def keep_compilations() -> None:
    """What was compiled once is read back, by the next run too; JAX_COMPILATION_CACHE_DIR says where it is kept."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "ssljax"))
        jax.config.update("jax_compilation_cache_max_size", CACHE_BYTES)


def keep_memory() -> None:
    """The process keeps what is freed, as far as glibc can be told to.

    XLA allocates all that a step on a CPU holds besides its state at once, and frees it at the end; the system takes it
    back, and gives it anew page by page, which takes time (tests/test_commands.py counts the pages).
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in MALLOPT.items():
            mallopt(option, value)


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    try:
        yield
    except (ValueError, CheckpointError, TrainingStopped, ProcessLost, OSError, jax.errors.JaxRuntimeError) as error:
        text = _meaning(error)
        if text is None or os.environ.get("SSLJAX_TRACEBACK"):
            raise
        code = AGAIN if _is_lost(error) or isinstance(error, (ProcessLost, NotInTime)) else 1
        if jax.distributed.is_initialized() or isinstance(error, CheckpointError):
            leave_at_once(text, code)  # the others wait for this process, or it for what was to be saved
        say_error(text)
        sys.exit(code)


def _meaning(error: Exception) -> str | None:
    """The sentence for a user; None for an error of JAX's that no user can have caused."""
    if _is_lost(error):
        return str(lost_process(error))
    if isinstance(error, jax.errors.JaxRuntimeError):
        full = (
            "the memory of the device does not hold this run; `python -m ssljax.preflight` with the same --config "
            "says what it needs and what to change (the mesh, the batch, --config.train.microbatch)."
        )
        return full if OUT_OF_MEMORY in str(error) else None
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return (
            f"the disk is full ({error.filename or 'while writing'}); make room, then run the same command "
            "again: it goes on from the last complete checkpoint."
        )
    return str(error)


def _is_lost(error: Exception) -> bool:
    """Whether JAX's runtime fails because another process is gone."""
    ours = isinstance(error, jax.errors.JaxRuntimeError) and OUT_OF_MEMORY not in str(error)
    return ours and lost_process(error) is not None


def _parse(arguments: list[str]) -> list[str]:
    """Flags as absl parses them, but what is wrong with a config is said in one sentence, and before anything else."""
    _check_config(arguments)
    unset = [a for a in arguments if re.fullmatch(r"--config\.[\w.]+=None", a)]
    try:
        left = flags.FLAGS([a for a in arguments if a not in unset])
    except (flags.Error, TypeError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    if len(left) > 1:
        raise ValueError(f"'{left[1]}' is not a flag; write {_as_flag(left[1])}.")
    for argument in unset:  # ml_collections knows no None of a typed field: the encoder's or recipe's own number
        config = flags.FLAGS.config
        with config.ignore_type():
            config.update_from_flattened_dict({argument.removeprefix("--config.").removesuffix("=None"): None})
    return left


def _as_flag(argument: str) -> str:
    """How the command takes what was given without a flag."""
    known, (name, _, value) = flags.FLAGS, argument.partition("=")
    if value and (name in known or ("config" in known and name.startswith("config."))):
        return f"--{argument}"
    if "config" in known and argument.partition(":")[0].endswith(".py"):
        return f"--config={argument}"
    if "workdir" in known and not known["workdir"].present and not value:
        return f"--workdir={argument}"
    return "--config.field=value" if "config" in known else "--flag=value, with no blanks in the value"


def _check_config(arguments: list[str]) -> None:
    """Raise ValueError if the config file, its variant or a field that is overridden does not exist."""
    joined = re.search(r"(?:^|\n)--?config[=\n]([^\n]*)", "\n".join(arguments[1:]))
    if joined is None:
        return
    path, _, variant = joined[1].partition(":")
    if not Path(path).is_file():
        raise ValueError(f"there is no config file '{path}'; those that come with ssljax are in configs/.")
    try:
        contents = runpy.run_path(path)
    except Exception as error:  # it is a program of the user's: anything may be wrong with it
        raise ValueError(f"{path} cannot be run ({type(error).__name__}: {error}); mend the config file.") from error
    if "get_config" not in contents:
        raise ValueError(f"{path} is no config file: it has no function get_config(variant).")
    config = contents["get_config"](variant or None)
    for argument in arguments[1:]:
        if override := re.match(r"--(?:no)?config\.([\w.]+)", argument):
            section = config
            for name in override[1].split("."):
                if not isinstance(section, ConfigDict) or name not in section:
                    known = sorted(section) if isinstance(section, ConfigDict) else []
                    fields = flatten_dict(config.to_dict(), sep=".")
                    elsewhere = [f"config.{field}" for field in fields if field.rpartition(".")[2] == name]
                    meant = f"did you mean '{elsewhere[0]}'? " if elsewhere else nearest(name, known)
                    raise ValueError(f"there is no field 'config.{override[1]}'; {meant}there is {', '.join(known)}.")
                section = section[name]


def quiet_logs() -> None:
    """Warnings as lines. What Orbax's threads have to say of a failed save reaches the user as one sentence of ours."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr, force=True)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)
    sys.unraisablehook = _unraisable


def _unraisable(error: "sys.UnraisableHookArgs") -> None:
    """After a save that failed, TensorStore says hundreds of times that nobody waits for the rest of it any more."""
    if not (isinstance(error.exc_value, RuntimeError) and str(error.exc_value) == "Event loop is closed"):
        sys.__unraisablehook__(error)
