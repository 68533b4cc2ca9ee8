"""Optimisers and learning rates, in the conventions of the papers."""

import re
from typing import Any

import jax
import numpy as np
import optax

from ssljax.schedules import warmup_cosine
from ssljax.typing import PyTree

SCALING = {
    "linear": lambda rate, batch: rate * batch / 256,
    "sqrt": lambda rate, batch: rate * batch**0.5,
    "none": lambda rate, batch: rate,
}


def make_schedule(
    *,
    base: float,
    scaling: str,
    batch_size: int,
    total: int,
    warmup: int = 0,
    final: float = 0.0,
    kind: str = "cosine",
    steps_per_epoch: int = 0,
) -> optax.Schedule:
    """Learning rate as a function of the step.

    scaling: "linear" (base · batch / 256), "sqrt" (base · √batch; SimCLR's 0.075 √batch) or "none".
    kind: "cosine" (linear warm-up from 0, then half a cosine to final · peak at `total`), or "constant" after warm-up.
    steps_per_epoch: if not 0, the rate changes once an epoch (MoCo v2, SimSiam).

    Raises ValueError for an unknown scaling or kind.
    """
    if scaling not in SCALING:
        raise ValueError(f"learning-rate scaling '{scaling}' is unknown; use one of {', '.join(SCALING)}.")
    if kind not in ("cosine", "constant"):
        raise ValueError(f"learning-rate schedule '{kind}' is unknown; use 'cosine' or 'constant'.")
    peak = SCALING[scaling](base, batch_size)
    end = peak if kind == "constant" else peak * final

    def schedule(step):
        step = step // steps_per_epoch * steps_per_epoch if steps_per_epoch else step
        return warmup_cosine(step, peak=peak, total=total, warmup=warmup, final=end)

    return schedule


def make_optimizer(
    name: str,
    schedule: optax.Schedule,
    *,
    momentum: float = 0.9,
    b2: float = 0.95,
    weight_decay: float = 0.0,
    exclude: tuple[str, ...] = ("bias", "scale", "layer_scale1", "layer_scale2"),
    trust: float = 0.001,
    layer_decay: float = 1.0,
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """An optimiser by name.

    sgd: momentum, weight decay added to the gradient.
    adamw: momentum is β₁; decoupled weight decay.
    lars: g + wd·w, times trust·|w| / |g + wd·w|, then momentum, then the learning rate (BYOL, MoCo v3, Barlow Twins).
    lars_simclr: the same, but the learning rate enters before the momentum, which differs whenever the rate changes
      (SimCLR's code, and `optax.lars`).

    exclude: parameters with one of these names, the last part of their path, have neither weight decay nor LARS
    adaptation ("prefix" would be class token and registers); `()` decays everything, as MoCo and SimSiam do.
    layer_decay: updates of the encoder's layer l of L are multiplied by layer_decay^(L + 1 - l); 1 is off.
    clip_norm: clip the gradient's global norm first; 0 is off.

    Raises ValueError for an unknown name.
    """

    def included(params: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(lambda path, _: _names(path)[-1] not in exclude, params)

    decay = optax.add_decayed_weights(weight_decay, included)
    adapt = optax.masked(optax.scale_by_trust_ratio(trust_coefficient=trust), included)
    rate = optax.scale_by_learning_rate(schedule)
    parts: dict[str, tuple[optax.GradientTransformation, ...]] = {
        "sgd": (decay, optax.trace(momentum), rate),
        "adamw": (optax.scale_by_adam(b1=momentum, b2=b2), decay, rate),
        "lars": (decay, adapt, optax.trace(momentum), rate),
        "lars_simclr": (decay, adapt, rate, optax.trace(momentum)),
    }
    if name not in parts:
        raise ValueError(f"optimiser '{name}' is unknown; use one of {', '.join(parts)}.")
    before = (optax.clip_by_global_norm(clip_norm),) if clip_norm else ()
    after = (scale_by_layer(layer_decay),) if layer_decay != 1.0 else ()
    return optax.chain(*before, *parts[name], *after)


def scale_by_layer(decay: float) -> optax.GradientTransformation:
    """Multiply each update by decay^(layers above it): the nearer to the input, the slower (BEiT; MAE's fine-tuning).

    Layers are numbered from the encoder's stem or patch embedding (0) through its stages or blocks to whatever comes
    after them, whose updates are left alone.
    """

    def scaled(updates: PyTree, _: PyTree) -> PyTree:
        layers = jax.tree_util.tree_map_with_path(
            lambda path, x: _layer(_names(path), x.ndim, len(x) if x.ndim else 0), updates
        )
        top = 1 + max(int(np.max(layer)) for layer in jax.tree.leaves(layers))
        return jax.tree.map(lambda x, layer: x * decay ** (top - np.where(layer < 0, top, layer)), updates, layers)

    return optax.stateless(scaled)


def _layer(names: list[str], ndim: int, length: int) -> np.ndarray:
    """Number of the encoder's layer that a parameter is in, -1 for above them all; an array if layers are stacked."""
    if names[0] != "encoder":
        return np.array(-1)
    if names[1].startswith(("stem", "patch_embed", "prefix", "positions")):
        return np.array(0)
    if "blocks" in names:  # scanned: the leading axis counts the layers
        return 1 + np.arange(length).reshape(-1, *(1,) * (ndim - 1))
    for part in names[1:]:
        if found := re.match(r"stage(\d+)|block(\d+)", part):
            return np.array(int(found[1]) if found[1] else int(found[2]) + 1)
    return np.array(-1)


def _names(path: tuple[Any, ...]) -> list[str]:
    return [str(getattr(entry, "key", entry)) for entry in path]
