"""What the commands share: flags, and errors that end in one sentence."""

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator

import jax
from absl import app, flags

from ssljax.engine.checkpoint import CheckpointError
from ssljax.engine.trainer import TrainingStopped


def launch(main: Callable[[], int | None]) -> None:
    """Parse the flags and run `main`; whatever a user can cause ends in one sentence and an exit code that is not 0.

    With SSLJAX_TRACEBACK=1 the traceback comes as well.
    """
    # Several steps in flight on virtual devices that share a few cores can starve each other in a collective.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    with one_sentence():
        app.run(lambda _: main(), flags_parser=_parse)


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    try:
        yield
    except (ValueError, CheckpointError, TrainingStopped, OSError) as error:
        if os.environ.get("SSLJAX_TRACEBACK"):
            raise
        text = str(error)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            text = (
                f"the disk is full ({error.filename or 'while writing'}); make room, then run the same command "
                "again: it goes on from the last complete checkpoint."
            )
        sys.exit(f"error: {text}")


def _parse(arguments: list[str]) -> list[str]:
    """Flags as absl parses them, but with errors of configs in one sentence too."""
    try:
        left = flags.FLAGS(arguments)
    except flags.Error as error:
        raise ValueError(f"{error}") from error
    except (
        AttributeError,
        KeyError,
        TypeError,
    ) as error:  # ml_collections: a field that is not there, or of another type
        raise ValueError(
            f"the config cannot be changed like that: {' '.join(str(error.args[0] if error.args else error).split())}"
        ) from error
    except FileNotFoundError as error:
        raise ValueError(
            f"there is no config file {error.filename}; the ones that come with ssljax are in configs/."
        ) from error
    if len(left) > 1:
        raise ValueError(f"'{left[1]}' is not a flag; write --config.field=value.")
    return left


def quiet_logs() -> None:
    """Our own warnings as lines; the libraries' only from warnings on."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr, force=True)
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)
