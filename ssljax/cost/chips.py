"""The chips that preflight knows, and the slices of them that can be rented.

Numbers are those of Google's pages "TPU v4", "TPU v5e", "TPU v5p", "TPU v6e" and "TPU7x (Ironwood)" below
https://docs.cloud.google.com/tpu/docs/, as they stood in 2026: peak compute (bf16), HBM capacity and bandwidth, and
"bidirectional inter-chip interconnect (ICI) bandwidth per chip", of which half goes out. The page of v4 names no ICI
bandwidth: its six links of 50 GB/s each way are those of Jouppi et al., "TPU v4: An Optically Reconfigurable
Supercomputer for Machine Learning", 2023.
"""

import re
from dataclasses import dataclass

from ssljax.cost.units import GIB

FLAT = "1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16"
CUBIC = "2x2x1, 2x2x2, 2x2x4, 2x4x4, 4x4x4, 4x4x8, 4x8x8, 8x8x8"


@dataclass(frozen=True)
class Chip:
    """flops: peak FLOP/s in bfloat16; on a TPU a float32 product runs as one bfloat16 pass unless asked otherwise, so
    it is the peak of both. hbm: bytes. bandwidth: of HBM, bytes/s. ici: bytes/s that all its links send together.
    devices: as how many JAX devices one chip shows. shapes: of slices; of the cubic ones there are larger ones too, up
    to `largest` chips.
    """

    name: str
    kind: str
    flops: float
    hbm: float
    bandwidth: float
    ici: float
    shapes: str
    largest: int
    devices: int = 1


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", "TPU v4", 275e12, 32 * GIB, 1200e9, 300e9, CUBIC, 4096),
        Chip("v5e", "TPU v5 lite", 197e12, 16 * GIB, 819e9, 200e9, FLAT, 256),
        Chip("v5p", "TPU v5", 459e12, 95 * GIB, 2765e9, 600e9, CUBIC, 6144),
        Chip("v6e", "TPU v6 lite", 918e12, 32 * GIB, 1638e9, 400e9, FLAT, 256),
        Chip("tpu7x", "TPU7x", 2307e12, 192 * GIB, 7380e9, 600e9, CUBIC, 9216, devices=2),
    )
}


def chip_of(kind: str) -> Chip | None:
    """The chip of a JAX device's `device_kind`; None where it is not in the table."""
    return next((chip for chip in CHIPS.values() if chip.kind == kind), None)


def parse_topology(name: str) -> tuple[Chip, tuple[int, ...]]:
    """`v5e:4x4` -> its chip and (4, 4). Raises ValueError that lists what there is."""
    kind, _, shape = name.partition(":")
    if kind not in CHIPS:
        known = ", ".join(f"{c.name}:{c.shapes.split(', ')[2]}" for c in CHIPS.values())
        raise ValueError(
            f"--topology={name} is unknown: write {known} and the like, cpu:8, or leave it out for the devices of this "
            "machine (its GPUs, for instance)."
        )
    chip = CHIPS[kind]
    sides = tuple(int(side) for side in shape.split("x")) if re.fullmatch(r"[1-9]\d*(x[1-9]\d*)+", shape) else ()
    chips = 1
    for side in sides:
        chips *= side
    # Of the cubic ones, sides are all of 1, 2 and 4, or all multiples of 4.
    regular = len(sides) == 3 and (all(s in (1, 2, 4) for s in sides) or not any(s % 4 for s in sides))
    if not (shape in chip.shapes.split(", ") or (chip.shapes == CUBIC and regular and chips <= chip.largest)):
        more = f" or larger with sides of multiples of 4, up to {chip.largest} chips" if chip.shapes == CUBIC else ""
        raise ValueError(f"--topology={name}: there is no such slice of {kind}; there is {chip.shapes}{more}.")
    return chip, sides
