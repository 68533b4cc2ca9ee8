"""The floors that text has: how well a token is told from the few beside it, by counting."""

import numpy as np

ADDED = 0.1
"""Counts of every token in every context that were not seen, so that nothing is impossible."""
SIDES = ((0, 0), (0, 1), (1, 0), (1, 1), (2, 2))
"""From how many tokens before and after a hidden one it is told: the last of these of which none is hidden, too."""


def ngram(train: np.ndarray, test: np.ndarray, order: int) -> tuple[float, float]:
    """(nats for each token, accuracy of the most frequent one) of test tokens, from the order - 1 before each.

        p(y | c) = (count(c, y) + 0.1) / (count(c) + 0.1 · V)

    with the V tokens that the training text has, and one for all others. In a context that it has not, the guess is
    its most frequent token. train, test: ids (tokens,), of 0 or more.
    """
    if len(test) < order:
        return float("nan"), float("nan")
    nats, right = _told(train, test, order - 1, 0)
    return float(nats.mean()), float(right.mean())


def gaps(train: np.ndarray, test: np.ndarray, share: float) -> tuple[float, float]:
    """The same of a share of the test tokens that is hidden, drawn with a fixed seed, each told from what is left on
    both of its sides; see `SIDES`."""
    hidden = np.random.RandomState(0).random_sample(len(test)) < share
    nats, right = np.full(len(test), np.nan), np.full(len(test), np.nan)
    for before, after in SIDES:
        count = len(test) - before - after
        if count < 1:
            break
        beside = [hidden[place : place + count] for place in range(before + after + 1) if place != before]
        places = before + np.flatnonzero(~np.any(beside, axis=0) if beside else np.ones(count, bool))
        told = _told(train, test, before, after)
        nats[places], right[places] = (of[places - before] for of in told)
    return (float(nats[hidden].mean()), float(right[hidden].mean())) if hidden.any() else (float("nan"), float("nan"))


def _told(train: np.ndarray, test: np.ndarray, before: int, after: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each test token that has so many before and after it: nats, and whether it is the most frequent one."""
    base = int(max(train.max(), test.max())) + 1
    contexts, tokens = _runs(train, before, after, base)
    asked, answers = _runs(test, before, after, base)
    contexts, asked = np.split(np.unique(np.append(contexts, asked), return_inverse=True)[1], [len(contexts)])
    seen, counts = np.unique(contexts * base + tokens, return_counts=True)
    of_context, sums = np.unique(contexts, return_counts=True)
    known = _look_up(asked * base + answers, seen, counts)
    size = len(np.unique(train)) + 1
    nats = -np.log((known + ADDED) / (_look_up(asked, of_context, sums) + ADDED * size))
    # Of each context the token that is most frequent: the last of them when sorted by context and count.
    sort = np.lexsort((counts, seen // base))
    last = np.append(np.diff(seen[sort] // base) > 0, True)
    best = seen[sort][last] % base
    guesses = _look_up(asked, of_context, best + 1) - 1
    guesses = np.where(guesses < 0, np.argmax(np.bincount(train)), guesses)
    return nats, guesses == answers


def _runs(ids: np.ndarray, before: int, after: int, base: int) -> tuple[np.ndarray, np.ndarray]:
    """Each token that has so many before and after it, as (these as one number, the token)."""
    ids = ids.astype(np.int64)
    contexts = np.zeros(len(ids) - before - after, np.int64)
    for place in (*range(before), *range(before + 1, before + after + 1)):
        contexts = contexts * base + ids[place : place + len(contexts)]
    return contexts, ids[before : before + len(contexts)]


def _look_up(keys: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values of keys among the `known`, which are sorted; 0 for others."""
    places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[places] == keys, values[places], 0)
