"""The fields of a config's sections, and what they must be: one out of range is named before anything is built."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_collections import ConfigDict

Range = tuple[str, Callable[[Any], bool], str]
"""What it must be, whether it is, and the fields of which that holds, with spaces between."""


def check_ranges(section: str, fields: Mapping[str, Any], ranges: Sequence[Range]) -> None:
    """Raises ValueError for the first of a section's fields that is out of its range; None fits everywhere."""
    for what, fits, names in ranges:
        for name in names.split():
            if fields.get(name) is not None and not fits(fields[name]):
                raise ValueError(f"--config.{section}.{name}={fields[name]} must be {what}.")


def set_fields(section: "ConfigDict") -> dict[str, Any]:
    """The fields of a section that have a value, lists as tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in section.to_dict().items() if v is not None}
