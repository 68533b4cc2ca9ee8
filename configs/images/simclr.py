"""SimCLR, Chen et al., 2020.

    python -m ssljax.train --config=configs/images/simclr.py:demo --workdir=runs/simclr

| variant     | data              | encoder   | hardware        | expected                     | status  |
|-------------|-------------------|-----------|-----------------|------------------------------|---------|
| `:demo`     | embedded images   | ResNet-8  | 2 CPU cores     | docs/results.md              | run     |
| `:cifar10`  | tfds:cifar10      | ResNet-18 | 1 accelerator   | 91 % linear (reference code) | not run |
| `:imagenet` | tfds:imagenet2012 | ResNet-50 | 32 accelerators | 69.1 % linear (authors)      | not run |
"""

from ssljax.config import cifar10_config, demo_config, imagenet_config, variant_of


def demo():
    config = demo_config("simclr", epochs=7.0)
    config.method.update(projector=(128, 128), temperature=0.2)
    config.views.update(name="simclr", size=32, strength=0.5, blur=0.0, scale=(0.2, 1.0))
    config.evaluate.every = config.checkpoint.every = 55
    return config


def cifar10():
    """The reference code's command for CIFAR-10; its jitter is halved and nothing blurred (paper, appendix B.9)."""
    config = cifar10_config("simclr", epochs=1000.0, batch_size=512)
    config.method.update(projector=(512, 512, 128), temperature=0.5, convention="sum")
    config.encoder.update(name="resnet18", stem="cifar", zero_init_residual=True)
    config.views.update(name="simclr", size=32, strength=0.5, blur=0.0)
    config.optimizer.update(name="lars_simclr", learning_rate=1.0, weight_decay=1e-4, warmup_epochs=10.0)
    return config


def imagenet():
    """The paper's: 0.3 · batch / 256 = 4.8 by LARS, weight decay 1e-6, no mean and standard deviation."""
    config = imagenet_config("simclr", every=3130)
    config.method.update(projector=(2048, 128), temperature=0.1, convention="sum")
    config.encoder.update(name="resnet50", zero_init_residual=True)
    config.views.update(name="simclr", size=224, strength=1.0, blur=0.5)
    config.batch_size = 4096
    config.epochs = 1000.0
    config.optimizer.update(name="lars_simclr", learning_rate=0.3, weight_decay=1e-6, warmup_epochs=10.0)
    return config


def get_config(variant=None):
    return variant_of({"demo": demo, "cifar10": cifar10, "imagenet": imagenet}, variant)
