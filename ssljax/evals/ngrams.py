"""The floor that text has: how well a token is told from the few before it, by counting."""

import numpy as np

ADDED = 0.1
"""Counts of every token after every context that were not seen, so that nothing is impossible."""


def ngram(train: np.ndarray, test: np.ndarray, order: int) -> tuple[float, float]:
    """(nats for each token, accuracy of the most frequent one) of test tokens, from the order - 1 before each.

        p(y | c) = (count(c, y) + 0.1) / (count(c) + 0.1 · V)

    with the V tokens that the training text has, and one for all others. After a context that it has not, the guess is
    its most frequent token. train, test: ids (tokens,), of 0 or more.
    """
    if len(test) < order:
        return float("nan"), float("nan")
    base = int(max(train.max(), test.max())) + 1
    contexts, tokens = _runs(train, order, base)
    seen, counts = np.unique(contexts * base + tokens, return_counts=True)
    of_context, sums = np.unique(contexts, return_counts=True)
    asked, answers = _runs(test, order, base)
    known = _look_up(asked * base + answers, seen, counts)
    size = len(np.unique(train)) + 1
    nats = -np.log((known + ADDED) / (_look_up(asked, of_context, sums) + ADDED * size)).mean()
    # Of each context the token that is most frequent: the last of them when sorted by context and count.
    sort = np.lexsort((counts, seen // base))
    last = np.append(np.diff(seen[sort] // base) > 0, True)
    best = seen[sort][last] % base
    guesses = _look_up(asked, of_context, best + 1) - 1
    guesses = np.where(guesses < 0, np.bincount(train).argmax(), guesses)
    return float(nats), float((guesses == answers).mean())


def _runs(ids: np.ndarray, order: int, base: int) -> tuple[np.ndarray, np.ndarray]:
    """Each token that has order - 1 before it, as (these as one number, the token)."""
    ids = ids.astype(np.int64)
    contexts = np.zeros(len(ids) - order + 1, np.int64)
    for place in range(order - 1):
        contexts = contexts * base + ids[place : place + len(contexts)]
    return contexts, ids[order - 1 :]


def _look_up(keys: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values of keys among the `known`, which are sorted; 0 for others."""
    places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[places] == keys, values[places], 0)
