"""Self-supervised pretraining in JAX and Flax: every method a pure function, one train step for all of them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssljax.encoder import load

__all__ = ["load"]
__version__ = "0.1.0"


def __getattr__(name: str):
    """`ssljax.load`, imported when it is asked for: a notebook that wants one loss shall not wait for the rest."""
    if name == "load":
        from ssljax.encoder import load

        return load
    raise AttributeError(f"module 'ssljax' has no attribute '{name}'")
