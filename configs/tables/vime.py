"""VIME, Yoon et al., 2020: its self-supervised part.

    python -m ssljax.train --config=configs/tables/vime.py:demo --workdir=runs/vime

| variant  | data                     | encoder          | hardware    | expected           | status  |
|----------|--------------------------|------------------|-------------|--------------------|---------|
| `:demo`  | embedded part of Adult   | MLP 1 x 256      | 2 CPU cores | not in the results | run     |
| `:paper` | csv:PATH or parquet:PATH | MLP of one layer | 1 CPU core  | nothing published  | not run |

With the settings of `:demo`, all of Adult (--config.data.source=csv:PATH): docs/results.md.
"""

from ssljax.config import table_config, variant_of


def demo():
    config = table_config("vime", epochs=40.0)
    config.encoder.depth = 1
    config.data.scale = "minmax"
    return config


def paper():
    """The authors': one layer as wide as there are columns (`--config.encoder.width`), RMSprop with batches of 128, 10
    epochs. Here by Adam, with the corruption drawn anew in every epoch."""
    config = demo()
    config.epochs = 10.0
    config.data.source = "csv:PATH"
    return config


def get_config(variant=None):
    return variant_of({"demo": demo, "paper": paper}, variant)
