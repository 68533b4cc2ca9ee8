"""BERT's masks: exact counts, the three fates of a token, and that each is drawn from its example's key alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.collectives import example_keys
from ssljax.views.text import bert_mask, masked_counts

VOCABULARY, PAD, CLS, SEP, MASK = 40, 0, 1, 2, 3
N, TOKENS = 3000, 24
mask = jax.jit(
    partial(bert_mask, vocabulary=VOCABULARY, mask_id=MASK, special=(PAD, CLS, SEP)), static_argnames=("most", "ratio")
)


def texts(lengths, tokens):
    """[CLS], ordinary tokens, [SEP], padding."""
    ids = np.random.RandomState(0).randint(4, VOCABULARY, size=(len(lengths), tokens))
    ids[:, 0] = CLS
    ids[np.arange(len(lengths)), lengths - 1] = SEP
    valid = np.arange(tokens) < lengths[:, None]
    return np.where(valid, ids, PAD), valid


LENGTHS = np.random.RandomState(1).randint(3, TOKENS + 1, N)
IDS, VALID = texts(LENGTHS, TOKENS)
KEYS = example_keys(jax.random.key(0), N)


@pytest.fixture(scope="module")
def masked():
    """In NumPy; and which tokens are to be predicted."""
    made = jax.tree.map(np.asarray, mask(KEYS, IDS, VALID))
    hidden = np.zeros((N, TOKENS), bool)
    for row in range(N):
        hidden[row, made.positions[row][made.weights[row] == 1]] = True
    return made, hidden


@pytest.mark.parametrize("length, expected", [(3, 1), (10, 2), (30, 4), (50, 8), (128, 19), (512, 20)])
def test_counts_are_those_of_the_authors(length, expected):
    """0.15 * 10 = 1.5 and 0.15 * 30 = 4.5 are rounded to the even number; 0.15 * 512 is cut to 20."""
    assert masked_counts(512)[length] == expected


@pytest.mark.parametrize("ratio, most", [(0.15, 20), (0.4, 20), (0.4, 3)])
def test_every_text_has_its_exact_number_of_predictions(ratio, most):
    made = mask(KEYS, IDS, VALID, ratio=ratio, most=most)
    slots = min(most, max(1, round(ratio * TOKENS)))
    assert made.positions.shape == made.targets.shape == made.weights.shape == (N, slots)
    expected = [min(most, max(1, round(ratio * n)), n - 2) for n in LENGTHS]
    np.testing.assert_array_equal(made.weights.sum(axis=1), expected)
    assert made.weights.dtype == jnp.float32 and set(np.unique(made.weights)) <= {0.0, 1.0}


def test_slots_name_other_tokens_each_and_what_stood_there(masked):
    made, hidden = masked
    assert all(len(set(row)) == len(row) for row in made.positions)
    np.testing.assert_array_equal(made.targets, np.take_along_axis(IDS, made.positions, axis=1))
    assert (np.diff(made.weights, axis=1) <= 0).all()  # left-over slots come last
    np.testing.assert_array_equal(made.inputs[~hidden], IDS[~hidden])


def test_special_tokens_and_padding_are_never_predicted_and_never_drawn(masked):
    made, hidden = masked
    assert not np.isin(IDS[hidden], [PAD, CLS, SEP]).any()
    changed = made.inputs[(made.inputs != IDS) & (made.inputs != MASK)]
    assert len(changed) and not np.isin(changed, [PAD, CLS, SEP, MASK]).any()
    assert set(changed) == set(range(4, VOCABULARY))


def test_eight_in_ten_are_masked_one_is_random_and_one_stays(masked):
    """Of some 6,000; a random token is the old one once in 36. Five standard errors."""
    made, hidden = masked
    count, seen, old = hidden.sum(), made.inputs[hidden], IDS[hidden]
    stays = 0.1 + 0.1 / 36
    for share, expected in ((np.mean(seen == MASK), 0.8), (np.mean(seen == old), stays)):
        assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / count)


def test_a_token_and_its_neighbour_are_chosen_as_often_as_by_chance():
    """Three of the 22 ordinary tokens of texts of 24, and two together with (3/22)(2/21); five standard errors."""
    ids, valid = texts(np.full(N, TOKENS), TOKENS)
    made = mask(KEYS, ids, valid, ratio=0.125)
    hidden = np.zeros((N, TOKENS))
    np.put_along_axis(hidden, np.asarray(made.positions), 1, axis=1)
    ordinary = hidden[:, 1:-1]
    together = ordinary.T @ ordinary / N
    expected = np.where(np.eye(22) == 1, 3 / 22, 3 / 22 * 2 / 21)
    assert (np.abs(together - expected) < 5 * np.sqrt(expected * (1 - expected) / N)).all()


def test_a_mask_depends_on_its_examples_key_alone(masked):
    made, _ = masked
    some = mask(KEYS[5:8], IDS[5:8], VALID[5:8])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[5:8]), some, made)
    other = mask(example_keys(jax.random.key(1), N), IDS, VALID)
    assert np.mean(np.all(other.inputs == made.inputs, axis=1)) < 0.2


def test_fates_of_neighbours_are_independent():
    """Were a text's tokens to share their fate, all or none would be masked: 0.8² of pairs are, not 0.8."""
    made = mask(KEYS, *texts(np.full(N, TOKENS), TOKENS), ratio=0.1)
    pairs = np.take_along_axis(np.asarray(made.inputs), np.asarray(made.positions), axis=1) == MASK
    assert pairs.shape == (N, 2)
    assert abs(np.mean(pairs.all(axis=1)) - 0.64) < 5 * np.sqrt(0.64 * 0.36 / N)


