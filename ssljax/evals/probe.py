"""Linear classifiers on frozen features as papers train them, all of a grid of rates and weight decays at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssljax.evals.linear import class_share, require_classes
from ssljax.evals.scores import Score
from ssljax.schedules import warmup_cosine
from ssljax.typing import Array, PyTree

EPSILON = 1e-6
"""Added to BatchNorm's variance."""
VALIDATION = 0.1
"""Share of each class of the training examples on which the grid's best is chosen."""


@dataclass(frozen=True)
class Recipe:
    """How a head is trained.

    optimizer: "sgd", or "lars": the kernel's update is trust · |w| / |update| as large, with a trust of 0.001, before
    the momentum. rates, decays: the grid; rates are multiplied by batch / 256 if `scaled`. batch: of as many examples
    as there are, if there are fewer. milestones: epochs from which the rate is a tenth of what it was, instead of a
    cosine to 0. norm: the features go through BatchNorm without scale and
    offset first: by mean and variance of the batch, and to be judged by those of all training examples, which running
    averages only come near to.
    """

    rates: tuple[float, ...]
    epochs: float
    batch: int
    optimizer: str = "sgd"
    decays: tuple[float, ...] = (0.0,)
    scaled: bool = True
    nesterov: bool = False
    warmup: float = 0.0
    milestones: tuple[int, ...] = ()
    norm: bool = False

    @property
    def is_grid(self) -> bool:
        return len(self.rates) * len(self.decays) > 1

    def __str__(self) -> str:
        way = {"sgd": "SGD", "lars": "LARS"}[self.optimizer] + (" with Nesterov's momentum" if self.nesterov else "")
        falls = f"a tenth from epochs {', '.join(map(str, self.milestones))} on" if self.milestones else "a cosine to 0"
        parts = [
            f"{way} of 0.9",
            f"rate {_listed(self.rates)}{' · batch / 256' if self.scaled else ''}, {falls}",
            f"weight decay {_listed(self.decays)}",
            f"{self.epochs:g} epochs in batches of {self.batch}",
        ]
        parts += [f"{self.warmup:g} epochs of warm-up"] if self.warmup else []
        parts += ["BatchNorm without scale and offset before the head"] if self.norm else []
        return "; ".join(parts)


RECIPES = {
    "simclr": Recipe((0.1,), 90, 4096, decays=(1e-6,), nesterov=True),
    "moco": Recipe((30.0,), 100, 256, scaled=False, milestones=(60, 80)),
    "simsiam": Recipe((0.02,), 90, 4096, "lars"),
    "byol": Recipe((0.05, 0.1, 0.2, 0.3, 0.4), 80, 1024, nesterov=True),
    "mae": Recipe((0.1,), 90, 16384, "lars", warmup=10, norm=True),
    "dino": Recipe((0.001,), 100, 256),
    "dinov2": Recipe((1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1), 10, 1024),
    "grid": Recipe((0.001, 0.003, 0.01, 0.03, 0.1, 0.3), 30, 1024, decays=(0.0, 1e-4), norm=True),
}
"""The published ones by who published them, and a grid that fits features of any scale.

SimCLR: Chen et al., 2020, appendix B.6. MoCo: He et al., 2020, section 4.1 (v2 has the same).
SimSiam: Chen and He, 2021, appendix A. BYOL: Grill et al., 2020,
appendix C.1. MAE: He et al., 2022, appendix A.1. DINO: Caron et al., 2021, appendix F. DINOv2: Oquab et al., 2024,
appendix B.3, with 10 epochs of ImageNet in place of 12,500 steps. Their images are augmented by crops and flips while
the head is trained; `Features.crops` are such.
"""


class Features(NamedTuple):
    """train, test: (examples, dim), of un-augmented examples. crops: (crops, examples, dim), of random crops of the
    training images, which heads are trained on in their place; one is drawn for each image and epoch."""

    train: np.ndarray
    test: np.ndarray
    crops: np.ndarray | None = None


class Chosen(NamedTuple):
    """features: the name of those that did best; rate: without the factor of the batch."""

    score: Score
    features: str
    rate: float
    decay: float


def sgd_probe(
    features: Mapping[str, Features],
    train_labels: np.ndarray,
    labels: np.ndarray,
    recipe: Recipe,
    *,
    share: float = VALIDATION,
    seed: int = 0,
) -> Chosen:
    """The best head of the grid, of the best features.

    If there are several, they are trained on the training examples but a share of each class, on which the one is
    chosen that is right most often (of several the first); it is then trained again on all of them. Heads start from
    N(0, 0.01²) and 0. The test examples choose nothing.

    Labels are 0 … classes - 1. Raises ValueError if those of training are all the same.
    """
    require_classes(train_labels)
    classes = int(max(train_labels.max(), labels.max())) + 1
    grid = list(product(recipe.rates, recipe.decays))
    held = class_share(train_labels, share, seed)
    kept = np.setdiff1d(np.arange(len(train_labels)), held)
    kept = kept if len(kept) else held  # of classes with one example each

    def seen(of: Features) -> np.ndarray:
        return of.train[None] if of.crops is None else of.crops

    def right(of: Features) -> list[float]:
        heads = fit(seen(of)[:, kept], train_labels[kept], classes, recipe, grid, seed=seed)
        return [float((predict(head, of.train[held]) == train_labels[held]).mean()) for head in heads]

    best, point = next(iter(features)), grid[0]
    if len(features) * len(grid) > 1:
        found = {name: right(of) for name, of in features.items()}
        best = max(found, key=lambda name: max(found[name]))
        point = grid[int(np.argmax(found[best]))]
    (head,) = fit(seen(features[best]), train_labels, classes, recipe, [point], seed=seed)
    chosen = f"rate {point[0]:g}, weight decay {point[1]:g}" if recipe.is_grid else ""
    chosen += f"{', ' if chosen else ''}{best}" if len(features) > 1 else ""
    return Chosen(Score(predict(head, features[best].test) == labels, chosen=chosen), best, *point)


