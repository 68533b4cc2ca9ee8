"""Heads of a grid trained at once, against a loop in NumPy and against scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ssljax.evals.probe import RECIPES, Features, Recipe, fit, predict
from ssljax.evals.probe import sgd_probe as probe_of_several


@pytest.fixture
def clusters():
    """Three overlapping classes in five dimensions: train, its labels, test, their labels."""
    rng = np.random.RandomState(0)
    centres = rng.randn(3, 5)
    labels, test_labels = rng.randint(0, 3, 150), rng.randint(0, 3, 100)
    noisy = lambda y: (centres[y] + 0.8 * rng.randn(len(y), 5)).astype(np.float32)  # noqa: E731
    return noisy(labels), labels, noisy(test_labels), test_labels


def sgd_probe(train, labels, test, test_labels, recipe):
    score, _, rate, decay = probe_of_several({"": Features(train, test)}, labels, test_labels, recipe)
    return score, rate, decay


def by_hand(x, labels, recipe, rate, decay):
    """One head with its kernel and bias, batches of all examples, step by step in float64."""
    x, classes = x.astype(np.float64), labels.max() + 1
    w, b = (
        np.asarray(part, np.float64) for part in fit(x[None], labels, classes, replace(recipe, norm=False), [(0, 0)])[0]
    )
    moments, rate = [np.zeros_like(w), np.zeros_like(b)], rate * (len(x) / 256 if recipe.scaled else 1)
    for step in range(int(recipe.epochs)):
        rows = x
        if recipe.norm:
            rows = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-6)
        logits = rows @ w + b
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        error = (p / p.sum(axis=1, keepdims=True) - np.eye(classes)[labels]) / len(x)
        shape = 0.5 * (1 + np.cos(np.pi * (step - recipe.warmup) / (recipe.epochs - recipe.warmup)))
        if recipe.milestones:
            shape = 0.1 ** sum(step >= epoch for epoch in recipe.milestones)
        elif step < recipe.warmup:
            shape = step / recipe.warmup
        for i, (values, gradient) in enumerate([(w, rows.T @ error), (b, error.sum(axis=0))]):
            update = gradient + decay * values
            if recipe.optimizer == "lars" and i == 0:
                update *= 0.001 * np.linalg.norm(values) / np.linalg.norm(update)
            moments[i] = 0.9 * moments[i] + update
            values -= rate * shape * (update + 0.9 * moments[i] if recipe.nesterov else moments[i])
    if recipe.norm:
        w = w / np.sqrt(x.var(axis=0) + 1e-6)[:, None]
        b = b - x.mean(axis=0) @ w
    return w, b


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe((), 8, 1000, nesterov=True),
        Recipe((), 8, 1000, scaled=False, milestones=(3, 6)),
        Recipe((), 12, 1000, "lars", warmup=3, norm=True),
    ],
    ids=["nesterov", "milestones", "lars"],
)
def test_each_head_of_a_grid_is_that_of_a_loop(clusters, recipe):
    x, labels, _, _ = clusters
    grid = [(0.3, 0.0), (2.0, 0.01), (0.05, 0.1)]
    for (rate, decay), (kernel, bias) in zip(grid, fit(x[None], labels, 3, recipe, grid), strict=True):
        expected = by_hand(x, labels, recipe, rate, decay)
        np.testing.assert_allclose(kernel, expected[0], rtol=2e-3, atol=2e-5)
        np.testing.assert_allclose(bias, expected[1], rtol=2e-3, atol=2e-5)


def test_with_enough_steps_it_is_logistic_regression(clusters):
    """Of an L2 penalty on kernel and bias, decay / 2 · |w|², which scikit-learn has with the bias as a feature."""
    x, labels, test, _ = clusters
    ((kernel, bias),) = fit(x[None], labels, 3, Recipe((), 3000, 1000, scaled=False), [(0.3, 0.05)])
    ones = lambda x: np.append(x, np.ones((len(x), 1)), axis=1)  # noqa: E731
    exact = LogisticRegression(C=1 / (0.05 * len(x)), fit_intercept=False, max_iter=1000, tol=1e-8).fit(ones(x), labels)
    np.testing.assert_allclose(kernel, exact.coef_[:, :-1].T, atol=2e-3)
    np.testing.assert_allclose(bias, exact.coef_[:, -1], atol=2e-3)
    assert (predict((kernel, bias), test) == exact.predict(ones(test))).mean() > 0.98


def test_the_validation_examples_choose_and_the_test_examples_do_not(clusters):
    """Of rates of which only one learns; whatever the test's labels are, the same is predicted."""
    train, labels, test, test_labels = clusters
    recipe = Recipe((1e-7, 0.5, 1e-6), 40, 32, decays=(0.0, 1e3))
    right, rate, decay = sgd_probe(*clusters, recipe)
    assert (rate, decay) == (0.5, 0.0) and right.accuracy > 0.75
    others, rate, decay = sgd_probe(train, labels, test, (test_labels + 1) % 3, recipe)
    assert (rate, decay) == (0.5, 0.0) and not (right.correct & others.correct).any()


