"""Processes that notice at once when another is gone.

JAX notices a silence after half a minute, and then aborts with a stack trace. Here every process keeps a connection to
process 0, which the system closes however a process ends; what is left says one sentence and ends as well.
"""

import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

GRACE_SECONDS = 5.0
"""Where all processes end for the same reason, each has this long to say it itself."""
FAREWELL = b"."


def watch_others(leave: Callable[[str], None]) -> Callable[[], None]:
    """Call `leave(sentence)`, in a thread, when another process ends without a farewell; returns the farewell.

    Where process 0 cannot be reached by a connection of our own, JAX's heartbeat alone watches.
    """
    this, others = jax.process_index(), jax.process_count() - 1
    server = socket.create_server(("", 0)) if this == 0 else None
    port = server.getsockname()[1] if server else 0
    # Integers are what processes can tell each other before anything else is there.
    meeting = np.array([*map(int, _address().split(".")), port, secrets.randbits(31)], np.int64)
    *address, port, token = (int(x) for x in multihost_utils.broadcast_one_to_all(meeting.astype(np.int32)))
    parting = threading.Event()

    def lost(who: str) -> None:
        # JAX aborts all others, with a stack trace, as soon as process 0 is gone: so they go before it does, and at
        # once if it has gone.
        if who != "process 0":
            time.sleep(GRACE_SECONDS + (this == 0))
        if not parting.is_set():
            leave(
                f"process {this} stops, for {who} is gone; run the same command again on all hosts: it goes on from "
                "the last complete checkpoint."
            )

    def listen(connection: socket.socket, who: str) -> None:
        try:
            said = connection.recv(64)
        except OSError:
            said = b""
        if not said.startswith(FAREWELL):
            gone = said.decode() or who
            for other in connections:
                _send(other, gone.encode())
            lost(gone)

    connections: list[socket.socket] = []
    if server:
        names = []
        until = time.monotonic() + GRACE_SECONDS
        while len(connections) < others and (left := until - time.monotonic()) > 0:
            server.settimeout(left)
            try:
                connection, _ = server.accept()
                connection.settimeout(1.0)
                told, _, index = connection.recv(64).partition(b" ")
            except OSError:  # a stranger who says nothing, or nobody: what is behind a wall, the heartbeat watches
                continue
            if told == str(token).encode() and index.isdigit():
                connections.append(connection)
                names.append(f"process {int(index)}")
    else:
        names = ["process 0"]
        try:
            connection = socket.create_connection((".".join(map(str, address)), port), timeout=GRACE_SECONDS)
            connection.sendall(f"{token} {this}".encode())
            connections.append(connection)
        except OSError:
            pass
    for connection, name in zip(connections, names, strict=False):
        _keep_alive(connection)
        threading.Thread(target=listen, args=(connection, name), daemon=True).start()

    def farewell() -> None:
        parting.set()
        for connection in connections:
            _send(connection, FAREWELL)

    return farewell


def leave_at_once(sentence: str, code: int) -> None:
    """End this process without waiting for the others, which wait for it."""
    say_error(sentence)
    sys.stdout.flush()
    os._exit(code)


def say_error(sentence: str) -> None:
    """In one piece, so that the lines of several processes do not run into each other."""
    sys.stderr.write(f"error: {sentence}\n")
    sys.stderr.flush()


def _address() -> str:
    """This host's address as others see it: the one that packets to the outside would come from. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
        try:
            outside.connect(("192.0.2.1", 9))
            return outside.getsockname()[0]
        except OSError:
            return "127.0.0.1"


def _keep_alive(connection: socket.socket) -> None:
    """A host that lost its power closes nothing: after 25 seconds without an answer the system does."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # Linux
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _send(connection: socket.socket, text: bytes) -> None:
    try:
        connection.sendall(text)
    except OSError:
        pass
