"""BYOL, Grill et al., 2020.

    python -m ssljax.train --config=configs/images/byol.py:demo --workdir=runs/byol

| variant     | data              | encoder   | hardware        | expected                | status  |
|-------------|-------------------|-----------|-----------------|-------------------------|---------|
| `:demo`     | embedded images   | ResNet-8  | 2 CPU cores     | docs/results.md         | run     |
| `:cifar10`  | tfds:cifar10      | ResNet-18 | 1 accelerator   | 91.0 % k-NN (lightly)   | not run |
| `:imagenet` | tfds:imagenet2012 | ResNet-50 | 32 accelerators | 74.4 % linear (authors) | not run |
"""

from ssljax.config import demo_config, imagenet_config, lightly_config, variant_of
from ssljax.views.recipes import CIFAR10_MEAN, CIFAR10_STD


def demo():
    config = demo_config("byol", epochs=7.0, batch_size=64)
    config.method.update(projector=(256, 128), predictor=(256, 128), momentum=0.97)
    config.views.update(
        name="byol", size=32, blur=0.0, solarize=0.0, scale=(0.2, 1.0), mean=CIFAR10_MEAN, std=CIFAR10_STD
    )
    return config


def cifar10():
    """lightly's: heads of 512-1024-256 and 1024-256, momentum 0.99. Its loss is a quarter of the paper's, which is
    ours: so with a quarter of its rate, and four times its weight decay, the steps are the same."""
    config = lightly_config("byol")
    config.optimizer.update(learning_rate=0.12 / 4, weight_decay=4 * 5e-4)
    config.method.update(projector=(1024, 256), predictor=(1024, 256), momentum=0.99, momentum_schedule="constant")
    config.views.update(name="byol", size=32, blur=0.0, solarize=0.0, mean=CIFAR10_MEAN, std=CIFAR10_STD)
    return config


def imagenet():
    """The paper's, 1000 epochs: LARS 0.2 · batch / 256 without biases and norms, weight decay 1.5e-6."""
    config = imagenet_config("byol", every=3130)
    config.encoder.name = "resnet50"
    config.views.update(name="byol", size=224)
    config.batch_size = 4096
    config.epochs = 1000.0
    config.optimizer.update(name="lars", learning_rate=0.2, weight_decay=1.5e-6, warmup_epochs=10.0)
    return config


def get_config(variant=None):
    return variant_of({"demo": demo, "cifar10": cifar10, "imagenet": imagenet}, variant)
