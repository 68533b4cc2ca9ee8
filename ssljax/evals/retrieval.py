"""Images and texts that find each other in a common space, and classes that are told in words."""

from collections.abc import Sequence

import numpy as np

from ssljax.evals.scores import Score

CHUNK = 1024


def ranks(queries: np.ndarray, owners: np.ndarray, items: np.ndarray, item_owners: np.ndarray) -> np.ndarray:
    """For each query, how many items of others are at least as similar as the most similar one of its own, (queries,).

    queries (queries, dim) and items (items, dim), of length 1; owners (queries,) and item_owners (items,): whose they
    are. Ties count against a query, and so does what is not a number.
    """
    found = []
    for start in range(0, len(queries), CHUNK):
        similarity = queries[start : start + CHUNK] @ items.T
        own = owners[start : start + CHUNK, None] == item_owners
        best = np.where(own, similarity, -np.inf).max(axis=1, keepdims=True)
        found.append((~(similarity < best) & ~own).sum(axis=1))
    return np.concatenate(found)


def recall(ranks: np.ndarray, k: int) -> Score:
    """R@k: whether one of a query's own is among the first k."""
    return Score(ranks < k)


def chance(owners: np.ndarray, item_owners: np.ndarray, k: int) -> Score:
    """R@k of a random order."""
    own, items = (item_owners == owners[:, None]).sum(axis=1), len(item_owners)
    missed = np.ones(len(owners))
    for place in range(min(k, items)):
        missed *= np.maximum(items - own - place, 0) / (items - place)
    return Score(1 - missed)


def zero_shot(images: np.ndarray, labels: np.ndarray, prompts: np.ndarray) -> Score:
    """The class is the one whose prompts' mean is the most similar.

    images (images, dim), labels (images,), prompts (classes, templates, dim), all of length 1 (Radford et al., 2021,
    section 3.1).
    """
    return Score((images @ unit(prompts.mean(axis=1)).T).argmax(axis=1) == labels)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


class ColoursToWords:
    """What needs no network: words (each as rare as it is, √tf · idf) foretold from colours by ridge regression.

    colours (images, bins): of training images; texts: of each, its captions. The penalty is chosen by the recall of
    captions (R@10) of a held-out fifth. `of_images` and `of_texts` give rows of length 1, zeros where nothing is known.
    """

    penalties = (1e-3, 1e-2, 1e-1, 1.0)

    def __init__(self, colours: np.ndarray, texts: Sequence[Sequence[str]]):
        counts: dict[str, int] = {}
        for captions in texts:
            for word in {word for text in captions for word in words(text)}:
                counts[word] = counts.get(word, 0) + 1
        self._place = {word: i for i, word in enumerate(sorted(counts))}
        self._idf = np.log(len(texts) / np.array([counts[word] for word in self._place], np.float64))
        self._mean, self._std = colours.mean(axis=0), np.maximum(colours.std(axis=0), 1e-6)
        x = self._scaled(colours)
        y = unit(np.stack([self.of_texts(captions).sum(axis=0) for captions in texts]))
        held = np.random.default_rng(0).permutation(len(x)) < len(x) // 5
        told = [(i, text) for i in np.flatnonzero(held).tolist() for text in texts[i]]
        asked, queries = np.array([i for i, _ in told]), self.of_texts([text for _, text in told])

        def right(penalty: float) -> float:
            images = unit(x[held] @ _ridge(x[~held], y[~held], penalty))
            return recall(ranks(queries, asked, images, np.flatnonzero(held)), 10).accuracy

        self._weights = _ridge(x, y, max(self.penalties, key=right) if held.any() else self.penalties[-1])

    def of_images(self, colours: np.ndarray) -> np.ndarray:
        return unit(self._scaled(colours) @ self._weights)

    def of_texts(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(texts), len(self._place)))
        for row, text in zip(rows, texts, strict=True):
            for word in words(text):
                if word in self._place:
                    row[self._place[word]] += 1
        return unit(np.sqrt(rows) * self._idf)

    def _scaled(self, colours: np.ndarray) -> np.ndarray:
        return np.append((colours - self._mean) / self._std, np.ones((len(colours), 1)), axis=1)


def words(text: str) -> list[str]:
    """In lower case, of letters and digits."""
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


def _ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    return np.linalg.solve(x.T @ x + penalty * len(x) * np.eye(x.shape[1]), x.T @ y)
