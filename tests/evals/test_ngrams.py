"""Counts of tokens in a row, against a loop."""

from collections import Counter

import numpy as np
import pytest

from ssljax.evals.ngrams import SIDES, gaps, ngram


@pytest.mark.parametrize("order", [1, 2, 3])
def test_as_a_loop(order):
    rng = np.random.RandomState(0)
    train, test = rng.randint(0, 4, 60), rng.randint(0, 5, 40)
    known = Counter(tuple(train[i : i + order]) for i in range(len(train) - order + 1))
    contexts = Counter()
    for run, count in known.items():
        contexts[run[:-1]] += count
    nats, right, most = [], [], Counter(train.tolist()).most_common(1)[0][0]
    for i in range(len(test) - order + 1):
        *context, answer = test[i : i + order]
        context = tuple(context)
        nats.append(-np.log((known[*context, answer] + 0.1) / (contexts[context] + 0.1 * 5)))
        counts = [known[*context, token] for token in range(4)]
        best = [token for token in range(4) if counts[token] == max(counts)] if max(counts) else [most]
        right.append(best[-1] == answer)
    np.testing.assert_allclose(ngram(train, test, order), (np.mean(nats), np.mean(right)), rtol=1e-12)


def test_hidden_tokens_as_a_loop():
    rng = np.random.RandomState(1)
    train, test = rng.randint(0, 3, 80), rng.randint(0, 3, 60)
    hidden = np.random.RandomState(0).random_sample(60) < 0.2
    nats, wide = [], 0
    for i in np.flatnonzero(hidden):
        for before, after in SIDES[::-1]:
            places = [*range(-before, 0), *range(1, after + 1)]
            if i - before >= 0 and i + after < 60 and not any(hidden[i + place] for place in places):
                break
        wide += before == 2
        alike = [t for t in range(before, 80 - after) if all(train[t + place] == test[i + place] for place in places)]
        same = sum(train[t] == test[i] for t in alike)
        nats.append(-np.log((same + 0.1) / (len(alike) + 0.1 * 4)))
    assert 0 < wide < len(nats)
    np.testing.assert_allclose(gaps(train, test, 0.2)[0], np.mean(nats), rtol=1e-12)


def test_nothing_to_count():
    assert np.isnan(ngram(np.arange(5), np.arange(2), 3)).all()
    assert np.isnan(gaps(np.arange(5), np.arange(2), 0.0)).all()
