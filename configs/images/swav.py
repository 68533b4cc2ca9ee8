"""SwAV, Caron et al., 2020.

    python -m ssljax.train --config=configs/images/swav.py:demo --workdir=runs/swav

| variant         | data              | encoder   | hardware        | expected                            | status  |
|-----------------|-------------------|-----------|-----------------|-------------------------------------|---------|
| `:demo`         | embedded images   | ResNet-8  | 2 CPU cores     | docs/results.md                     | run     |
| `:cifar10`      | tfds:cifar10      | ResNet-18 | 1 accelerator   | 88.4 % k-NN (lightly)               | not run |
| `:imagenet`     | tfds:imagenet2012 | ResNet-50 | 64 accelerators | 75.3 % linear, 800 epochs (authors) | not run |
| `:imagenet_256` | tfds:imagenet2012 | ResNet-50 | 4 accelerators  | 74.3 % linear, 400 epochs (authors) | not run |
"""

from ssljax.config import demo_config, imagenet_config, lightly_config, variant_of
from ssljax.views.recipes import CIFAR10_MEAN, CIFAR10_STD


def demo():
    config = demo_config("swav", epochs=5.5, batch_size=64)
    config.method.update(projector=(128, 64), prototypes=64, epsilon=0.02)
    config.views.update(
        name="swav",
        size=32,
        local_crops=2,
        local_size=16,
        local_scale=(0.1, 0.3),
        scale=(0.3, 1.0),
        blur=0.0,
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
    )
    config.optimizer.update(freeze=("prototypes",), freeze_epochs=0.2)
    return config


def cifar10():
    """lightly's: 1e-3 · batch / 128, two crops, 512 prototypes, which never rest; AdamW where theirs is Adam, with the
    same decay of 1e-6."""
    config = lightly_config("swav")
    config.method.update(projector=(512, 128), prototypes=512)
    config.views.update(
        name="swav",
        size=32,
        local_crops=0,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
        blur=0.0,
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
    )
    config.optimizer.update(name="adamw", learning_rate=2e-3, b2=0.999, weight_decay=1e-6)
    return config


def imagenet():
    """The authors', 800 epochs: LARC on everything, 4.8 at a batch of 4096, warmed up from 0.3 in 10 epochs. BatchNorm
    is over the whole batch; theirs was over an eighth of it."""
    config = imagenet_config("swav", every=3130)
    config.encoder.name = "resnet50"
    config.views.name = "swav"
    config.epochs = 800.0
    config.optimizer.update(
        name="larc",
        learning_rate=4.8,
        scaling="none",
        weight_decay=1e-6,
        exclude=(),
        warmup_epochs=10.0,
        start=0.3 / 4.8,
        final=0.001,
        freeze=("prototypes",),
        freeze_epochs=1.0,
    )
    config.batch_size = 4096
    return config


def imagenet_256():
    """The authors' for small batches: a queue of 3840 from epoch 15 on."""
    config = imagenet()
    config.method.update(queue=3840, queue_start=15.0)
    config.batch_size = 256
    config.epochs = 400.0
    config.optimizer.update(learning_rate=0.6, warmup_epochs=0.0, start=0.0)
    return config


def get_config(variant=None):
    return variant_of({"demo": demo, "cifar10": cifar10, "imagenet": imagenet, "imagenet_256": imagenet_256}, variant)
