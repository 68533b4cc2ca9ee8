"""SCARF's and VIME's losses against loops that follow the papers, on one device and on four."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.losses import info_nce, vime

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
RNG = np.random.RandomState(0)
Z, CORRUPTED = (RNG.standard_normal((8, 6)).astype(np.float32) for _ in range(2))
LOGITS, MASK = RNG.standard_normal((8, 5)).astype(np.float32), RNG.randint(0, 2, (8, 5)).astype(np.float32)
GUESS, TARGET = (RNG.uniform(size=(8, 7)).astype(np.float32) for _ in range(2))


def scarf_loop(z, corrupted, temperature):
    """Bahri et al., algorithm 1, without its constant ln N."""

    def similarity(a, b):
        return a @ b / np.sqrt(a @ a) / np.sqrt(b @ b) / temperature

    losses = []
    for i, anchor in enumerate(z.astype(np.float64)):
        terms = [np.exp(similarity(anchor, other)) for other in corrupted.astype(np.float64)]
        losses.append(-np.log(terms[i] / sum(terms)))
    return np.mean(losses)


def vime_loop(logits, mask, guess, target, alpha):
    entropy = error = 0.0
    for row in range(len(mask)):
        for column in range(mask.shape[1]):
            p = 1 / (1 + np.exp(-np.float64(logits[row, column])))
            entropy -= np.log(p) if mask[row, column] else np.log(1 - p)
        error += np.sum((np.float64(guess[row]) - target[row]) ** 2)
    return entropy / mask.size + alpha * error / target.size


def numerical(loss, arrays, place, step=1e-6):
    """The gradient by one of the arrays, by central differences."""
    found = np.zeros(arrays[place].shape)
    for index in np.ndindex(found.shape):
        sides = []
        for sign in (1, -1):
            moved = [x.astype(np.float64) for x in arrays]
            moved[place][index] += sign * step
            sides.append(loss(*moved))
        found[index] = (sides[0] - sides[1]) / (2 * step)
    return found


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_info_nce_whose_keys_learn_is_scarfs_loss(temperature, shards, value_and_gradients):
    def loss(z, corrupted):
        return info_nce(z, corrupted, temperature=temperature, key_gradient=True, axis="data")

    loop = partial(scarf_loop, temperature=temperature)
    value, gradients = value_and_gradients(loss, shards, Z, CORRUPTED)
    close(value, loop(Z, CORRUPTED))
    for place, gradient in enumerate(gradients):
        np.testing.assert_allclose(gradient, numerical(loop, (Z, CORRUPTED), place), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("alpha", [2.0, 0.5])
def test_vime_equals_the_loop(alpha, shards, value_and_gradients):
    loop = lambda logits, guess: vime_loop(logits, MASK, guess, TARGET, alpha)  # noqa: E731
    value, gradients = value_and_gradients(partial(vime, alpha=alpha), shards, LOGITS, MASK, GUESS, TARGET)
    close(value, loop(LOGITS, GUESS))
    for ours, place in ((gradients[0], 0), (gradients[2], 1)):
        np.testing.assert_allclose(ours, numerical(loop, (LOGITS, GUESS), place), rtol=1e-4, atol=1e-6)


def test_both_fall_as_the_answer_comes_nearer():
    def scarf(t):
        return info_nce(Z, t * Z + (1 - t) * CORRUPTED, temperature=1.0, key_gradient=True)

    def of_vime(t):
        return vime(LOGITS + 4 * t * (2 * MASK - 1), MASK, t * TARGET + (1 - t) * GUESS, TARGET)

    for loss in (scarf, of_vime):
        values = [float(loss(t)) for t in (0.0, 0.5, 1.0)]
        assert values == sorted(values, reverse=True) and values[0] > values[-1] + 0.1


def test_half_precision_is_compared_in_float32():
    halves = [jnp.asarray(x, jnp.bfloat16) for x in (LOGITS, MASK, GUESS, TARGET)]
    assert vime(*halves) == vime(*(x.astype(jnp.float32) for x in halves))


@pytest.mark.parametrize(
    "shapes, sentence",
    [
        (((8, 5), (8, 4), (8, 7), (8, 7)), r"mask_logits \(8, 5\) and mask \(8, 4\) must both be \(batch, columns\)"),
        (((8, 5), (8, 5), (8, 7), (8, 1)), r"reconstruction \(8, 7\) and target \(8, 1\) must both be \(batch, dim\)"),
        (((8, 5), (8, 5), (4, 7), (4, 7)), "with the 8 rows of mask"),
    ],
)
def test_shapes_that_do_not_fit_are_named(shapes, sentence):
    with pytest.raises(ValueError, match=sentence):
        jax.eval_shape(vime, *map(jnp.zeros, shapes))
