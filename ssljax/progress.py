"""How far an evaluation is, on a terminal or in lines."""

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Say = Callable[[str], None]

TOLD = 30.0
"""Seconds after which there is another line of how far a part is, where there is no terminal."""


@contextmanager
def progress(total: int) -> Iterator[tuple[Say, Say]]:
    """A bar on a terminal, lines elsewhere, of the first process: gives what is called with what begins, and with how
    far it is, of which there is a line every TOLD seconds at most."""
    console, begun, said = Console(stderr=True), "", time.monotonic()
    columns = BarColumn(10), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    first = jax.process_index() == 0
    in_lines = first and not console.is_terminal
    number = itertools.count(1)
    with Progress(*columns, console=console, transient=True, disable=in_lines or not first) as bar:
        task = bar.add_task("", total=total, completed=-1)

        def line(text: str) -> None:
            nonlocal said
            said = time.monotonic()
            if in_lines:
                print(text, file=sys.stderr, flush=True)

        def begin(what: str) -> None:
            nonlocal begun
            begun = what
            bar.update(task, advance=1, description=what)
            line(f"evaluating {next(number)}/{total}: {what}")

        def tell(how_far: str) -> None:
            bar.update(task, description=f"{begun}, {how_far}")
            if time.monotonic() - said > TOLD:
                line(f"{begun}, {how_far}")

        yield begin, tell
