"""Memory that one device needs for a step, as the compiler laid it out or as it refused to."""

import re
from dataclasses import dataclass
from typing import Any

UNITS = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
SIZE = r"([\d.]+)([BKMGT]?)"
REFUSALS = (
    # "the total memory required for HLO temporaries (30.18G) exceeds available HBM (15.75G)": before scheduling. The
    # arguments are in it, whatever it says: a sum over an array of 20 GiB is refused with 20.00G.
    re.compile(rf"HLO temporaries \({SIZE}\) exceeds available HBM \({SIZE}\)"),
    # "Ran out of memory in memory space hbm. Used 17.31G of 15.75G hbm.": after it.
    re.compile(rf"Used {SIZE} of {SIZE} hbm"),
)


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    arguments: the state (which the step overwrites in place) and the batch. temporaries: intermediate arrays.
    peak: the most that is alive at once, the program itself included where the compiler counts it. limit: what there is
    for it, None where nobody knows. compiled: False where the compiler refused, and all numbers but `arguments` are
    what it said.
    """

    arguments: float
    temporaries: float
    peak: float
    limit: float | None
    compiled: bool = True

    @property
    def program(self) -> float:
        """What the peak holds besides: the compiled program, and what alignment costs."""
        return max(0.0, self.peak - self.arguments - self.temporaries)

    @property
    def fits(self) -> bool:
        return self.compiled and (self.limit is None or self.peak <= self.limit)


def memory_of(compiled: Any, limit: float | None) -> Memory:
    """Of a compiled program. Outputs that lie in donated arguments are counted once, the others as temporaries."""
    m = compiled.memory_analysis()
    arguments = m.argument_size_in_bytes
    temporaries = m.temp_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
    # Buffers that are alive at different times share memory, so that the peak may be less than the sum; the CPU's
    # compiler leaves temporaries out of it.
    peak = m.peak_memory_in_bytes
    return Memory(arguments, temporaries, peak if peak >= temporaries else arguments + temporaries, limit)


def memory_of_refusal(message: str, arguments: float) -> Memory | None:
    """Of the error that the compiler raised, if it says how much memory it needed and had; else None.

    arguments: bytes of state and batch on one device.
    """
    found = next(filter(None, (refusal.search(message) for refusal in REFUSALS)), None)
    if found is None:
        return None
    needed, limit = (float(found[i]) * UNITS[found[i + 1]] for i in (1, 3))
    return Memory(arguments, max(0.0, needed - arguments), needed, limit, compiled=False)
