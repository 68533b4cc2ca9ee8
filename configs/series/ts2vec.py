"""TS2Vec, Yue et al., 2022.

    python -m ssljax.train --config=configs/series/ts2vec.py:demo --workdir=runs/ts2vec

| variant  | data                      | encoder         | hardware    | expected                          | status  |
|----------|---------------------------|-----------------|-------------|-----------------------------------|---------|
| `:demo`  | Japanese Vowels, embedded | dilated 10 x 64 | 2 CPU cores | docs/results.md                   | run     |
| `:paper` | ts:FOLDER, csv:, npz:PATH | dilated 10 x 64 | 1 device    | 82.9 % over UCR, 70.4 % over UEA  | run     |

`:paper` was run on the demo's data alone. The last block has 320 channels.
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


def get_config(variant=None):
    return variant_of({"demo": demo, "paper": paper}, variant)
