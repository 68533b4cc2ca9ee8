"""wav2vec 2.0, Baevski et al., 2020.

    python -m ssljax.train --config=configs/speech/wav2vec2.py:demo --workdir=runs/wav2vec2
    python -m ssljax.train --config=configs/speech/wav2vec2.py:ctc_demo --config.method.teacher=runs/wav2vec2 \\
        --workdir=runs/ctc
    python -m ssljax.evaluate --workdir=runs/ctc --protocol=objective

| variant     | data                          | encoder        | hardware          | expected                | status  |
|-------------|-------------------------------|----------------|-------------------|-------------------------|---------|
| `:demo`     | 480 spoken digits, embedded   | wav2vec2_micro | 2 CPU cores       | docs/results.md         | run     |
| `:ctc_demo` | a quarter of the labels       | the teacher's  | 2 CPU cores       | docs/results.md         | run     |
| `:fsdd`     | npz:PATH, all 2,700 digits    | wav2vec2_micro | 2 CPU cores       | docs/results.md         | run     |
| `:paper`    | folder:PATH, LibriSpeech      | wav2vec2_base  | 64 V100, 1.6 days | WER with labels         | not run |
| `:large`    | folder:PATH, LibriSpeech      | wav2vec2_large | 128 V100          | WER with labels         | not run |
"""

from ssljax.config import FSDD, LIBRISPEECH_CLIPS, librispeech_config, spoken_digits_config, variant_of


def demo():
    config = spoken_digits_config("wav2vec2", steps=1500)
    config.encoder.name = "wav2vec2_micro"
    config.method.update(dim=64, entries=32, codebook_dim=64, span=5, distractors=20, gumbel=(2.0, 0.5, 0.999))
    config.optimizer.warmup_epochs = 5.0
    return config


def ctc_demo():
    """Fine-tuning on a quarter of the labels: the letters of the words; the convolutions stay, as in the authors'. The
    floor is the same with --config.method.scratch=True."""
    config = spoken_digits_config("ctc", steps=300)
    config.encoder.name = "wav2vec2_micro"
    config.data.update(crop=0.0, labelled=0.25)
    config.optimizer.update(learning_rate=1e-3, warmup_epochs=5.0, freeze=("features",))
    return config


def fsdd():
    """All recordings of the Free Spoken Digit Dataset, joined in one file, by their official split."""
    config = demo()
    config.data.update(FSDD)
    config.optimizer.warmup_epochs = 1.0
    return config


def paper():
    """The authors' Base on all 960 hours: 400,000 steps of 1.6 hours in crops of 15.6 seconds, of which the first
    32,000 warm up; Adam with β₂ 0.98 and a decay of 0.01, the rate falling linearly. A clip shorter than a crop is
    followed by others of its speaker; in the authors' batches all are cut to the shortest."""
    config = librispeech_config("wav2vec2", crop=15.625, batch_size=384, steps=400_000)
    config.encoder.update(name="wav2vec2_base", scan=True)
    config.optimizer.update(learning_rate=5e-4, b2=0.98, weight_decay=0.01, schedule="linear")
    config.optimizer.warmup_epochs = 32_000 * 384 / LIBRISPEECH_CLIPS
    return config


def large():
    """The authors' Large on all 960 hours: LayerNorm, no dropout, a space of 768, colder codes, no penalty; the paper's
    rate (that of the authors' file, 5e-3, is not it)."""
    config = paper()
    config.data.update(crop=20.0, longest=20.0, normalise=True)
    config.batch_size, config.steps = 512, 250_000
    config.encoder.update(name="wav2vec2_large", remat="blocks")
    config.method.update(dim=768, codebook_dim=768, dropout=0.0, gumbel=(2.0, 0.1, 0.999995), penalty=0.0)
    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_epochs = 20_000 * 512 / LIBRISPEECH_CLIPS
    return config


def get_config(variant=None):
    return variant_of({"demo": demo, "ctc_demo": ctc_demo, "fsdd": fsdd, "paper": paper, "large": large}, variant)
