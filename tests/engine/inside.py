"""What tests of faults do inside of the processes that they start: the command, and what befalls it.

Patches go where `ssljax.train` imports from, for it is executed anew as the main program.
"""

import os
import random
import runpy
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ssljax.build
import ssljax.data.pipeline
import ssljax.evals.protocols
from ssljax.engine.checkpoint import Checkpoints
from ssljax.engine.logs import Logs

Befall = Callable[[], None]


def command(arguments: Sequence[str], output: Path, befall: Sequence[Befall]) -> None:
    """`python -m ssljax.train` with both of its outputs in one file."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    for prepare in befall:
        prepare()
    sys.argv = ["ssljax.train", *arguments]
    sys.modules.pop("ssljax.train", None)  # it was imported beforehand, for speed, and is now executed
    runpy.run_module("ssljax.train", run_name="__main__")


def at_step(step: int, action: Callable[[], Any]) -> None:
    """Do something when the metrics of a step have just been written."""
    write = Logs.write

    def writing(self, now, metrics):
        write(self, now, metrics)
        if now == step:
            action()

    Logs.write = writing


def signal_oneself(number: int) -> None:
    os.kill(os.getpid(), number)


def sigterm_during(what: str) -> None:
    """Each time that k-NN is measured ("evaluate"), or that something is fetched from the device ("device_get")."""
    module, name = (ssljax.evals.protocols, "knn") if what == "evaluate" else (jax, "device_get")
    function = getattr(module, name)
    setattr(module, name, lambda *a, **k: (signal.raise_signal(signal.SIGTERM), function(*a, **k))[1])


def say_the_disk_is_full(*, from_save: int) -> None:
    usage, looks = shutil.disk_usage, iter(range(1, 1000))
    shutil.disk_usage = lambda path: usage(path) if next(looks) < from_save else usage(path)._replace(free=1000)


def fill_disk(filler: Path, *, save: int, left: int, seen: bool) -> None:
    """From so many saves on, leave so many bytes on the disk: `seen` by the check beforehand, or only after it."""
    check, saves = Checkpoints._check_room, iter(range(1, 1000))

    def filling(self, needed):
        if not seen:
            check(self, needed)
        more = shutil.disk_usage(filler.parent).free - left
        if next(saves) >= save and more > 0:
            with filler.open("ab") as file:
                os.posix_fallocate(file.fileno(), file.tell(), more)
        if seen:
            check(self, needed)

    Checkpoints._check_room = filling


def wrong_clock(seed: int, host: str) -> None:
    """The clock is up to ten years off and jumps after every fifth step, and the host has another name."""
    rng, true_time, write = random.Random(seed), time.time, Logs.write
    off = [0]

    def jump():
        off[0] = 86400 * rng.randint(-3650, 3650)

    def writing(self, now, metrics):
        write(self, now, metrics)
        if now % 5 == 0:
            jump()

    jump()
    Logs.write = writing
    time.time = lambda: true_time() + off[0]
    time.time_ns = lambda: int(time.time() * 1e9)
    socket.gethostname = lambda: host


# A batch may carry poison: a number that is added to the loss, and one that is added to every gradient.


@jax.custom_vjp
def _poisoned(loss, params, poison):
    return loss + poison[0]


_poisoned.defvjp(
    lambda loss, params, poison: (loss + poison[0], (params, poison[1])),
    lambda kept, g: (g, jax.tree.map(lambda x: jnp.full_like(x, kept[1]), kept[0]), jnp.zeros(2)),
)


class _Poisonable:
    """A method whose loss and gradient take the poison of the batch."""

    def __init__(self, method):
        self._method = method

    def __getattr__(self, name):
        return getattr(self._method, name)

    def views(self, keys, batch):
        return self._method.views(keys, {"image": batch["image"]}), batch["poison"]

    def loss(self, params, state, views, key, axis):
        views, poison = views
        loss, aux = self._method.loss(params, state, views, key, axis)
        return _poisoned(loss, params, poison.mean(0)), aux


def poison(step: int, in_loss: float, in_gradient: float, evidence: Path) -> None:
    """Every batch carries poison, of zeros but for `step`; the images of that one are written to `evidence`."""
    build_method, example_batch = ssljax.build.build_method, ssljax.build.example_batch
    train_batch = ssljax.data.pipeline._train_batch

    def poisoned(source, batch_size, seed, rows, labels, index):
        batch = train_batch(source, batch_size, seed, rows, labels, index)
        dose = (in_loss, in_gradient) if index == step - 1 else (0, 0)
        if index == step - 1:
            np.save(evidence, batch["image"])
        return batch | {"poison": np.tile(np.array(dose, np.float32), (batch_size, 1))}

    def example(config, source):
        return example_batch(config, source) | {"poison": jax.ShapeDtypeStruct((2, 2), jnp.float32)}

    ssljax.build.build_method = lambda *a, **k: _Poisonable(build_method(*a, **k))
    ssljax.build.example_batch = example
    ssljax.data.pipeline._train_batch = poisoned