Head = tuple[np.ndarray, np.ndarray]
"""kernel (dim, classes) and bias (classes,), with the normalisation of features in them."""


def fit(
    x: np.ndarray,
    labels: np.ndarray,
    classes: int,
    recipe: Recipe,
    grid: Sequence[tuple[float, float]],
    *,
    seed: int = 0,
) -> list[Head]:
    """A head for each (rate, weight decay), all of which see the same batches; the rest of an epoch that fills no batch
    is left out. x: (crops, examples, dim)."""
    crops, examples, dim = x.shape
    batch = min(recipe.batch, examples)
    per_epoch = examples // batch
    steps = max(1, round(recipe.epochs * per_epoch))
    random = np.random.default_rng(seed)
    epochs = [random.permutation(examples)[: per_epoch * batch] for _ in range(-(-steps // per_epoch))]
    order = np.concatenate(epochs).reshape(-1, batch)[:steps].astype(np.int32)
    order += examples * random.integers(crops, size=order.shape, dtype=np.int32)
    rates = np.array([rate for rate, _ in grid], np.float32) * (batch / 256 if recipe.scaled else 1.0)
    decays = np.array([decay for _, decay in grid], np.float32)
    start = 0.01 * np.asarray(jax.random.normal(jax.random.key(seed), (dim, classes)))
    arrays = jnp.asarray(x, jnp.float32).reshape(-1, dim), jnp.asarray(np.tile(labels, crops), jnp.int32)
    return list(zip(*jax.device_get(_trained(recipe, per_epoch, *arrays, order, rates, decays, start)), strict=True))


def predict(head: Head, x: np.ndarray) -> np.ndarray:
    """The most likely class of each example, (examples,)."""
    kernel, bias = head
    return (x @ kernel + bias).argmax(axis=1)


@partial(jax.jit, static_argnames=("recipe", "per_epoch"))
def _trained(
    recipe: Recipe, per_epoch: int, x: Array, labels: Array, order: Array, rates: Array, decays: Array, start: Array
) -> tuple[Array, Array]:
    """order (steps, batch), rates and decays (heads,), start (dim, classes). Returns kernels (heads, dim, classes) and
    biases (heads, classes)."""
    total = len(order)

    def shape(step: Array) -> Array:
        """The rate as a part of its peak."""
        if recipe.milestones:
            return 0.1 ** (step >= per_epoch * jnp.array(recipe.milestones)).sum()
        return warmup_cosine(step, peak=1.0, total=total, warmup=round(recipe.warmup * per_epoch))

    def optimizer(rate: Array | float, decay: Array | float) -> optax.GradientTransformation:
        kernels = {"kernel": True, "bias": False}
        adapt = optax.masked(optax.scale_by_trust_ratio(trust_coefficient=0.001), kernels)
        return optax.chain(
            optax.add_decayed_weights(decay),
            adapt if recipe.optimizer == "lars" else optax.identity(),
            optax.trace(0.9, nesterov=recipe.nesterov),
            optax.scale_by_schedule(lambda step: -rate * shape(step)),
        )

    def loss(head: PyTree, rows: Array, told: Array) -> Array:
        logits = rows @ head["kernel"] + head["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, told).mean()

    def step(carry, picked):
        (heads, moments), rows, told = carry, x[picked], labels[picked]
        if recipe.norm:
            rows = (rows - rows.mean(axis=0)) * jax.lax.rsqrt(rows.var(axis=0) + EPSILON)

        def moved(head, moment, rate, decay):
            updates, moment = optimizer(rate, decay).update(jax.grad(loss)(head, rows, told), moment, head)
            return optax.apply_updates(head, updates), moment

        return jax.vmap(moved)(heads, moments, rates, decays), None

    count, (dim, classes) = len(rates), start.shape
    heads = {"kernel": jnp.broadcast_to(start, (count, dim, classes)), "bias": jnp.zeros((count, classes))}
    moments = jax.vmap(optimizer(0.0, 0.0).init)(heads)
    (heads, _), _ = jax.lax.scan(step, (heads, moments), order)
    kernel, bias = heads["kernel"], heads["bias"]
    if recipe.norm:
        kernel = kernel * jax.lax.rsqrt(x.var(axis=0) + EPSILON)[:, None]
        bias = bias - x.mean(axis=0) @ kernel
    return kernel, bias


def _listed(numbers: Sequence[float]) -> str:
    return f"{numbers[0]:g}" if len(numbers) == 1 else f"of {', '.join(f'{x:g}' for x in numbers)}"