def test_of_several_features_those_are_chosen_that_tell_validation_examples_apart(clusters):
    train, labels, test, test_labels = clusters
    noise = np.random.RandomState(1).randn(250, 5).astype(np.float32)
    several = {"noise": Features(noise[:150], noise[150:]), "signal": Features(train, test)}
    chosen = probe_of_several(several, labels, test_labels, Recipe((0.5,), 40, 32))
    assert chosen.features == "signal" and chosen.score.accuracy > 0.75
    np.testing.assert_array_equal(chosen.score.correct, sgd_probe(*clusters, Recipe((0.5,), 40, 32))[0].correct)


@pytest.mark.parametrize("norm", [False, True])
def test_heads_see_one_crop_of_each_example_in_each_epoch(clusters, norm):
    """Where all crops are the same it is as without; where only some of them tell a class, so much is learnt."""
    train, labels, test, test_labels = clusters
    recipe = Recipe((0.1, 0.5), 60, 32, norm=norm)
    same = Features(train, test, np.stack([train] * 3))
    plain = sgd_probe(*clusters, recipe)
    of_same = probe_of_several({"": same}, labels, test_labels, recipe)
    assert of_same.rate == plain[1] and (of_same.score.correct == plain[0].correct).mean() > 0.97
    blind = np.zeros_like(train)
    some = probe_of_several({"": Features(blind, test, np.stack([blind, train]))}, labels, test_labels, recipe)
    assert some.score.accuracy > plain[0].accuracy - 0.15
    none = probe_of_several({"": Features(train, test, np.stack([blind, blind]))}, labels, test_labels, recipe)
    assert none.score.accuracy < 0.5


@pytest.mark.parametrize("name", RECIPES)
def test_every_published_recipe_runs_and_says_what_it_is(clusters, name):
    """On few examples and short, but for SimSiam's, whose steps are the least; where features are normalised, their
    scale does not matter."""
    train, labels, test, test_labels = clusters
    recipe = replace(RECIPES[name], epochs=5000 if name == "simsiam" else 20, warmup=0)
    score, rate, decay = sgd_probe(*clusters, recipe)
    assert rate in recipe.rates and decay in recipe.decays and 0.2 < score.accuracy < 1
    assert ("BatchNorm" in str(recipe)) == recipe.norm and f"{recipe.epochs} epochs" in str(recipe)
    if recipe.norm:
        again, _, _ = sgd_probe(100 * train + 7, labels, 100 * test + 7, test_labels, recipe)
        assert (again.correct == score.correct).mean() > 0.95


def test_classes_with_one_example_and_labels_that_are_all_the_same():
    x = np.eye(3, dtype=np.float32)
    assert sgd_probe(x, np.arange(3), x, np.arange(3), Recipe((1.0, 10.0), 50, 8, scaled=False))[0].accuracy == 1
    with pytest.raises(ValueError, match="all 3 labels to learn from are the same"):
        sgd_probe(x, np.zeros(3, int), x, np.zeros(3, int), RECIPES["grid"])
