"""Barlow Twins, Zbontar et al., 2021.

    python -m ssljax.train --config=configs/images/barlow_twins.py:demo --workdir=runs/barlow_twins

| variant     | data              | encoder   | hardware        | expected                | status  |
|-------------|-------------------|-----------|-----------------|-------------------------|---------|
| `:demo`     | embedded images   | ResNet-8  | 2 CPU cores     | docs/results.md         | run     |
| `:cifar10`  | tfds:cifar10      | ResNet-18 | 1 accelerator   | 85.9 % k-NN (lightly)   | not run |
| `:imagenet` | tfds:imagenet2012 | ResNet-50 | 32 accelerators | 73.5 % linear (authors) | not run |
"""

from ssljax.config import demo_config, imagenet_config, lightly_config, variant_of
from ssljax.views.recipes import CIFAR10_MEAN, CIFAR10_STD


def demo():
    config = demo_config("barlow_twins", epochs=8.0)
    config.method.update(projector=(256, 256), weight=0.01, scale=0.1)
    config.views.update(
        name="byol", size=32, blur=0.0, solarize=0.0, scale=(0.2, 1.0), mean=CIFAR10_MEAN, std=CIFAR10_STD
    )
    return config


def cifar10():
    """lightly's: two layers of 2048."""
    config = lightly_config("barlow_twins")
    config.method.update(projector=(2048, 2048), weight=0.005)
    config.views.update(name="byol", size=32, blur=0.0, solarize=0.0, mean=CIFAR10_MEAN, std=CIFAR10_STD)
    return config


def imagenet():
    """The paper's: LARS with 0.2 · batch / 256 for weights and 0.0048 · batch / 256 for biases and norms."""
    config = imagenet_config("barlow_twins", every=6260)
    config.encoder.update(name="resnet50", zero_init_residual=True)
    config.views.update(name="byol", size=224)
    config.batch_size = 2048
    config.epochs = 1000.0
    config.optimizer.update(name="lars", learning_rate=0.2, weight_decay=1e-6, warmup_epochs=10.0, final=0.001)
    config.optimizer.rates = {"bias": 0.024, "scale": 0.024}
    return config


def get_config(variant=None):
    return variant_of({"demo": demo, "cifar10": cifar10, "imagenet": imagenet}, variant)
