"""Numbers as people read them."""

GIB = 2**30


def readable(number: float, unit: str, base: int = 1000) -> str:
    """(2.5e9, "FLOP") -> "2.5 GFLOP"; with base 1024 "2.33 GiB"."""
    prefixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi"] if base == 1024 else ["", "K", "M", "G", "T", "P", "E"]
    power = 0
    while number >= base and power < len(prefixes) - 1:
        number, power = number / base, power + 1
    return f"{number:.4g} {prefixes[power]}{unit}"
