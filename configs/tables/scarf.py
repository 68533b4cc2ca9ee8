"""SCARF, Bahri et al., 2022.

    python -m ssljax.train --config=configs/tables/scarf.py:demo --workdir=runs/scarf

| variant  | data                     | encoder     | hardware    | expected           | status  |
|----------|--------------------------|-------------|-------------|--------------------|---------|
| `:demo`  | embedded part of Adult   | MLP 4 x 256 | 2 CPU cores | not in the results | run     |
| `:paper` | csv:PATH or parquet:PATH | MLP 4 x 256 | 1 CPU core  | nothing published  | not run |

With the settings of `:demo`, all of Adult (--config.data.source=csv:PATH): docs/results.md.
"""

from ssljax.config import table_config, variant_of


def demo():
    return table_config("scarf", epochs=40.0)


def paper():
    """The paper's, for a table of your own: 0.6 of the columns are replaced, temperature 1, at most 1,000 epochs.

    The paper stops where the loss of a held-out part has not fallen for three epochs; here the checkpoint with the best
    online k-NN is kept beside the newest.
    """
    config = table_config("scarf", epochs=1000.0)
    config.data.source = "csv:PATH"
    return config


def get_config(variant=None):
    return variant_of({"demo": demo, "paper": paper}, variant)
