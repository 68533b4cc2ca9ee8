"""A linear classifier on frozen features."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssljax.evals.scores import Score

PENALTIES = (1e-2, 1e-1, 1.0)
"""Strengths of the L2 penalty that are tried on held-out training examples."""


def linear_probe(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    labels: np.ndarray,
    *,
    iterations: int = 50,
    seed: int = 0,
) -> tuple[Score, float]:
    """Multinomial logistic regression on standardised features, and the penalty that it took.

        minimise over W, b:  mean cross-entropy(x W + b, label) + penalty / 2 · |W|²,   `iterations` steps of L-BFGS
        from 0

    The penalty is chosen on a fifth of the training examples, held out; the classifier is then fitted to all of them.
    The
    test examples choose nothing. train (examples, dim), labels 0 … classes - 1.
    """
    mean, std = train.mean(axis=0), train.std(axis=0)
    standardised = [(x - mean) / np.where(std > 0, std, 1.0) for x in (train, test)]
    order = np.random.default_rng(seed).permutation(len(train))
    held_out, fitted = np.split(order, [max(1, len(train) // 5)])
    classes = int(max(train_labels.max(), labels.max())) + 1
    x, y = standardised[0], train_labels

    candidates = _fit(x[fitted], y[fitted], jnp.array(PENALTIES), classes, iterations)
    right = _predict(candidates, x[held_out]) == y[held_out]
    best = PENALTIES[int(right.mean(axis=1).argmax())]
    (predicted,) = _predict(_fit(x, y, jnp.array([best]), classes, iterations), standardised[1])
    return Score(predicted == labels), best


def _predict(classifiers, x: np.ndarray) -> np.ndarray:
    """(classifiers, examples) labels."""
    logits = jnp.einsum("nd,pdc->pnc", x, classifiers["weight"]) + classifiers["bias"][:, None]
    return np.asarray(logits.argmax(-1))


@partial(jax.jit, static_argnames=("classes", "iterations"))
def _fit(x, y, penalties, classes: int, iterations: int):
    """One classifier for each of the penalties, all at once."""
    optimizer = optax.lbfgs()

    def one(penalty):
        def objective(p):
            cross_entropy = optax.softmax_cross_entropy_with_integer_labels(x @ p["weight"] + p["bias"], y).mean()
            return cross_entropy + 0.5 * penalty * jnp.sum(jnp.square(p["weight"]))

        value_and_grad = optax.value_and_grad_from_state(objective)

        def step(_, carry):
            p, state = carry
            value, grad = value_and_grad(p, state=state)
            updates, state = optimizer.update(grad, state, p, value=value, grad=grad, value_fn=objective)
            return optax.apply_updates(p, updates), state

        zeros = {"weight": jnp.zeros((x.shape[1], classes)), "bias": jnp.zeros(classes)}
        return jax.lax.fori_loop(0, iterations, step, (zeros, optimizer.init(zeros)))[0]

    return jax.vmap(one)(penalties)
