"""CPC, van den Oord et al., 2018, as in Rivière et al., 2020.

    python -m ssljax.train --config=configs/speech/cpc.py:demo --workdir=runs/cpc

| variant  | data                           | encoder            | hardware    | expected                   | status  |
|----------|--------------------------------|--------------------|-------------|----------------------------|---------|
| `:demo`  | 480 spoken digits, embedded    | conv 48 + GRU 64   | 2 CPU cores | docs/results.md            | run     |
| `:fsdd`  | npz:PATH, all 2,700 digits     | conv 48 + GRU 64   | 2 CPU cores | docs/results.md            | run     |
| `:paper` | folder:PATH, LibriSpeech 100 h | conv 512 + GRU 256 | 8 GPUs      | phones 64.6 %, by frames   | not run |
"""

from ssljax.config import FSDD, librispeech_config, spoken_digits_config, variant_of


def demo():
    """Six frames of 20 ms are foretold, as much time as the paper's twelve of 10 ms."""
    config = spoken_digits_config("cpc", steps=2200)
    config.encoder.update(name="cpc", width=48, context_width=64)
    config.method.update(steps=6, negatives=16, within=True)
    config.optimizer.warmup_epochs = 5.0
    return config


def fsdd():
    """All recordings of the Free Spoken Digit Dataset, joined in one file, by their official split."""
    config = demo()
    config.data.update(FSDD)
    config.optimizer.warmup_epochs = 1.0
    return config


def paper():
    """The paper's networks and windows of 20,480 samples, on the part of 100 hours; Adam at 2e-4, batches of 64 (eight
    on each of eight devices), and as many steps as make 200 times these hours, of which the rate rises over the first
    ten, as linear predictors need it. Negatives are of the window itself; the paper's are of the same speaker."""
    config = librispeech_config("cpc", crop=1.28, batch_size=64, steps=879_000)
    config.data.train_split = "train-clean-100"
    config.encoder.update(name="cpc", width=512, context_width=256)
    config.method.within = True
    config.optimizer.update(learning_rate=2e-4, b2=0.999, weight_decay=0.0, schedule="constant", warmup_steps=43_950)
    return config


def get_config(variant=None):
    return variant_of({"demo": demo, "fsdd": fsdd, "paper": paper}, variant)
