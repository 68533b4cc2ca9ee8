"""Spans of hidden frames against Hugging Face's; distractors and CPC's negatives are drawn from where they should."""

import jax
import numpy as np
import pytest

from ssljax.collectives import example_keys
from ssljax.views.speech import cpc_negatives, distractors, log_mel, masked_frames, mel_filters, span_mask

DRAWS, FRAMES = 4000, 99


@pytest.fixture(scope="module")
def masks():
    """(mask, index) of many examples."""
    return [np.asarray(x) for x in span_mask(example_keys(jax.random.key(0), DRAWS), FRAMES)]


def runs(masks):
    """Lengths of runs of hidden frames, and the example of each."""
    edges = np.diff(np.pad(masks.astype(int), ((0, 0), (1, 1))), axis=1)
    (example, start), (_, end) = np.nonzero(edges == 1), np.nonzero(edges == -1)
    return end - start, example


def whole_spans(random, frames, share=0.65, length=10):
    """The authors' mask of one example before any frame is uncovered."""
    mask = np.zeros(frames, bool)
    count = max(2, int(share * frames / length + random.uniform()))
    for start in random.choice(frames - length + 1, count, replace=False):
        mask[start : start + length] = True
    return mask


def test_as_many_frames_are_hidden_in_every_example_as_are_on_average_by_hugging_face(golden, masks):
    mask, index = masks
    expected = float(golden("wav2vec2")["masks.mean"])
    assert index.shape == (DRAWS, masked_frames(FRAMES)) and abs(index.shape[1] - expected) < 0.6
    assert 0.48 < masked_frames(249) / 249 < 0.5  # the paper's 49 %
    np.testing.assert_array_equal(np.nonzero(mask)[1].reshape(index.shape), index)


def test_every_frame_is_hidden_as_often_as_by_hugging_face(golden, masks):
    """Less often at the ends, which fewer spans reach. Six standard errors of both."""
    numbers = golden("wav2vec2")
    expected, often = numbers["masks.often"], masks[0].mean(axis=0)
    error = np.sqrt(0.25 / DRAWS + 0.25 / numbers["masks.draws"])
    assert np.abs(often - expected).max() < 6 * error
    assert often[0] < 0.12 and often[-1] < 0.12


def test_runs_are_about_as_long_as_of_whole_spans(masks):
    """In 5 seconds, within 7 %; at most one of an example is of a span that was cut short."""
    lengths, example = runs(masks[0])
    assert np.bincount(example[lengths < 10]).max() == 1
    mask, _ = span_mask(example_keys(jax.random.key(0), 1000), 249)
    random = np.random.RandomState(0)
    whole, _ = runs(np.stack([whole_spans(random, 249) for _ in range(1000)]))
    assert abs(runs(np.asarray(mask))[0].mean() / whole.mean() - 1) < 0.07


@pytest.mark.parametrize("frames, share, length", [(13, 0.65, 3), (20, 0.65, 10), (60, 0.3, 4), (49, 0.8, 10)])
def test_masked_frames_is_the_mean_of_what_spans_cover(frames, share, length):
    random = np.random.RandomState(1)
    counts = [whole_spans(random, frames, share, length).sum() for _ in range(4000)]
    assert abs(masked_frames(frames, share, length) - np.mean(counts)) < 0.5 + 5 * np.std(counts) / 4000**0.5


def test_a_mask_is_its_examples_alone(masks):
    mask, index = span_mask(example_keys(jax.random.key(0), DRAWS)[3:5], FRAMES)
    np.testing.assert_array_equal(mask, masks[0][3:5])
    assert len(np.unique(masks[0][:50], axis=0)) == 50


@pytest.mark.parametrize("frames, share, length", [(9, 0.65, 10), (3, 0.65, 2), (99, 0.0, 10), (99, 0.65, 0)])
def test_spans_that_do_not_fit_are_refused(frames, share, length):
    with pytest.raises(
        ValueError, match=f"spans of {length} with share {share} .*{frames} frames.*: feed more samples"
    ):
        span_mask(example_keys(jax.random.key(0), 2), frames, share, length)


def test_distractors_are_uniform_over_the_other_hidden_frames():
    """Six standard errors over 5 * 5 numbers."""
    drawn = np.asarray(distractors(example_keys(jax.random.key(0), 40), 5, 100))
    assert drawn.shape == (40, 5, 100)
    for own in range(5):
        often = np.bincount(drawn[:, own].ravel(), minlength=5) / 4000
        assert often[own] == 0 and len(often) == 5
        assert np.abs(np.delete(often, own) - 0.25).max() < 6 * np.sqrt(0.25 * 0.75 / 4000)
    assert (drawn[0] != drawn[1]).any() and (drawn[0, 0] != drawn[0, 1]).any()
    alone = distractors(example_keys(jax.random.key(0), 40)[7:8], 5, 100)
    np.testing.assert_array_equal(alone[0], drawn[7])
    with pytest.raises(ValueError, match="there is only 1: mask at least two"):
        distractors(example_keys(jax.random.key(0), 2), 1)


def test_cpc_negatives_are_uniform_over_all_examples_and_other_times():
    batch, frames, windows = 3, 6, 4
    drawn = np.asarray(cpc_negatives(example_keys(jax.random.key(0), 20), batch, frames, windows, 100))
    assert drawn.shape == (20, windows, 100)
    for time in range(windows):
        often = np.bincount(drawn[:, time].ravel(), minlength=batch * frames).reshape(batch, frames) / 2000
        assert (often[:, time] == 0).all() and often.size == batch * frames
        p = 1 / (batch * (frames - 1))
        assert np.abs(np.delete(often, time, axis=1) - p).max() < 6 * np.sqrt(p * (1 - p) / 2000)
    alone = cpc_negatives(example_keys(jax.random.key(0), 20)[7:8], batch, frames, windows, 100)
    np.testing.assert_array_equal(alone[0], drawn[7])
    with pytest.raises(ValueError, match="there is only 1: feed more samples"):
        cpc_negatives(example_keys(jax.random.key(0), 2), batch, 1, 1)


def test_log_mel_is_a_loops_and_nothing_after_the_end_is_heard():
    """The same triangles of the same windows, by NumPy's FFT; the filters' peaks rise with the mel scale."""
    rate, audio = 1000, np.random.RandomState(0).randn(2, 260).astype(np.float32)
    lengths = np.array([260, 131])
    audio[1, 131:] = 7.0
    found, frames = log_mel(audio, lengths, rate, mels=5)
    assert frames.tolist() == [(260 - 25) // 10 + 1, (131 - 25) // 10 + 1]
    filters = mel_filters(rate, 17, 5)
    assert (np.diff(filters.argmax(axis=0)) > 0).all() and (filters.max(axis=0) <= 1).all()
    for clip, spectrogram, length, count in zip(audio, found, lengths, frames, strict=True):
        for t in range(count):
            power = np.abs(np.fft.rfft(clip[:length][10 * t : 10 * t + 25] * np.hanning(25), 32)) ** 2
            np.testing.assert_allclose(spectrogram[t], np.log(power @ filters + 1e-6), rtol=1e-4, atol=1e-4)
    assert log_mel(audio[:, :9], np.array([9, 5]), rate)[1].tolist() == [1, 1]
