"""Nearest neighbours over devices and blocks, and many k and temperatures at once, against scikit-learn."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from ssljax.evals.knn import knn, knn_grid, nearest, nearest_others


@pytest.fixture
def clusters():
    """Four overlapping classes in six dimensions: bank, its labels, queries, their labels."""
    rng = np.random.RandomState(0)
    centres = rng.randn(4, 6)
    labels, query_labels = rng.randint(0, 4, 203), rng.randint(0, 4, 90)
    noisy = lambda y: (centres[y] + 0.8 * rng.randn(len(y), 6)).astype(np.float32)  # noqa: E731
    return noisy(labels), labels, noisy(query_labels), query_labels


@pytest.mark.parametrize("block", [40, 23, 7])
def test_a_bank_on_several_devices_in_blocks_is_searched_as_one(clusters, block):
    """On the four devices of these tests, with blocks that divide nothing; and where nearly all rows are equally near
    to others, which no rounding tells apart."""
    bank, _, queries, _ = clusters
    signs = [np.random.RandomState(n).choice([-1.0, 1.0], (n, 4)).astype(np.float32) for n in (203, 90)]
    for rows, asked in ((bank, queries), signs):
        similarity, index = nearest(rows, asked, 20)
        found = nearest(rows, asked, 20, block=block, chunk=32)
        np.testing.assert_allclose(found[0], similarity, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found[1], index)


@pytest.mark.parametrize("temperature", [0.07, 0.5, None])
def test_every_cell_of_the_grid_is_what_scikit_learn_says(clusters, temperature):
    bank, labels, queries, query_labels = clusters
    found = knn_grid(*clusters, ks=(50, 1, 7, 203, 500), temperatures=(temperature,))
    assert list(found) == [(k, temperature) for k in (1, 7, 50, 203)]
    for (k, _), score in found.items():
        weights = "uniform" if temperature is None else lambda far: np.exp((1 - far) / temperature)
        reference = KNeighborsClassifier(k, metric="cosine", weights=weights).fit(bank, labels)
        np.testing.assert_array_equal(score.correct, reference.predict(queries) == query_labels)
        if temperature is not None:
            np.testing.assert_array_equal(score.correct, knn(*clusters, k=k, temperature=temperature).correct)


def test_with_one_neighbour_weights_do_not_matter_and_with_all_the_largest_class_wins(clusters):
    _, labels, _, query_labels = clusters
    found = knn_grid(*clusters, ks=(1, 203), temperatures=(0.01, 0.07, None))
    for temperature in (0.01, 0.07):
        np.testing.assert_array_equal(found[1, temperature].correct, found[1, None].correct)
    np.testing.assert_array_equal(found[203, None].correct, np.bincount(labels).argmax() == query_labels)


def test_leave_one_out_is_a_loop_over_banks_without_the_row(clusters):
    bank, labels, _, _ = clusters
    found = knn_grid(bank, labels, ks=(3, 202, 203), temperatures=(0.1,))
    assert list(found) == [(3, 0.1), (202, 0.1)]
    for k, asked in ((3, 3), (202, 999)):
        np.testing.assert_array_equal(knn(bank, labels, k=asked, temperature=0.1).correct, found[k, 0.1].correct)
    for k in (3, 202):
        for i in range(0, 203, 20):
            rest = np.arange(203) != i
            alone = knn(bank[rest], labels[rest], bank[i : i + 1], labels[i : i + 1], k=k, temperature=0.1)
            assert alone.correct[0] == found[k, 0.1].correct[i]


def test_a_row_is_not_its_own_neighbour_even_among_copies():
    """Pairs whose labels differ: each is wrong by its twin. Of rows that are all the same, others are found."""
    rng = np.random.RandomState(0)
    pairs = np.repeat(rng.randn(10, 5).astype(np.float32), 2, axis=0)
    found = knn_grid(pairs, np.arange(20) % 2, ks=(1,), temperatures=(None,))
    assert found[1, None].accuracy == 0
    same = np.ones((9, 4), np.float32)
    _, index = nearest_others(same, 3)
    assert (index != np.arange(9)[:, None]).all()
