"""Fine-tuning by letters: words against PyTorch-like paths counted one by one, and what it starts from."""

from itertools import product
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.methods.speech.ctc import CTC, edits, heard
from ssljax.methods.speech.wav2vec2 import Wav2Vec2
from ssljax.models import make_encoder

ENCODER = make_encoder("wav2vec2_micro", width=8, depth=1, heads=2, hidden=8, positional_kernel=4, segments=2)
TEACHER = Wav2Vec2(ENCODER)


def collapsed(path):
    """Letters of a path: runs are one letter, and blanks none."""
    runs = [symbol for symbol, before in zip(path, (None, *path), strict=False) if symbol != before]
    return tuple(symbol for symbol in runs if symbol)


def test_a_word_is_as_likely_as_all_the_ways_to_say_it(monkeypatch):
    """Every path of symbols over the clip's frames, those after its end left out; a double letter needs a blank."""
    words = ("ab", "aa", "b")
    method, rng = CTC(ENCODER, TEACHER, words=words), np.random.RandomState(0)
    frames = (5, 4)
    lengths = jnp.array([160 * n + 400 for n in frames])
    assert [ENCODER.frames(int(n)) for n in lengths] != [0, 0]
    logits = rng.randn(2, 8, 3).astype(np.float32)
    monkeypatch.setattr(CTC, "logits", lambda *_: jnp.asarray(logits))
    found = method.classify({}, {"length": lengths})
    spelt = [(1, 2), (1, 1), (2,)]
    for row, clip, samples in zip(found, logits, lengths, strict=True):
        n = int(ENCODER.frames(int(samples)))
        chance = np.exp(clip) / np.exp(clip).sum(axis=-1, keepdims=True)
        total = dict.fromkeys(spelt, 0.0)
        for path in product(range(3), repeat=n):
            if collapsed(path) in total:
                total[collapsed(path)] += np.prod(chance[np.arange(n), list(path)])
        np.testing.assert_allclose(row, np.log([total[word] for word in spelt]), rtol=1e-4)


def test_a_word_that_is_too_long_for_its_clip_counts_nothing(monkeypatch):
    """Of two clips of "aa", the second has two frames, where a blank between its letters needs a third."""
    method, logits = CTC(ENCODER, TEACHER, words=("ab", "aa")), jnp.zeros((2, 5, 3))
    context = SimpleNamespace(context=jnp.zeros((2, 5, 8)))
    monkeypatch.setattr("ssljax.methods.speech.ctc.run", lambda *_, **__: (context, {}))
    monkeypatch.setattr("ssljax.methods.speech.ctc.infer", lambda linear, params, *_: params)
    lengths, keys = jnp.array([160 * 4 + 400, 160 + 400]), None

    def loss(logits):
        views = None, lengths, None, jnp.array([1, 1]), keys
        return method.loss({"encoder": {}, "classifier": logits}, None, views, keys, None)

    (value, aux), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(logits)
    ways = sum(collapsed(path) == (1, 1) for path in product(range(3), repeat=5))
    np.testing.assert_allclose(value, -np.log(ways / 3**5) / 2, rtol=1e-5)
    assert aux["metrics"]["too_long"] == 0.5 and (gradient[1] == 0).all() and (gradient[0] != 0).any()


def test_letters_are_those_of_the_words():
    method = CTC(ENCODER, TEACHER, words=("two", "one"))
    assert method.letters == ("e", "n", "o", "t", "w")
    letters, padding = CTC(ENCODER, TEACHER, words=("two", "we")).spelling()
    assert letters.tolist() == [[3, 4, 2], [4, 1, 0]] and padding.tolist() == [[False] * 3, [False, False, True]]


def test_errors_are_counted_as_editing_a_word_by_hand():
    """Random frames against the recursion for the distance, on words of several lengths."""

    def distance(a, b):
        if not a or not b:
            return len(a) + len(b)
        change = distance(a[1:], b[1:]) + (a[0] != b[0])
        return min(change, distance(a[1:], b) + 1, distance(a, b[1:]) + 1)

    rng, lengths = np.random.RandomState(0), np.array([0, 1, 4, 6, 7, 7])
    logits = rng.randn(6, 7, 3)
    meant, letters = rng.randint(1, 3, (6, 4)), np.array([1, 4, 2, 3, 4, 3])
    padding, after = np.arange(4) >= letters[:, None], np.arange(7) >= lengths[:, None]
    found = edits(*heard(jnp.asarray(logits), jnp.asarray(after)), jnp.asarray(meant), jnp.asarray(padding))
    said = [collapsed(clip[:n].argmax(axis=-1)) for clip, n in zip(logits, lengths, strict=True)]
    expected = [distance(x, tuple(y[:n])) for x, y, n in zip(said, meant, letters, strict=True)]
    assert found.tolist() == expected and len(set(expected)) > 2


def test_it_starts_from_the_teachers_encoder():
    batch = {"audio": jnp.zeros((2, 1600)), "length": jnp.array([1600, 1600])}

    def filled(method, number):
        shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
        return jax.tree.map(lambda x: np.full(x.shape, number), shapes)

    method = CTC(ENCODER, TEACHER, words=("two", "one"))
    begun = method.begin(filled(method, 0), filled(TEACHER, 1)).params
    assert all((x == 1).all() for x in jax.tree.leaves(begun["encoder"]))
    assert all((x == 0).all() for x in jax.tree.leaves(begun["classifier"]))
    scratch = CTC(ENCODER, TEACHER, True, ("two", "one")).begin(filled(method, 0), filled(TEACHER, 1)).params
    assert all((x == 0).all() for x in jax.tree.leaves(scratch))
    with pytest.raises(ValueError, match="the teacher's encoder is another"):
        method.begin(filled(method, 0), filled(Wav2Vec2(ENCODER.clone(hidden=16)), 1))


@pytest.mark.parametrize(
    "teacher, words, sentence",
    [
        (ENCODER, ("a", "b"), "CTC starts from a run of 'wav2vec2', but .* is one of Wav2Vec2"),
        (TEACHER, ("a",), "must be at least 2 words, none empty"),
        (TEACHER, ("a", ""), "must be at least 2 words, none empty"),
    ],
)
def test_what_cannot_be_is_said(teacher, words, sentence):
    with pytest.raises(ValueError, match=sentence):
        CTC(ENCODER, teacher, words=words)
