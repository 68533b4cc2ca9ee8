"""VICReg, Bardes, Ponce and LeCun, 2022.

    python -m ssljax.train --config=configs/images/vicreg.py:demo --workdir=runs/vicreg

| variant     | data              | encoder   | hardware        | expected                  | status  |
|-------------|-------------------|-----------|-----------------|---------------------------|---------|
| `:demo`     | embedded images   | ResNet-8  | 2 CPU cores     | docs/results.md           | run     |
| `:cifar10`  | tfds:cifar10      | ResNet-18 | 1 accelerator   | nothing at these settings | not run |
| `:imagenet` | tfds:imagenet2012 | ResNet-50 | 32 accelerators | 73.2 % linear (paper)     | not run |
"""

from ssljax.config import demo_config, imagenet_config, lightly_config, variant_of
from ssljax.views.recipes import CIFAR10_MEAN, CIFAR10_STD


def demo():
    config = demo_config("vicreg", epochs=8.0)
    config.method.projector = (256, 256)
    config.views.update(
        name="byol", size=32, blur=0.0, solarize=0.0, scale=(0.2, 1.0), mean=CIFAR10_MEAN, std=CIFAR10_STD
    )
    return config


def cifar10():
    config = lightly_config("vicreg")
    config.method.projector = (2048, 2048, 2048)
    config.views.update(name="byol", size=32, blur=0.0, solarize=0.0, mean=CIFAR10_MEAN, std=CIFAR10_STD)
    return config


def imagenet():
    """The paper's: LARS 0.2 · batch / 256, down to a thousandth of it; biases and norms have neither decay nor LARS."""
    config = imagenet_config("vicreg", every=6260)
    config.encoder.update(name="resnet50", zero_init_residual=True)
    config.views.update(name="byol", size=224)
    config.batch_size = 2048
    config.epochs = 1000.0
    config.optimizer.update(name="lars", learning_rate=0.2, weight_decay=1e-6, warmup_epochs=10.0, final=0.001)
    return config


def get_config(variant=None):
    return variant_of({"demo": demo, "cifar10": cifar10, "imagenet": imagenet}, variant)
