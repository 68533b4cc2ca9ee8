"""Parts of sentences that several modules say."""

import difflib
from collections.abc import Iterable


def counted(number: int, things: str) -> str:
    """Such as "1 test image" or "2 test images"; things: in the plural."""
    one = number == 1 and not things.endswith("series")
    return f"{number} {things.removesuffix('s') if one else things}"


def nearest(name: str, known: Iterable[str]) -> str:
    """A question such as "did you mean 'knn'? ", of what is known the most like the name; "" where nothing is."""
    near = difflib.get_close_matches(name.lower(), known, n=1)
    return f"did you mean '{near[0]}'? " if near else ""
