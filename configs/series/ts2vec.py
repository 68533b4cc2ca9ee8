"""TS2Vec, Yue et al., 2022.

    python -m ssljax.train --config=configs/series/ts2vec.py:demo --workdir=runs/ts2vec

| variant     | data                      | encoder         | hardware    | expected                         | status  |
|-------------|---------------------------|-----------------|-------------|----------------------------------|---------|
| `:demo`     | spoken digits, embedded   | dilated 10 x 64 | 2 CPU cores | docs/results.md                  | run     |
| `:paper`    | ts:FOLDER, csv:, npz:PATH | dilated 10 x 64 | 1 device    | 82.9 % over UCR, 70.4 % over UEA | run     |
| `:forecast` | csv:PATH, one long series | dilated 10 x 64 | 1 device    | ETTh1, 24 hours: 0.599 squared   | run     |

`:paper` was run on BasicMotions alone, `:forecast` on ETTh1 with shorter pieces, which also came near the squared error
above: docs/results.md. The last block has 320 channels.
"""

from ssljax.config import base_config, variant_of


def paper():
    """The authors', for classification: 200 steps of 8 series, AdamW at 1e-3 without a schedule; on sets of more than
    100,000 numbers they make 600 (`--config.steps=600`), and of series longer than 3,000 steps they make pieces
    (`--config.data.length=3000`)."""
    config = base_config("ts2vec")
    config.data.source = "ts:FOLDER"
    config.encoder.name = "dilated"
    config.batch_size, config.steps = 8, 200
    config.optimizer.update(
        name="adamw",
        learning_rate=1e-3,
        scaling="none",
        b2=0.999,
        weight_decay=0.01,
        exclude=(),
        schedule="constant",
    )
    config.log.every = 10
    config.evaluate.every = config.checkpoint.every = 100
    return config


def demo():
    config = paper()
    config.data.source = "demo"
    return config


def forecast():
    """The authors', for ETTh1: twelve months of hours to train on, four to choose by and four to test, all channels and
    the time of day and year; for one channel `--config.data.columns="('OT',)"` and, as these are fewer numbers,
    `--config.steps=200`. Then `python -m ssljax.forecast`. (The authors draw pieces of 3,000 steps from two halves.)"""
    config = paper()
    config.data.update(source="csv:PATH", parts=(8640, 2880, 2880), time="date", length=3000)
    config.steps = 600
    return config


def get_config(variant=None):
    return variant_of({"demo": demo, "forecast": forecast, "paper": paper}, variant)
