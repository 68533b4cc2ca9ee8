"""The methods by the names that configs use. A new one is a file, a config, and a line here."""

from typing import Any

from ssljax.methods.images.mae import MAE
from ssljax.methods.images.moco_v2 import MoCoV2
from ssljax.methods.images.simclr import SimCLR
from ssljax.typing import Method

METHODS: dict[str, Any] = {
    "simclr": SimCLR,
    "moco_v2": MoCoV2,
    "mae": MAE,
}


def make_method(name: str, **fields) -> Method:
    """The method `name` with its modules and hyper-parameters. Raises ValueError that lists what there is."""
    if name not in METHODS:
        raise ValueError(f"method '{name}' is unknown; use one of {', '.join(METHODS)}.")
    known = METHODS[name].__dataclass_fields__
    if "total_steps" not in known:  # most methods do not ask how long the run is
        fields.pop("total_steps", None)
    for field in fields:
        if field not in known:
            raise ValueError(f"method '{name}' has no field '{field}'; it has {', '.join(known)}.")
    return METHODS[name](**fields)
