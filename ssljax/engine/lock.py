"""One run at a time in a workdir."""

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def hold(workdir: Path) -> Iterator[None]:
    """Hold `workdir`/.lock while inside; made if need be. The system lets go of it however the process ends.

    Raises ValueError if another run holds it, or if the folder cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / ".lock").open("a+")
    except OSError as error:
        raise ValueError(f"{workdir} cannot be written ({error.strerror}); choose another --workdir.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ValueError(
                f"{workdir} is in use by a run that is going on ({holder}); wait for its end, stop it, or choose "
                "another --workdir."
            ) from None
        except OSError as error:  # some network file systems have no locks
            log.warning("%s cannot be locked (%s): see to it that one run uses it at a time", workdir, error.strerror)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
