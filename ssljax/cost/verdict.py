"""One sentence: whether a step fits, and if not what to change."""

from dataclasses import dataclass

from ssljax.cost.memory import Memory
from ssljax.cost.units import readable

WORTH = 0.05
"""A change that would save less than this part of what is needed is not worth naming."""


@dataclass(frozen=True)
class Setting:
    """What of a config decides about memory; None where its encoder or the config has no such field."""

    devices: int
    fsdp: int
    batch: int
    microbatch: int | None
    remat: str | None
    dtype: str


def verdict(memory: Memory, state: float, setting: Setting, unit: str) -> str:
    """state: bytes of the train state on one device, a part of the arguments. unit: what a device is called."""
    n = setting.devices
    needed, each = readable(memory.peak, "B", 1024), f"each of {n} {unit}s" if n > 1 else f"the {unit}"
    if memory.limit is None:
        return f"{each} needs {needed}; how much there is cannot be found out here."
    of = f"{needed} of {readable(memory.limit, 'B', 1024)}"
    if memory.fits:
        share = memory.peak / memory.limit
        return f"fits: {of} ({f'{100 * share:.0f} %' if share > 0.01 else 'less than 1 %'}) on {each}."
    ways = remedies(memory, state, setting)
    units = "devices" if unit == "device" else "chips"
    more = f"more {units}" if ways else f"more {units}, or some with more memory"
    if setting.batch <= n and state <= memory.peak - state:  # more of them would have no example to work on
        more = f"{units} with more memory"
    told = f"{', '.join(ways)}, or take {more}" if ways else f"take {more}"
    most = "parameters and optimiser" if state > memory.peak - state else "temporaries"
    return f"does not fit: {each} needs {of}, most of it for {most}: {told}."


def remedies(memory: Memory, state: float, setting: Setting) -> list[str]:
    """What can still be changed in this config and would help, what touches the larger part of the bytes first.

    Numbers are the mildest that should suffice, if temporaries grow with the examples and the state shrinks with
    `fsdp`; else the strongest there are.
    """
    limit = memory.limit or 0.0
    rest = memory.peak - state
    saved_by_sharding = _shard(memory, state, setting, limit)
    temporaries = _shrink(memory, setting, limit) if rest > WORTH * memory.peak else []
    return [*saved_by_sharding, *temporaries] if state > rest else [*temporaries, *saved_by_sharding]


def _shard(memory: Memory, state: float, s: Setting, limit: float) -> list[str]:
    wider = [f for f in range(s.fsdp + 1, s.devices + 1) if s.devices % f == 0 and f & (f - 1) == 0]
    wider = wider or ([s.devices] if s.fsdp < s.devices else [])

    def needed(fsdp: int) -> float:
        return memory.peak - state + state * s.fsdp / fsdp

    if not wider or memory.peak - needed(wider[-1]) < WORTH * memory.peak:
        return []
    fsdp = next((f for f in wider if needed(f) <= limit), wider[-1])
    return [f"shard parameters with --mesh={s.devices // fsdp},{fsdp}"]


def _shrink(memory: Memory, s: Setting, limit: float) -> list[str]:
    def fitting(sizes: list[int], now: int) -> int:
        """The largest that should fit, else the smallest."""
        return next((x for x in sizes if memory.arguments + memory.temporaries * x / now <= limit), sizes[-1])

    ways = []
    if s.remat == "":
        ways.append("compute attention, norms and activations again with --config.encoder.remat=products")
    elif s.remat == "products":
        ways.append("keep only the blocks' inputs with --config.encoder.remat=blocks")
    if s.microbatch is not None:
        now = s.microbatch or s.batch
        parts = [m for m in range(now - 1, 0, -1) if s.batch % m == 0 and m % s.devices == 0]
        if parts:
            ways.append(f"go through the batch in parts with --config.train.microbatch={fitting(parts, now)}")
    if s.dtype == "float32":
        ways.append("compute in --config.dtype=bfloat16")
    halves = [s.batch >> k for k in range(1, s.batch.bit_length()) if s.batch % (s.devices << k) == 0]
    if halves:
        ways.append(f"cut the batch to --config.batch_size={fitting(halves, s.batch)}")
    return ways
