"""Optimisers and learning rates, in the conventions of the papers."""

import fnmatch
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ssljax.layers import layer_numbers, names_of
from ssljax.schedules import warmup_cosine, warmup_linear
from ssljax.typing import PyTree

SCALING = {
    "linear": lambda rate, batch: rate * batch / 256,
    "sqrt": lambda rate, batch: rate * batch**0.5,
    "none": lambda rate, batch: rate,
}

OPTIONAL = frozenset({"bias", "scale", "layer_scale1", "layer_scale2", "positions", "prefix"})
"""What configs exclude from weight decay wherever it is: not every encoder has it."""


def peak_rate(base: float, scaling: str, batch_size: int) -> float:
    """The learning rate for a batch. Raises ValueError for an unknown scaling."""
    if scaling not in SCALING:
        raise ValueError(f"learning-rate scaling '{scaling}' is unknown; use one of {', '.join(SCALING)}.")
    return SCALING[scaling](base, batch_size)


def make_schedule(
    *,
    base: float,
    scaling: str,
    batch_size: int,
    total: int,
    warmup: int = 0,
    start: float = 0.0,
    final: float = 0.0,
    kind: str = "cosine",
    milestones: tuple[int, ...] = (),
    steps_per_epoch: int = 0,
) -> optax.Schedule:
    """Learning rate as a function of the step.

    scaling: "linear" (base · batch / 256), "sqrt" (base · √batch; SimCLR's 0.075 √batch) or "none".
    kind: "cosine" (linear warm-up from start · peak, then half a cosine to final · peak at `total`), "constant" after
      warm-up, "linear" (from the peak down to final · peak), or "steps": a tenth of what it was from each of the
      `milestones` on, which mean nothing to the others.
    steps_per_epoch: if not 0, the rate changes once an epoch (MoCo v2, SimSiam).

    Raises ValueError for an unknown scaling or kind, and for steps without milestones.
    """
    if kind not in ("cosine", "linear", "constant", "steps"):
        raise ValueError(f"learning-rate schedule '{kind}' is unknown; use 'cosine', 'linear', 'constant' or 'steps'.")
    if kind == "steps" and not milestones:
        raise ValueError("learning-rate schedule 'steps' needs --config.optimizer.milestones, the epochs of its falls.")
    falling = milestones if kind == "steps" else ()
    peak = peak_rate(base, scaling, batch_size)
    end = peak * final if kind in ("cosine", "linear") else peak

    def schedule(step):
        step = step // steps_per_epoch * steps_per_epoch if steps_per_epoch else step
        falls = sum(jnp.asarray(step >= milestone, jnp.float32) for milestone in falling)
        shape = warmup_linear if kind == "linear" else warmup_cosine
        rate = shape(step, peak=peak, total=total, warmup=warmup, final=end, start=peak * start)
        return rate * 0.1**falls

    return schedule


