"""How long a step takes at least: the longest of computing, reading and writing memory, and sending."""

from dataclasses import dataclass

from ssljax.cost.chips import Chip


@dataclass(frozen=True)
class Roofline:
    """Seconds, if each of the three ran at its peak and all beside each other: no step is faster.

    mfu: model FLOPs utilisation at that: the model's own operations (nothing that is computed twice to save memory)
    over what the chips could have done in that time (Chowdhery et al., "PaLM", 2022, appendix B).
    """

    compute: float
    memory: float
    network: float
    mfu: float

    @property
    def seconds(self) -> float:
        return max(self.compute, self.memory, self.network)

    @property
    def bound(self) -> str:
        return max(("compute", "memory", "network"), key=lambda part: getattr(self, part))


def roofline(chip: Chip, *, flops: float, model_flops: float, memory_bytes: float, sent_bytes: float) -> Roofline:
    """All of one device and one step. A chip that shows as two devices gives each half of all that it has."""
    share = 1 / chip.devices
    compute = flops / (chip.flops * share)
    memory = memory_bytes / (chip.bandwidth * share)
    network = sent_bytes / (chip.ici * share)
    return Roofline(compute, memory, network, model_flops / (chip.flops * share) / max(compute, memory, network))
