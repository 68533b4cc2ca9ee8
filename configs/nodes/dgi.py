"""DGI, Veličković et al., 2019.

    python -m ssljax.train --config=configs/nodes/dgi.py:demo --workdir=runs/dgi

| variant  | data              | encoder     | hardware    | expected             | status               |
|----------|-------------------|-------------|-------------|----------------------|----------------------|
| `:demo`  | Cora, embedded    | GCN 1 x 256 | 2 CPU cores | not in the results   | run                  |
| `:paper` | Cora, or npz:PATH | GCN 1 x 512 | 1 device    | 82.3 ± 0.6 % on Cora | run: docs/results.md |

A batch of 1 is for one device: of several GPUs, CUDA_VISIBLE_DEVICES=0 leaves one to be seen. Or a batch has as many
corruptions as there are devices, whose loss is averaged (--config.batch_size=4).
"""

from ssljax.config import base_config, variant_of


def paper():
    """The authors': one graph convolution of 512 with a PReLU, Adam at 1e-3 without decay.

    They stop where the loss has not fallen for twenty steps, and go back to the best step; here a run has 200 steps.
    """
    config = base_config("dgi")
    config.encoder.name = "gcn"
    config.batch_size, config.steps = 1, 200
    config.optimizer.update(
        name="adamw", learning_rate=1e-3, scaling="none", b2=0.999, weight_decay=0.0, schedule="constant"
    )
    config.log.every = 10
    config.evaluate.every = config.checkpoint.every = 50
    return config


def demo():
    config = paper()
    config.encoder.width = 256
    return config


def get_config(variant=None):
    return variant_of({"demo": demo, "paper": paper}, variant)
