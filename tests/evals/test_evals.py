"""k-NN, the linear probe and their uncertainties, against slow and obvious versions."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ssljax.evals.columns import boosting, logistic_regression
from ssljax.evals.features import block_means, extract, labelled, raw_pixels
from ssljax.evals.finetune import fine_tune
from ssljax.evals.knn import knn, nearest
from ssljax.evals.linear import DRAWS, FOLDS, PENALTIES, class_share, leave_one_out, linear_probe, over_draws
from ssljax.evals.maps import MAPS, maps
from ssljax.evals.scores import Score, margin
from ssljax.typing import Variables


@pytest.fixture
def clusters():
    """Three overlapping classes in five dimensions: bank, its labels, queries, their labels."""
    rng = np.random.RandomState(0)
    centres = rng.randn(3, 5)
    labels, query_labels = rng.randint(0, 3, 120), rng.randint(0, 3, 60)
    noisy = lambda y: (centres[y] + 0.8 * rng.randn(len(y), 5)).astype(np.float32)  # noqa: E731
    return noisy(labels), labels, noisy(query_labels), query_labels


def test_knn_equals_a_loop(clusters):
    bank, labels, queries, query_labels = clusters
    expected = []
    for query, label in zip(queries, query_labels, strict=True):
        similarity = [float(query @ row / np.linalg.norm(query) / np.linalg.norm(row)) for row in bank]
        votes = np.zeros(3)
        for i in sorted(range(len(bank)), key=lambda i, s=similarity: -s[i])[:7]:
            votes[labels[i]] += np.exp(similarity[i] / 0.1)
        expected.append(votes.argmax() == label)
    score = knn(bank, labels, queries, query_labels, k=7, temperature=0.1)
    np.testing.assert_array_equal(score.correct, expected)
    assert 0.5 < score.accuracy < 1


def test_nearest_comes_in_order_and_does_not_depend_on_the_chunk(clusters):
    bank, _, queries, _ = clusters
    similarity, index = nearest(bank, queries, 4)
    assert (np.diff(similarity, axis=1) <= 0).all()
    np.testing.assert_array_equal(index, nearest(bank, queries, 4, chunk=7)[1])
    assert nearest(bank[:3], queries, 20)[1].shape == (60, 3)


def test_linear_probe_finds_what_is_linear_and_nothing_else(clusters):
    bank, labels, queries, query_labels = clusters
    score, penalty = linear_probe(bank, labels, queries, query_labels)
    assert score.accuracy > 0.75 and penalty > 0
    shuffles = [np.random.RandomState(i).permutation(labels) for i in range(20)]
    chance = [linear_probe(bank, shuffled, queries, query_labels)[0].accuracy for shuffled in shuffles]
    assert abs(np.mean(chance) - 1 / 3) < 0.1
    # Units do not matter, and a feature that never changes is no trouble.
    scaled = [np.concatenate([x * 1000, np.ones((len(x), 1), np.float32)], axis=1) for x in (bank, queries)]
    again, _ = linear_probe(scaled[0], labels, scaled[1], query_labels)
    np.testing.assert_array_equal(again.correct, score.correct)


def test_a_tiny_set_is_judged_all_the_same():
    features = np.array([[0.0], [1.0], [0.1], [0.9]], np.float32)
    labels = np.array([0, 1, 0, 1])
    assert linear_probe(features, labels, features, labels)[0].accuracy == 1


def test_standard_errors_are_those_of_repeated_draws():
    rng = np.random.RandomState(0)
    shared = rng.rand(4000, 500)  # both classifiers fail on the same hard examples
    better, worse = shared < 0.6, shared < 0.5
    margins = [margin(Score(a), Score(b)) for a, b in zip(better, worse, strict=True)]
    differences, errors = np.array(margins).T
    np.testing.assert_allclose(differences.mean(), 0.1, atol=0.002)
    np.testing.assert_allclose(errors.mean(), differences.std(), rtol=0.05)
    single = [Score(a) for a in better]
    spread = np.std([s.accuracy for s in single])
    np.testing.assert_allclose(np.mean([s.standard_error for s in single]), spread, rtol=0.05)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_differences_that_are_the_same_have_no_spread(kind):
    """Though rounding makes them several: 1 - 2/3 is not 1/3, and neither is a mean of thirds."""
    third = kind(1) / kind(3)
    score, floor = np.array([1, third, 2 * third, 1] * 3, kind), np.array([2 * third, 0, third, 2 * third] * 3, kind)
    difference, error = margin(Score(score), Score(floor))
    assert difference == pytest.approx(1 / 3) and error == 0
    assert margin(Score(np.zeros(3, bool)), Score(np.full(3, third))) == (pytest.approx(-1 / 3), 0)
    assert margin(Score(score), Score(floor[::-1]))[1] > 0.01


def test_extract_leaves_padding_out():
    batches = [
        {"image": np.full((2, 4, 4, 3), 51 * i, np.uint8), "label": np.array([i, -1]), "mask": np.array([True, False])}
        for i in range(3)
    ]
    features, labels = extract(lambda batch: (block_means(batch), batch["label"], batch["mask"]), batches)
    assert labels.tolist() == [0, 1, 2]
    np.testing.assert_allclose(features, np.full((3, 48), [[0.0], [0.2], [0.4]]), atol=1e-6)


def test_examples_without_a_label_are_not_judged():
    assert labelled(np.array([2, -1, 0])).tolist() == [True, False, True]
    assert labelled(np.full(3, -1)).all() and labelled(np.array([[-1, 0], [-1, -1]])).all()


def test_raw_pixels_of_large_images_are_block_means():
    image = np.arange(64 * 96 * 3).reshape(1, 64, 96, 3) % 251
    pixels = raw_pixels({"image": image.astype(np.uint8)}).reshape(32, 32, 3)
    np.testing.assert_allclose(pixels[3, 5], image[0, 6:8, 15:18].mean(axis=(0, 1)) / 255 - 0.5, rtol=1e-5, atol=1e-6)


def test_raw_pixels_tell_how_bright_a_grey_image_is():
    """By cosine, too, which of numbers that are all positive would see nothing else."""
    dark, bright = (np.full((5, 8, 8, 3), level, np.uint8) for level in (60, 200))
    rows, labels = np.asarray(raw_pixels({"image": np.concatenate([dark, bright])})), np.arange(10) // 5
    assert knn(rows, labels, rows, labels, k=3, temperature=0.07).accuracy == 1


@pytest.mark.parametrize("kind", MAPS)
def test_maps_keep_groups_together(kind):
    if kind == "UMAP":
        pytest.importorskip("umap")
    rng = np.random.RandomState(0)
    features = np.concatenate([rng.randn(20, 8), rng.randn(20, 8) + 20]).astype(np.float32)
    places = MAPS[kind](features)
    assert places.shape == (40, 2)
    apart = np.linalg.norm(places[:20].mean(0) - places[20:].mean(0))
    assert apart > 2 * max(places[:20].std(axis=0).max(), places[20:].std(axis=0).max())
    np.testing.assert_array_equal(places, MAPS[kind](features))


def test_pca_is_along_the_directions_of_most_variance():
    """Against the eigenvectors of the covariance."""
    features = (np.random.RandomState(0).randn(30, 5) * [1, 5, 2, 9, 3]).astype(np.float32)
    values, vectors = np.linalg.eigh(np.cov(features.T))
    expected = (features - features.mean(0)) @ vectors[:, ::-1][:, :2]
    np.testing.assert_allclose(np.abs(MAPS["PCA"](features)), np.abs(expected), rtol=1e-3, atol=1e-3)
    assert MAPS["PCA"](features[:, :1]).shape == (30, 2)


def test_a_collapsed_encoder_has_maps():
    """t-SNE alone ends the process."""
    for places in maps(np.ones((12, 3), np.float32)).values():
        np.testing.assert_array_equal(places, np.zeros((12, 2)))


def test_without_umap_there_are_the_other_maps(monkeypatch):
    monkeypatch.setattr("ssljax.evals.maps.find_spec", lambda name: None)
    assert list(maps(np.random.RandomState(0).randn(12, 3))) == ["t-SNE", "PCA"]


def test_a_share_of_the_labels_is_of_each_class_and_of_several_draws():
    labels = np.repeat([0, 1, 2], [100, 40, 3])
    rows = class_share(labels, 0.1)
    assert np.bincount(labels[rows]).tolist() == [10, 4, 1] and (np.diff(rows) > 0).all()
    assert class_share(labels, 0.1, seed=1).tolist() != rows.tolist() == class_share(labels, 0.1).tolist()
    seen = []

    def right(chosen):
        seen.append(chosen.tolist())
        return np.array([True, len(seen) % 2 == 0])

    score = over_draws(right, labels, 0.1)
    np.testing.assert_allclose(score.correct, [1.0, (DRAWS // 2) / DRAWS])
    assert len(seen) == DRAWS and len(set(map(str, seen))) == DRAWS
    assert over_draws(lambda chosen: np.array([len(chosen) == 143]), labels, 1.0).accuracy == 1


def test_boosting_finds_what_no_linear_probe_finds():
    """Classes that are the exclusive or of two signs; with few of the labels less surely."""
    rng = np.random.RandomState(0)
    x = rng.uniform(-1, 1, (1200, 4)).astype(np.float32)
    y = ((x[:, 0] > 0) ^ (x[:, 1] > 0)).astype(int)
    parts = x[:800], y[:800], x[800:], y[800:]
    assert linear_probe(*parts)[0].accuracy < 0.65 and boosting(*parts).accuracy > 0.9
    assert boosting(*parts, share=0.05).accuracy < boosting(*parts).accuracy


def test_logistic_regression_leaves_columns_as_they_are():
    """Of a class that one large column tells, the noise of a hundred small ones hides it only where all are scaled."""
    rng = np.random.RandomState(0)
    y = np.arange(160) % 2
    x = np.concatenate([(y - 0.5)[:, None] * 4, 0.01 * rng.randn(160, 100)], axis=1).astype(np.float32)
    x[:, 0] += rng.randn(160)
    parts = x[:60], y[:60], x[60:], y[60:]
    assert logistic_regression(*parts).accuracy > 0.93 > 0.85 > linear_probe(*parts)[0].accuracy


def test_the_penalty_of_few_examples_is_chosen_on_each_fifth_in_turn(monkeypatch):
    """Every example is held out once, and of many a fifth is."""
    rng, held = np.random.RandomState(0), []
    x, y = rng.randn(103, 4).astype(np.float32), np.arange(103) % 2
    score = LogisticRegression.score
    monkeypatch.setattr(LogisticRegression, "score", lambda self, a, b: (held.append(len(a)), score(self, a, b))[1])
    linear_probe(x, y, x, y)
    assert len(held) == FOLDS * len(PENALTIES["standard"]) and sum(held[:FOLDS]) == 103 and {20, 21} == set(held)
    held.clear()
    many = np.tile(x, (20, 1))
    linear_probe(many, np.tile(y, 20), x, y)
    assert held == [len(many) // 5] * len(PENALTIES["standard"])


def test_fine_tuning_learns_what_frozen_features_do_not_have():
    """Which of two numbers is the larger in magnitude, from an encoder that begins with their sum alone."""
    rng = np.random.RandomState(0)
    train, test = ({"x": rng.randn(n, 2).astype(np.float32)} for n in (600, 200))
    of = lambda data: (np.abs(data["x"][:, 0]) > np.abs(data["x"][:, 1])).astype(np.int32)  # noqa: E731
    kernel = jnp.ones((2, 32)) * jnp.linspace(-1, 1, 32)
    state = Variables(params={"kernel": kernel, "bias": jnp.zeros(32)}, model_state={}, target={}, extra={})

    def features(state, batch):
        return nn.relu(batch["x"] @ state.params["kernel"] + state.params["bias"])

    frozen, _ = linear_probe(
        *(np.asarray(x) for pair in ((features(state, d), of(d)) for d in (train, test)) for x in pair)
    )
    tuned = fine_tune(features, state, train, of(train), test, of(test))
    assert tuned.accuracy > max(0.85, frozen.accuracy + 0.2)
    tenth = fine_tune(features, state, train, of(train), test, of(test), share=0.1)
    assert 0.5 < tenth.accuracy < tuned.accuracy
    of_two = fine_tune(features, state, train, of(train), test, of(test), share=0.001)
    assert 0.4 < of_two.accuracy < tenth.accuracy


def test_each_group_is_judged_by_what_was_learnt_from_the_others(clusters):
    """As scikit-learn says with the penalty that does best on the next group; a group of other classes is all wrong."""
    x, labels, _, _ = clusters
    groups = np.arange(len(x)) % 4
    mean, std = x[groups != 1].mean(axis=0), x[groups != 1].std(axis=0)
    z, rest, held = (x - mean) / std, groups != 1, groups == 2
    kept = rest & ~held

    def fitted(rows, penalty):
        return LogisticRegression(C=1 / (penalty * rows.sum()), max_iter=50).fit(z[rows], labels[rows])

    best = max(PENALTIES["standard"], key=lambda p: fitted(kept, p).score(z[held], labels[held]))
    found = leave_one_out(x, labels, groups)
    np.testing.assert_array_equal(found.correct[~rest], fitted(rest, best).predict(z[~rest]) == labels[~rest])
    assert 0.5 < found.accuracy < 1
    alone = np.where(groups == 3, 7, labels)
    assert not leave_one_out(x, alone, groups).correct[groups == 3].any()
    with pytest.raises(ValueError, match="there must be at least 3, not 2"):
        leave_one_out(x, labels, groups % 2)