def make_optimizer(
    name: str,
    schedule: optax.Schedule,
    *,
    total: int = 1,
    constant_rate: float = 0.0,
    freeze_steps: int = 0,
    rates: Mapping[str, float] | None = None,
    momentum: float = 0.9,
    b2: float = 0.95,
    weight_decay: float = 0.0,
    weight_decay_final: float = -1.0,
    exclude: tuple[str, ...] = ("bias", "scale", "layer_scale1", "layer_scale2"),
    trust: float = 0.001,
    layer_decay: float = 1.0,
    clip_norm: float = 0.0,
    clip_each: float = 0.0,
    clip_module: float = 0.0,
    freeze: tuple[str, ...] = (),
    constant: tuple[str, ...] = (),
) -> optax.GradientTransformation:
    """An optimiser by name.

    sgd: momentum, weight decay added to the gradient.
    adamw: momentum is β₁; decoupled weight decay.
    lars: g + wd·w, times trust·|w| / |g + wd·w|, then momentum, then the learning rate (BYOL, MoCo v3, Barlow Twins).
    lars_simclr: the same, but the learning rate enters before the momentum, which differs whenever the rate changes
      (SimCLR's code, and `optax.lars`).
    larc: g + wd·w, times trust·|w| / (|g| + wd·|w|), then as lars (SwAV).

    weight_decay_final: where a cosine takes the weight decay over `total` steps (DINO; not of larc, whose adaptation
    has it within); negative: it does not change.
    layer_decay: updates of the encoder's layer l of L are multiplied by layer_decay^(L + 1 - l); 1 is off.
    clip_norm: clip the gradient's global norm first; clip_each: the norm of each parameter's (DINO; `clip_each_norm`);
    clip_module: that of the encoder's and of each head's (DINOv2); 0 is off.

    The following choose parameters by names or patterns (`last_layer*`), any part of their path:

    exclude: these have neither weight decay nor LARS adaptation ("prefix" would be class token and registers); `()`
      decays everything, as MoCo and SimSiam do.
    freeze: these do not move in the first `freeze_steps` steps, or ever if there are none: no update, no weight decay,
      and their moments stay as they are (DINO's last layer, SwAV's prototypes, MoCo v3's patch projection).
    constant: these have `constant_rate` instead of the schedule (SimSiam's predictor).
    rates: factors on the learning rate (Barlow Twins' biases, DINOv2's patch projection).

    Raises ValueError for an unknown name, for larc with a weight_decay_final, and if `init` is given parameters among
    which a chosen name does not occur, unless it is one of `OPTIONAL` that is excluded.
    """

    def included(params: PyTree) -> PyTree:
        return jax.tree.map(lambda chosen: not chosen, _chosen(params, exclude, "exclude", OPTIONAL))

    if name == "larc" and weight_decay_final >= 0:
        raise ValueError("optimiser 'larc' has a constant weight decay: set --config.optimizer.weight_decay_final=-1.")
    decay = optax.add_decayed_weights(weight_decay, included)
    if weight_decay_final >= 0:
        changing = optax.inject_hyperparams(optax.add_decayed_weights, static_args="mask")
        decay = changing(
            lambda step: warmup_cosine(step, peak=weight_decay, total=total, final=weight_decay_final), included
        )
    adapt = optax.masked(_layer_by_layer(optax.scale_by_trust_ratio(trust_coefficient=trust)), included)
    rate = optax.scale_by_learning_rate(schedule)
    if constant:
        always = optax.scale_by_learning_rate(constant_rate)
        rate = optax.partition({False: rate, True: always}, lambda params: _chosen(params, constant, "constant"))
    larc = _layer_by_layer(scale_by_larc(trust, weight_decay))

    def held(moments: optax.GradientTransformation) -> optax.GradientTransformation:
        """These for all parameters, but for the frozen ones no update and no change of their state. Rates and weight
        decay, which follow the step, are not among them: they go on."""
        if not freeze:
            return moments
        still = optax.set_to_zero()
        if freeze_steps:
            still = optax.transforms.conditionally_mask(moments, lambda step: step >= freeze_steps)
        return optax.partition({False: moments, True: still}, lambda params: _chosen(params, freeze, "freeze"))

    trace = held(optax.trace(momentum))
    parts: dict[str, tuple[optax.GradientTransformation, ...]] = {
        "sgd": (decay, trace, rate),
        "adamw": (held(optax.scale_by_adam(b1=momentum, b2=b2)), decay, held(optax.identity()), rate),
        "lars": (decay, adapt, trace, rate),
        "lars_simclr": (decay, adapt, rate, trace),
        "larc": (optax.masked(larc, included), trace, rate),
    }
    if name not in parts:
        raise ValueError(f"optimiser '{name}' is unknown; use one of {', '.join(parts)}.")
    before = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    before += [_layer_by_layer(clip_each_norm(clip_each))] if clip_each else []
    before += [clip_module_norms(clip_module)] if clip_module else []
    after = [scale_by_layer(layer_decay)] if layer_decay != 1.0 else []
    after += [_scale_by_name(rates)] if rates else []
    return optax.chain(*before, *parts[name], *after)


