"""Retrieval and zero-shot classification against loops; the floor that needs no network."""

import numpy as np

from ssljax.evals.features import colour_histogram
from ssljax.evals.retrieval import ColoursToWords, chance, ranks, recall, unit, zero_shot


def test_ranks_equal_a_loop_and_ties_count_against():
    random = np.random.RandomState(0)
    images, texts = (unit(random.randn(n, 4)).astype(np.float32) for n in (5, 9))
    owners = np.array([0, 0, 1, 2, 2, 2, 3, 4, 4])

    def loop(query, mine, items, others):
        best = max(query @ item for item, owner in zip(items, others, strict=True) if owner == mine)
        return sum(query @ item >= best for item, owner in zip(items, others, strict=True) if owner != mine)

    to_text = [loop(image, i, texts, owners) for i, image in enumerate(images)]
    to_image = [loop(text, owner, images, np.arange(5)) for text, owner in zip(texts, owners, strict=True)]
    found = ranks(images, np.arange(5), texts, owners)
    np.testing.assert_array_equal(found, to_text)
    np.testing.assert_array_equal(ranks(texts, owners, images, np.arange(5)), to_image)
    assert recall(found, 2).accuracy == np.mean(np.array(to_text) < 2)
    same = np.ones((5, 4), np.float32) / 2
    for wrong in (same, same * np.nan):
        assert recall(ranks(wrong, np.arange(5), same, np.arange(5)), 4).accuracy == 0


def test_chance_is_what_random_orders_give():
    owners, random = np.array([0, 0, 1, 2, 2, 2, 3, 4, 4]), np.random.RandomState(0)
    orders = [random.permutation(owners) for _ in range(20_000)]
    for k in (1, 3, 9, 20):
        expected = [np.mean([i in order[:k] for order in orders]) for i in range(5)]
        np.testing.assert_allclose(chance(np.arange(5), owners, k).correct, expected, atol=0.02)


def test_zero_shot_takes_the_mean_of_the_prompts():
    prompts = unit(np.array([[[1.0, 0.2], [1.0, -0.2]], [[0.0, 1.0], [0.9, 1.0]]]))
    images = unit(np.array([[1.0, 0.0], [0.4, 1.0], [1.0, 1.0]]))
    assert zero_shot(images, np.array([0, 1, 0]), prompts).correct.tolist() == [True, True, False]


def test_words_are_foretold_from_colours_where_they_follow_from_them():
    random = np.random.RandomState(0)
    names, colours = ("red", "green", "blue"), np.eye(3)
    label = random.randint(0, 3, 90)
    image = (colours[label][:, None, None] * 0.8 + 0.2 * random.rand(90, 4, 4, 3)).astype(np.float32) * 255
    histogram = np.asarray(colour_histogram({"image": image.astype(np.uint8)}))
    np.testing.assert_allclose(np.square(histogram).sum(axis=1), 1, rtol=1e-5)
    texts = [[f"A {names[k]} thing.", f"thing {i}"] for i, k in enumerate(label)]
    floor = ColoursToWords(histogram[:60], texts[:60])
    prompts = floor.of_texts([f"{name}, unheard-of" for name in names])[:, None]
    assert zero_shot(floor.of_images(histogram[60:]), label[60:], prompts).accuracy > 0.95
    assert not floor.of_texts(["unheard-of"]).any()
