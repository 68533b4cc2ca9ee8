"""Training the encoder on, with a linear classifier on top of it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssljax.evals.linear import FOLDS, over_draws
from ssljax.evals.scores import Score
from ssljax.typing import Array, Batch, PyTree, Variables

BATCH, EPOCHS, PATIENCE = 128, 200, 3
RATE = 1e-3


def fine_tune(
    features: Callable[[Any, Batch], Array],
    state: Variables,
    train: dict[str, np.ndarray],
    train_labels: np.ndarray,
    test: dict[str, np.ndarray],
    labels: np.ndarray,
    *,
    share: float = 1.0,
) -> Score:
    """Logits W · standardised features(state, batch) + b, whose mean cross-entropy Adam minimises over W, b and the
    weights in `state`, at a rate of 1e-3 in batches of 128.

    After each epoch it is held against a fifth of the examples, drawn, from which nothing is learnt (with fewer than
    five, against those it learns from); the weights that did best there are kept, and after three epochs that were no
    better, or 200, it ends. Features are standardised by what the encoder gives before the first step. (SCARF's
    protocol, with one linear layer as the classifier.)

    features: `Method.features`. train, test: arrays (examples, …) in memory. share: of the labels; see
    `ssljax.evals.linear.over_draws`.
    """
    classes = int(max(train_labels.max(), labels.max())) + 1

    def logits(weights: PyTree, norm: tuple[Array, Array], batch: Batch) -> Array:
        x = features(state.replace(**weights["encoder"]), batch)
        return (x.astype(jnp.float32) - norm[0]) / norm[1] @ weights["kernel"] + weights["bias"]

    def loss(weights: PyTree, norm: tuple[Array, Array], batch: Batch, label: Array, counts: Array) -> Array:
        each = optax.softmax_cross_entropy_with_integer_labels(logits(weights, norm, batch), label)
        return jnp.sum(each * counts) / jnp.sum(counts)

    optimizer = optax.adam(RATE)

    @jax.jit
    def epoch(weights, moments, norm, data, label, order):
        """order (steps, BATCH): which examples are in each batch, -1 for none."""

        def step(carry, rows):
            weights, moments = carry
            picked = {name: x[rows] for name, x in data.items()}
            gradient = jax.grad(loss)(weights, norm, picked, label[rows], jnp.asarray(rows >= 0, jnp.float32))
            updates, moments = optimizer.update(gradient, moments, weights)
            return (optax.apply_updates(weights, updates), moments), None

        return jax.lax.scan(step, (weights, moments), order)[0]

    encode, held_out = jax.jit(partial(features, state)), jax.jit(loss)
    predict = jax.jit(lambda *given: logits(*given).argmax(axis=1))

    def right(rows: np.ndarray) -> np.ndarray:
        random = np.random.default_rng(0)
        rows = random.permutation(rows)
        held, kept = np.split(rows, [len(rows) // FOLDS]) if len(rows) >= FOLDS else (rows, rows)
        data, kept_labels = {name: jnp.asarray(x[kept]) for name, x in train.items()}, jnp.asarray(train_labels[kept])
        examined = {name: x[held] for name, x in train.items()}, train_labels[held], np.ones(len(held), np.float32)
        x = _in_batches(encode, data)
        norm = x.mean(axis=0), np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
        weights = {
            "encoder": {"params": state.params, "target": state.target},
            "kernel": jnp.zeros((x.shape[1], classes)),
            "bias": jnp.zeros(classes),
        }
        best, lowest, waited, moments = weights, np.inf, 0, optimizer.init(weights)
        for _ in range(EPOCHS):
            weights, moments = epoch(weights, moments, norm, data, kept_labels, _batches(random.permutation(len(kept))))
            reached = float(held_out(weights, norm, *examined))
            best, lowest, waited = (weights, reached, 0) if reached < lowest else (best, lowest, waited + 1)
            if waited == PATIENCE:
                break
        return _in_batches(partial(predict, best, norm), test) == labels

    return over_draws(right, train_labels, share)


def _batches(order: np.ndarray) -> np.ndarray:
    """(batches, BATCH), the last one filled up with -1."""
    return np.pad(order, (0, -len(order) % BATCH), constant_values=-1).reshape(-1, BATCH)


def _in_batches(f: Callable[[Batch], Array], data: dict[str, Any]) -> np.ndarray:
    """f of all examples, a batch at a time."""
    rows = _batches(np.arange(len(next(iter(data.values())))))
    parts = [f({name: jnp.asarray(x)[picked] for name, x in data.items()}) for picked in rows]
    return np.concatenate(jax.device_get(parts))[: rows.max() + 1]
