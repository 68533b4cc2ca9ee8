"""Numbers that change over a run, as functions of the step; all of them work on traced steps."""

import jax.numpy as jnp

from ssljax.typing import Array


def warmup_cosine(
    step, *, peak: float, total: int, warmup: int = 0, final: float = 0.0, start: float = 0.0, shape: str = "cosine"
) -> Array:
    """Linear from `start` to `peak` over `warmup` steps, then half a cosine down to `final` at `total`; with shape
    "linear" a straight line down (wav2vec 2.0).

    The convention of SimCLR, BYOL and MAE: step 0 has the rate `start`, step `warmup` has the peak, which DINO's code
    reaches a step earlier.
    """
    step = jnp.asarray(step, jnp.float32)
    progress = jnp.clip((step - warmup) / max(total - warmup, 1), 0.0, 1.0)
    left = 1.0 - progress if shape == "linear" else 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    return jnp.where(step < warmup, start + (peak - start) * step / max(warmup, 1), final + (peak - final) * left)


def warmup_linear(step, *, peak: float, total: int, warmup: int = 0, final: float = 0.0, start: float = 0.0) -> Array:
    """As `warmup_cosine`, but down to `final` in a line (BERT)."""
    step = jnp.asarray(step, jnp.float32)
    progress = jnp.clip((step - warmup) / max(total - warmup, 1), 0.0, 1.0)
    return jnp.where(step < warmup, start + (peak - start) * step / max(warmup, 1), peak + (final - peak) * progress)


def ema_decay(step, total: int, *, start: float, end: float = 1.0, kind: str = "constant") -> Array:
    """Decay of an exponential moving average at `step` of `total`, the number of steps of the run.

    `constant`: start (MoCo); `cosine`: end - (end - start) (1 + cos(pi step / total)) / 2 (BYOL, DINO);
    `linear`: start + (end - start) step / total (I-JEPA).

    Raises ValueError for another kind, and for one that changes if `total` is none.
    """
    if kind != "constant" and total < 1:
        raise ValueError(f"the momentum goes to {end:g} by the end of the run: give the method its total_steps.")
    progress = jnp.clip(jnp.asarray(step, jnp.float32) / max(total, 1), 0.0, 1.0)
    match kind:
        case "constant":
            return jnp.float32(start)
        case "cosine":
            return end - (end - start) * (1.0 + jnp.cos(jnp.pi * progress)) / 2.0
        case "linear":
            return start + (end - start) * progress
    raise ValueError(f"EMA schedule '{kind}' is unknown; use one of constant, cosine, linear.")
