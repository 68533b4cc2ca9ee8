"""Training the encoder on, with a linear classifier on top of it."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssljax.evals.linear import FOLDS, over_draws
from ssljax.evals.scores import Score
from ssljax.layers import layer_numbers
from ssljax.typing import Array, Batch, PyTree, Variables

BATCH, EPOCHS, PATIENCE = 128, 200, 3
RATE = 1e-3
BETTER = 1e-3
"""Nats by which the held-out loss must fall: where classes are told apart well it falls for ever, to no end."""


@dataclass(frozen=True)
class Tuning:
    """What is done besides, or otherwise; by default nothing.

    rate: of Adam. epochs: if not 0, all of so many, the rate falling to 0 along half a cosine; if 0, at most 200, until
    three were no better, at one rate. warmup: epochs, or a part of one, in which the rate rises from 0. weight_decay:
    of matrices and kernels, decoupled (AdamW).
    frozen: if not 0, the encoder's stem or patch embedding and its first so many stages or blocks do not move.
    encoder_rate: a factor on the rate of the encoder's weights, of which layer_decay^(layers above) is another.
    mixup, cutmix: α of Beta(α, α), from which λ is drawn for each batch: images are λ x + (1 - λ) x' with the images x'
    of the batch in reverse, or have a rectangle of x' that is 1 - λ of the picture, and so are labels; 0 is off, and of
    both each is for half of the batches (Zhang et al., 2018; Yun et al., 2019). smoothing: s of labels
    (1 - s) · one-hot + s / classes.
    """

    rate: float = RATE
    epochs: int = 0
    warmup: float = 0.0
    weight_decay: float = 0.0
    frozen: int = 0
    encoder_rate: float = 1.0
    layer_decay: float = 1.0
    mixup: float = 0.0
    cutmix: float = 0.0
    smoothing: float = 0.0

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            must, holds = {
                "rate": ("above 0", value > 0),
                "layer_decay": ("above 0 and at most 1", 0 < value <= 1),
                "smoothing": ("0 or more and below 1", 0 <= value < 1),
            }.get(field.name, ("0 or more", value >= 0))
            if not (holds and math.isfinite(value)):
                raise ValueError(f"--tune={field.name}={value} must be {must}.")
        if self.epochs and self.warmup >= self.epochs:
            raise ValueError(f"--tune=epochs={self.epochs},warmup={self.warmup}: the rate must rise in fewer epochs.")

    @classmethod
    def of(cls, given: list[str]) -> "Tuning":
        """From such as ["frozen=2", "encoder_rate=0.1"]. Raises ValueError for what is not among its fields, for
        one that is given twice, and for values that cannot be."""
        kinds: dict[str, Any] = {field.name: type(field.default) for field in fields(cls)}
        found: dict[str, Any] = {}
        for item in map(str.strip, given):
            name, _, value = item.partition("=")
            if name not in kinds:
                raise ValueError(f"--tune={item} is not known: give some of {', '.join(f'{n}=…' for n in kinds)}.")
            if name in found:
                raise ValueError(f"--tune has {name} twice: give it once.")
            try:
                found[name] = kinds[name](value)
            except ValueError:
                number = {int: "a whole number", float: "a number"}[kinds[name]]
                raise ValueError(f"--tune={item}: {name} must be {number}.") from None
        return cls(**found)

    def __str__(self) -> str:
        """What differs from the default, such as "frozen = 2, layer_decay = 0.75"."""
        return ", ".join(
            f"{field.name} = {getattr(self, field.name):g}"
            for field in fields(self)
            if getattr(self, field.name) != field.default
        )

    @property
    def of_all(self) -> "Tuning":
        """The same, but nothing of the encoder is held back, which was drawn and has all to learn."""
        return replace(self, frozen=0, encoder_rate=1.0, layer_decay=1.0)

    def rate_at(self, epoch: float) -> float:
        """The rate after so many epochs, or parts of one."""
        if epoch < self.warmup:
            return self.rate * epoch / self.warmup
        if not self.epochs:
            return self.rate
        return self.rate * 0.5 * (1 + math.cos(math.pi * (epoch - self.warmup) / (self.epochs - self.warmup)))

    @property
    def mixes(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def require_images(self, arrays: Collection[str]) -> None:
        """Raises ValueError where what is to be mixed are no images. arrays: the names of those of an example."""
        if self.mixes and "image" not in arrays:
            raise ValueError("mixup and cutmix mix images: leave them out of --tune for other data.")


PLAIN = Tuning()


def fine_tune(
    features: Callable[[Any, Batch], Array],
    state: Variables,
    train: dict[str, np.ndarray],
    train_labels: np.ndarray,
    test: dict[str, np.ndarray],
    labels: np.ndarray,
    *,
    share: float = 1.0,
    tuning: Tuning = PLAIN,
    tell: Callable[[str], None] = lambda _: None,
) -> Score:
    """Logits W · standardised features(state, batch) + b, whose mean cross-entropy Adam minimises over W, b and the
    weights in `state`, at a rate of 1e-3 in batches of 128.

    After each epoch it is held against a fifth of the examples, drawn, from which nothing is learnt (with fewer than
    five, against those it learns from); the weights that did best there are kept, and after three epochs that were no
    better (by BETTER), or 200, it ends, if `tuning` says nothing else. Features are standardised by what the encoder
    gives before the first step. (SCARF's protocol, with one linear layer as the classifier.)

    features: `Method.features`. train, test: arrays (examples, …) in memory. share: of the labels; see
    `ssljax.evals.linear.over_draws`. tell: is told after each epoch how far it is. Raises ValueError for more frozen
    layers than there are, and where what is to be mixed are no images.
    """
    tuning.require_images(train)
    classes = int(max(train_labels.max(), labels.max())) + 1

    def logits(weights: PyTree, norm: tuple[Array, Array], batch: Batch) -> Array:
        x = features(state.replace(**weights["encoder"]), batch)
        return (x.astype(jnp.float32) - norm[0]) / norm[1] @ weights["kernel"] + weights["bias"]

    def losses(weights: PyTree, norm: tuple[Array, Array], batch: Batch, label: Array) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(logits(weights, norm, batch), label)

    def loss(weights: PyTree, norm: tuple[Array, Array], batch: Batch, label: Array, counts: Array) -> Array:
        return jnp.sum(losses(weights, norm, batch, label) * counts) / jnp.sum(counts)

    def soft_loss(weights: PyTree, norm: tuple[Array, Array], batch: Batch, target: Array, counts: Array) -> Array:
        """As `loss`, of targets (batch, classes) that sum to 1."""
        each = optax.softmax_cross_entropy(logits(weights, norm, batch), target)
        return jnp.sum(each * counts) / jnp.sum(counts)

    matrices = partial(jax.tree.map, lambda x: jnp.ndim(x) > 1)
    optimizer = optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(tuning.weight_decay, matrices))
    factors = factors_of(state, tuning)

    @jax.jit
    def step(weights, moments, norm, data, label, rows, key, rate):
        """rows (batch,): which examples are in the batch, -1 for none; rate: of this step. (A loop on the device,
        `jax.lax.scan`, would have XLA's slow convolutions on a CPU.)"""
        picked = {name: x[rows] for name, x in data.items()}
        counts = jnp.asarray(rows >= 0, jnp.float32)
        if tuning.mixes or tuning.smoothing:
            target = optax.smooth_labels(jax.nn.one_hot(label[rows], classes), tuning.smoothing)
            if tuning.mixes:
                picked, target = _mixed(picked, target, key, tuning)
            gradient = jax.grad(soft_loss)(weights, norm, picked, target, counts)
        else:
            gradient = jax.grad(loss)(weights, norm, picked, label[rows], counts)
        updates, moments = optimizer.update(gradient, moments, weights)
        updates = jax.tree.map(lambda x: -rate * x, updates)
        if factors is not None:
            updates["encoder"] = jax.tree.map(jnp.multiply, updates["encoder"], factors)
        return optax.apply_updates(weights, updates), moments

    encode = jax.jit(partial(features, state))
    predict = jax.jit(lambda *given: logits(*given).argmax(axis=1))
    held_out = jax.jit(lambda weights, norm, given: losses(weights, norm, *given))

    def right(rows: np.ndarray) -> np.ndarray:
        random = np.random.default_rng(0)
        rows = random.permutation(rows)
        held, kept = np.split(rows, [len(rows) // FOLDS]) if len(rows) >= FOLDS else (rows, rows)
        data, kept_labels = {name: jnp.asarray(x[kept]) for name, x in train.items()}, jnp.asarray(train_labels[kept])
        examined = {name: x[held] for name, x in train.items()}, train_labels[held]
        x = _in_batches(encode, data)
        norm = x.mean(axis=0), np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
        weights = {
            "encoder": {"params": state.params, "target": state.target},
            "kernel": jnp.zeros((x.shape[1], classes)),
            "bias": jnp.zeros(classes),
        }
        best, lowest, mark, waited, moments = weights, np.inf, np.inf, 0, optimizer.init(weights)
        for number in range(tuning.epochs or EPOCHS):
            batches = _batches(random.permutation(len(kept)))
            for place, rows in enumerate(batches):
                key = jax.random.fold_in(jax.random.key(number), place)
                rate = tuning.rate_at(number + (place + 1) / len(batches))
                weights, moments = step(weights, moments, norm, data, kept_labels, rows, key, rate)
            reached = float(_in_batches(partial(held_out, weights, norm), examined).mean())
            best, lowest = (weights, reached) if reached < lowest else (best, lowest)
            mark, waited = (reached, 0) if reached < mark - BETTER else (mark, waited + 1)
            tell(f"epoch {number + 1}, held-out loss {reached:.3f}, the lowest {lowest:.3f}")
            if waited == PATIENCE and not tuning.epochs:
                break
        return _in_batches(partial(predict, best, norm), test) == labels

    return over_draws(right, train_labels, share)


def factors_of(state: Variables, tuning: Tuning) -> PyTree | None:
    """On the rate of each of the encoder's weights, which lie in the params of the network and of its target; None
    where all are 1. Raises ValueError for more frozen layers than there are."""
    if (tuning.frozen, tuning.encoder_rate, tuning.layer_decay) == (0, 1.0, 1.0):
        return None

    def of(params: PyTree) -> PyTree:
        layers, top = layer_numbers(params)
        if top < 2 and (tuning.frozen or tuning.layer_decay < 1):
            raise ValueError("--tune=frozen and layer_decay go by stages or blocks, which the encoder has not.")
        if tuning.frozen >= max(top, 1):
            raise ValueError(f"--tune=frozen={tuning.frozen}, but the encoder has only {top - 1} stages or blocks.")
        least = tuning.frozen if tuning.frozen else -1
        return jax.tree.map(
            lambda layer: (layer > least) * tuning.encoder_rate * tuning.layer_decay ** (top - layer), layers
        )

    def within(tree: PyTree) -> PyTree:
        """Of a target, which has statistics besides its params, which do not move."""
        if "params" in tree:
            return {name: of(x) if name == "params" else jax.tree.map(lambda _: 0.0, x) for name, x in tree.items()}
        return jax.tree.map(lambda _: 0.0, tree)

    return {"params": of(state.params), "target": within(state.target)}


def _mixed(batch: Batch, target: Array, key: Array, tuning: Tuning) -> tuple[Batch, Array]:
    """Images and targets with those of the batch in reverse; `Tuning`. Images become floats in [0, 1]."""
    which, draw, place = jax.random.split(key, 3)
    images = batch["image"].astype(jnp.float32)
    images = images / 255.0 if batch["image"].dtype == jnp.uint8 else images
    n, height, width = images.shape[:3]
    cut = jax.random.bernoulli(which) if tuning.mixup and tuning.cutmix else jnp.bool_(tuning.cutmix > 0)
    alpha = jnp.where(cut, tuning.cutmix, tuning.mixup)
    share = jax.random.beta(draw, alpha, alpha)
    # The rectangle has the picture's shape, its middle anywhere in it; what is outside is cut off.
    middle = jax.random.uniform(place, (2,)) * jnp.array([height, width])
    half = 0.5 * jnp.sqrt(1.0 - share) * jnp.array([height, width])
    rows, columns = jnp.arange(height) + 0.5, jnp.arange(width) + 0.5
    inside = (jnp.abs(rows - middle[0]) < half[0])[:, None] & (jnp.abs(columns - middle[1]) < half[1])
    weight = jnp.where(cut, 1.0 - inside.astype(jnp.float32), share)[None, :, :, None]
    share = weight.mean()
    mixed = weight * images + (1.0 - weight) * images[::-1]
    return batch | {"image": mixed}, share * target + (1.0 - share) * target[::-1]


def _batches(order: np.ndarray) -> np.ndarray:
    """(batches, BATCH), the last one filled up with -1; of fewer, one of all."""
    size = max(1, min(BATCH, len(order)))
    return np.pad(order, (0, -len(order) % size), constant_values=-1).reshape(-1, size)


def _in_batches(f: Callable[[Any], Array], data: PyTree) -> np.ndarray:
    """f of all examples, a batch at a time."""
    rows = _batches(np.arange(len(jax.tree.leaves(data)[0])))
    parts = [f(jax.tree.map(itemgetter(picked), data)) for picked in rows]
    return np.concatenate(jax.device_get(parts))[: rows.max() + 1]