@pytest.mark.parametrize("extra", [1, 13])
def test_padding_changes_nothing(masked, extra):
    """Neither how much there is of it, nor what stands in it."""
    made, hidden = masked
    longer = np.pad(IDS, ((0, 0), (0, extra)), constant_values=17)
    again = mask(KEYS, np.where(np.pad(VALID, ((0, 0), (0, extra))), longer, 17), np.pad(VALID, ((0, 0), (0, extra))))
    np.testing.assert_array_equal(np.where(VALID, again.inputs[:, :TOKENS], PAD), made.inputs)
    counts = made.weights.sum(axis=1)
    np.testing.assert_array_equal(again.weights.sum(axis=1), counts)
    for row in range(50):
        number = int(counts[row])
        np.testing.assert_array_equal(again.positions[row, :number], made.positions[row, :number])


def test_without_valid_all_tokens_are_the_text():
    ids = np.full((4, 20), 9)
    made = mask(KEYS[:4], ids)
    np.testing.assert_array_equal(made.weights.sum(axis=1), 3)
    jax.tree.map(np.testing.assert_array_equal, made, mask(KEYS[:4], ids, np.ones((4, 20), bool)))


def test_a_text_of_special_tokens_or_of_none_has_nothing_to_predict():
    ids = np.array([[CLS, SEP, PAD, PAD], [PAD] * 4])
    made = mask(KEYS[:2], ids, ids != PAD)
    np.testing.assert_array_equal(made.weights, 0.0)
    np.testing.assert_array_equal(made.inputs, ids)


def test_shares_may_be_others():
    ids, valid = texts(np.full(20, 12), 12)
    call = partial(bert_mask, KEYS[:20], ids, valid, vocabulary=VOCABULARY, mask_id=MASK, special=(PAD, CLS, SEP))
    all_masked = call(masked=1.0, random=0.0)
    np.testing.assert_array_equal((all_masked.inputs == MASK).sum(axis=1), 2)
    np.testing.assert_array_equal(call(masked=0.0, random=0.0).inputs, ids)
    assert not (call(masked=0.0, random=1.0).inputs == MASK).any()


def test_arguments_that_make_no_sense_are_refused():
    call = partial(bert_mask, vocabulary=VOCABULARY, mask_id=MASK)
    for wrong in ((KEYS[:2], IDS[:3]), (KEYS[:3], IDS[:3], VALID[:2]), (KEYS[:3], IDS[0])):
        with pytest.raises(ValueError, match="must be .batch, tokens., not empty") as error:
            call(*wrong)
        assert all(str(x.shape) in str(error.value) for x in wrong)
    for field in ({"ratio": 0.0}, {"ratio": 1.5}, {"most": 0}, {"masked": 0.95}, {"random": -0.1}):
        ((name, value),) = field.items()
        with pytest.raises(ValueError, match=f"{name}={value}"):
            call(KEYS, IDS, VALID, **field)
    with pytest.raises(ValueError, match="mask_id 40 and special .1,. must be some of the 40 ids"):
        call(KEYS, IDS, VALID, mask_id=40, special=(1,))
