"""What a step costs, and how it is told."""

from dataclasses import dataclass

from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssljax.cost.flops import Work
from ssljax.cost.memory import Memory
from ssljax.cost.roofline import Roofline
from ssljax.cost.topologies import Slice
from ssljax.cost.traffic import Traffic
from ssljax.cost.units import readable


@dataclass(frozen=True)
class Cost:
    """Of one step on one device of `mesh`; work is that of all devices. traffic: None where nothing was compiled.

    work: what runs. model: the same without what is computed again to save memory. state: bytes of the train state.
    """

    mesh: Mesh
    memory: Memory
    work: Work
    model: Work
    state: float
    traffic: Traffic | None
    compile_seconds: float
    parameters: int
    roof: Roofline | None

    @property
    def sent(self) -> float:
        return self.traffic.total if self.traffic else 0.0


def report(config: ConfigDict, cost: Cost, where: Slice) -> list[str]:
    """The bill of one device, as aligned lines."""
    n, m = cost.mesh.devices.size, cost.memory
    limit = "" if m.limit is None else f"of {_size(m.limit)} that a step may use"
    refused = "" if m.compiled else " (as the compiler says, which refused)"
    own = f"{_flop(cost.model.flops / n)} are the model's, the rest is computed again"
    lines = [
        f"{config.method.name}: {config.encoder.name} and heads, {cost.parameters / 1e6:.2f} M parameters, "
        f"{config.dtype}; batches of {config.batch_size}",
        f"{where}{f' ({where.name})' if where.name else ''}, mesh data={cost.mesh.shape['data']} "
        f"fsdp={cost.mesh.shape['fsdp']}; all that follows is of one {where.unit} and one step",
        "",
        *_row("memory", "arguments", _size(m.arguments), f"state {_size(cost.state)}, the rest is the batch"),
        *_row("", "temporaries", _size(m.temporaries), ""),
        *(_row("", "program", _size(m.program), "and what alignment costs") if m.program else ()),
        *_row("", "peak", _size(m.peak), limit + refused),
        *_row("computed", "products", _flop(cost.work.flops / n), own if cost.work != cost.model else ""),
    ]
    if cost.traffic is None:
        lines += _row("sent", "", "unknown", "there is no program to read it from, and no roofline")
    else:
        kinds = [(kind, sent) for kind, sent in cost.traffic.sent.items() if sent]
        for i, (kind, sent) in enumerate(kinds or [("nothing", 0.0)]):
            lines += _row("" if i else "sent", kind, _size(sent), "")
        if len(kinds) > 1:
            lines += _row("", "total", _size(cost.sent), "")
    if where.chip is None:
        lines += _row("roofline", "", "none", f"unknown chip '{where.devices[0].device_kind}'")
    elif r := cost.roof:
        parts = f"compute {_ms(r.compute)}, memory {_ms(r.memory)}, network {_ms(r.network)}"
        lines += _row("roofline", "step", _ms(r.seconds), parts)
        lines += _row("", "MFU", f"{r.mfu:.1%}", "of the bfloat16 peak at most: if the step were as fast as that")
    lines += _row("compiled", "in", f"{cost.compile_seconds:.1f} s", "")
    notes = ["products: operations of matrix products and convolutions, counted in the program before it is compiled"]
    notes += ["memory time: each of their operands and results moves once, the state is read once and written once"]
    loops = cost.work.unknown_loops + (cost.traffic.unknown_loops if cost.traffic else 0)
    notes += [f"{loops} loops of unknown length are counted once"] if loops else []
    return [*lines, "", *notes]


def _row(section: str, name: str, value: str, comment: str) -> list[str]:
    return [f"{section:10}{name:20}{value:>12}   {comment}".rstrip()]


def _size(size: float) -> str:
    return readable(size, "B", 1024)


def _flop(flops: float) -> str:
    return readable(flops, "FLOP")


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.4g} ms"
