"""What the numbers of a config must be, so that one out of range is named before anything is built from it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Range = tuple[str, Callable[[Any], bool], str]
"""What it must be, whether it is, and the fields of which that holds, with spaces between."""


def check_ranges(section: str, fields: Mapping[str, Any], ranges: Sequence[Range]) -> None:
    """Raises ValueError for the first of a section's fields that is out of its range; None fits everywhere."""
    for what, fits, names in ranges:
        for name in names.split():
            if fields.get(name) is not None and not fits(fields[name]):
                raise ValueError(f"--config.{section}.{name}={fields[name]} must be {what}.")