def clip_each_norm(largest: float) -> optax.GradientTransformation:
    """Scale down each array whose norm is above `largest`, by itself: g · min(1, largest / (|g| + 1e-6)) (DINO).

    The kernels of query, key and value of an attention count as one array, as do their biases: they are one in the
    Vision Transformers that the bound is published for.
    """

    def clipped(updates: PyTree, _: PyTree) -> PyTree:
        arrays: dict[tuple[str, ...], list[jax.Array]] = {}
        for path, g in jax.tree_util.tree_leaves_with_path(updates):
            arrays.setdefault(_array(path), []).append(g)
        factors = {name: jnp.minimum(1.0, largest / (optax.tree.norm(parts) + 1e-6)) for name, parts in arrays.items()}
        return jax.tree_util.tree_map_with_path(lambda path, g: g * factors[_array(path)], updates)

    return optax.stateless(clipped)


def _array(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple("query, key, value" if name in ("query", "key", "value") else name for name in names_of(path))


def clip_module_norms(largest: float) -> optax.GradientTransformation:
    """As `clip_each_norm`, of all arrays of a module together: of the encoder, and of each head (DINOv2)."""

    def clipped(module: PyTree) -> PyTree:
        factor = jnp.minimum(1.0, largest / (optax.tree.norm(module) + 1e-6))
        return jax.tree.map(lambda g: g * factor, module)

    return optax.stateless(lambda updates, _: {name: clipped(module) for name, module in updates.items()})


def scale_by_larc(trust: float, weight_decay: float) -> optax.GradientTransformation:
    """(g + wd·w) · trust · |w| / (|g| + wd·|w| + 1e-8), and g where a norm is zero (You et al., 2017; apex)."""

    def scaled(g: jax.Array, w: jax.Array) -> jax.Array:
        of_g, of_w = optax.tree.norm(g), optax.tree.norm(w)
        factor = trust * of_w / (of_g + weight_decay * of_w + 1e-8)
        return jnp.where((of_g > 0) & (of_w > 0), (g + weight_decay * w) * factor, g)

    return optax.stateless(lambda updates, params: jax.tree.map(scaled, updates, params))


def _layer_by_layer(each: optax.GradientTransformation) -> optax.GradientTransformation:
    """What is done to each array by itself, and keeps no state: to each layer's, where `scan` has stacked them."""

    def apart(tree: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(lambda path, x: list(x) if "blocks" in names_of(path) else x, tree)

    def done(updates: PyTree, params: PyTree) -> PyTree:
        found, _ = each.update(apart(updates), optax.EmptyState(), apart(params))
        return jax.tree.map(lambda _, x: jnp.stack(x) if isinstance(x, list) else x, updates, found)

    return optax.stateless(done)


def _scale_by_name(rates: Mapping[str, float]) -> optax.GradientTransformation:
    def scaled(updates: PyTree, _: PyTree) -> PyTree:
        for name, factor in rates.items():
            chosen = _chosen(updates, (name,), "rates")
            updates = jax.tree.map(lambda x, c, factor=factor: x * factor if c else x, updates, chosen)
        return updates

    return optax.stateless(scaled)


def _chosen(tree: PyTree, names: tuple[str, ...], field: str, optional: frozenset[str] = frozenset()) -> PyTree:
    """True for what has one of the names, or what one of the patterns fits, in its path. Raises ValueError for a name
    that occurs nowhere and is not optional."""
    paths = [names_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    for name in set(names) - optional:
        if not any(fnmatch.filter(path, name) for path in paths):
            known = sorted({part for path in paths for part in path})
            raise ValueError(
                f"optimizer.{field}: no parameter has '{name}' in its path; there are {', '.join(known)}. Take it out "
                f"of --config.optimizer.{field}, or put another in."
            )

    def chosen(path: tuple[Any, ...], _: Any) -> bool:
        return any(fnmatch.filter(names_of(path), name) for name in names)

    return jax.tree_util.tree_map_with_path(chosen, tree)


def scale_by_layer(decay: float) -> optax.GradientTransformation:
    """Multiply each update by decay^(layers above it): the nearer to the input, the slower (BEiT; MAE's fine-tuning).

    Layers are those of `layer_numbers`; updates of what comes after them are left alone.
    """

    def scaled(updates: PyTree, _: PyTree) -> PyTree:
        layers, top = layer_numbers(updates)
        return jax.tree.map(lambda x, layer: x * decay ** (top - layer), updates, layers)

    return optax.stateless(scaled)
