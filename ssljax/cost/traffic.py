"""Bytes that one device sends in a step, read from the program that the compiler made.

    sent = bytes_sent(compiled.as_text())

The text is XLA's HLO after all its passes: what is in it is what runs, whoever put it there.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

BITS = {"pred": 8, "token": 0, "opaque": 0}

ARRAY = re.compile(r"\b(pred|token|opaque|(?:bf|f|s|u|c)\d+\w*)\[([\d,]*)\]")
HEAD = re.compile(r"^(ENTRY )?%?([\w.~-]+) \(.*\{$")
NAME = re.compile(r"^\s+(?:ROOT )?%?([\w.~-]+) = ")
OPCODE = re.compile(r"\s*([a-z][\w-]*)\(")
CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|branch_computations|true_computation|false_computation)=(\{[^}]*\}|%?[\w.~-]+)"
)


@dataclass(frozen=True)
class Traffic:
    """sent: bytes that one device sends, by kind of collective. unknown_loops: loops of unknown length with
    collectives in them, which were counted once."""

    sent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    unknown_loops: int = 0

    @property
    def total(self) -> float:
        return sum(self.sent.values())

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic({k: self.sent[k] + other.sent[k] for k in KINDS}, self.unknown_loops + other.unknown_loops)

    def times(self, n: int) -> "Traffic":
        return Traffic({k: n * v for k, v in self.sent.items()}, self.unknown_loops)


@dataclass(frozen=True)
class Instruction:
    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str

    @property
    def called(self) -> dict[str, list[str]]:
        return {key: re.findall(r"[\w.~-]+", names) for key, names in CALLED.findall(self.attributes)}


@dataclass(frozen=True)
class Computation:
    name: str
    instructions: dict[str, Instruction]


def bytes_sent(hlo: str) -> Traffic:
    """By ring algorithms over the n devices of a group: all-reduce sends 2 (n - 1) / n of its operand, reduce-scatter
    and all-to-all (n - 1) / n of theirs, all-gather n - 1 times its operand, collective-permute all of it.

    A loop's body counts as often as the loop runs: XLA's `known_trip_count` where it is written, else the constant that
    the loop's condition compares with. A conditional counts as its dearest branch.
    """
    devices = max(
        int(n) for n in re.findall(r"(?:num_partitions|replica_count)=(\d+)", hlo.partition("\n")[0]) or ["1"]
    )
    computations, entry = _parse(hlo)
    known: dict[str, Traffic] = {}

    def of(name: str) -> Traffic:
        if name not in known:
            here = computations[name]
            known[name] = sum((one(here, i) for i in here.instructions.values()), Traffic())
        return known[name]

    def one(here: Computation, instruction: Instruction) -> Traffic:
        kind = instruction.opcode.removesuffix("-start")
        if kind in KINDS:
            return _of_collective(here, instruction, kind, devices)
        called = instruction.called
        if instruction.opcode == "while":
            inside = of(called["body"][0]) + of(called["condition"][0])
            trips = _trip_count(instruction, computations, called["condition"][0])
            if trips is None:
                return Traffic(inside.sent, inside.unknown_loops + 1) if inside.total else inside
            return inside.times(trips)
        if instruction.opcode == "conditional":
            branches = [of(name) for names in called.values() for name in names]
            return max(branches, key=lambda traffic: traffic.total)
        if kind in ("call", "fusion", "custom-call", "async"):
            return sum((of(name) for names in called.values() for name in names), Traffic())
        return Traffic()

    return of(entry)


def _of_collective(here: Computation, instruction: Instruction, kind: str, devices: int) -> Traffic:
    # The TPU compiler cuts a collective that overlaps with computation into a chain of fusions, each of which
    # repeats it: the one that starts it stands for all.
    if "chain_id=" in instruction.attributes and not any(
        "AsyncCollectiveStart" in other.attributes for other in here.instructions.values()
    ):
        return Traffic()
    # It also writes a reduce-scatter as an all-reduce in a fusion that keeps a slice.
    if kind == "all-reduce" and here.name.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"
    operand = sum(_bytes(here.instructions[name].shape) for name in instruction.operands)
    n = _group_size(instruction.attributes, devices)
    if kind == "collective-permute":
        pairs = re.findall(r"\{(\d+),(\d+)\}", instruction.attributes.partition("source_target_pairs=")[2])
        share = float(any(a != b for a, b in pairs))
    else:
        share = {"all-reduce": 2 * (n - 1) / n, "all-gather": n - 1.0}.get(kind, (n - 1) / n)
    return Traffic({**Traffic().sent, kind: share * operand})


def _group_size(attributes: str, devices: int) -> int:
    """Of `{{0,1},{2,3}}`, of `[2,4]<=[8]` (two groups of four), or of `{}`: all."""
    _, _, groups = attributes.partition("replica_groups=")
    if iota := re.match(r"\[(\d+),(\d+)\]", groups):
        return int(iota[2])
    if listed := re.match(r"\{\{([\d,]+)\}", groups):
        return len(listed[1].split(","))
    return devices


def _trip_count(loop: Instruction, computations: dict[str, Computation], condition: str) -> int | None:
    if written := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes):
        return int(written[1])
    constants = {value for value in _constants(computations, condition)}
    return constants.pop() if len(constants) == 1 else None


def _constants(computations: dict[str, Computation], name: str) -> Iterator[int]:
    for instruction in computations[name].instructions.values():
        if instruction.opcode == "constant" and re.match(r"[su]\d+\[\]", instruction.shape):
            yield int(instruction.operands[0])
        for names in instruction.called.values():
            for called in names:
                yield from _constants(computations, called)


def _bytes(shape: str) -> float:
    """Of an array's shape or a tuple's: `bf16[8,128]{1,0}` has 2048."""
    total = 0.0
    for kind, dimensions in ARRAY.findall(shape):
        bits = BITS[kind] if kind in BITS else int(re.findall(r"\d+", kind)[0])
        for d in filter(None, dimensions.split(",")):
            bits *= int(d)
        total += bits / 8
    return total


def _parse(hlo: str) -> tuple[dict[str, Computation], str]:
    """All computations by name, and the name of the one that runs first."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in hlo.splitlines():
        if head := HEAD.match(line):
            current = computations[head[2]] = Computation(head[2], {})
            entry = head[2] if head[1] else entry
        elif current is not None and (name := NAME.match(line)):
            instruction = _instruction(name[1], re.sub(r"/\*index=\d+\*/", "", line[name.end() :]))
            current.instructions[name[1]] = instruction
    return computations, entry


def _instruction(name: str, text: str) -> Instruction:
    """`text` is what comes after `%name = `: a shape (layouts have parentheses of their own), an opcode, operands."""
    end = _closing(text) if text.startswith("(") else text.index(" ")
    opcode = OPCODE.match(text, end)
    assert opcode is not None, f"not an instruction: {text}"
    start = opcode.end() - 1
    close = start + _closing(text[start:])
    inside = text[start + 1 : close - 1]
    operands = re.findall(r"%([\w.~-]+)", inside) or re.findall(r"[\w.~-]+", inside)
    return Instruction(name, text[:end], opcode[1], tuple(operands), text[close:])


def _closing(text: str) -> int:
    """Place after the parenthesis that closes the first one."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return place + 1
    raise ValueError(f"a parenthesis stays open in {text[:80]}")
