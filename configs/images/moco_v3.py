"""MoCo v3, Chen, Xie and He, 2021.

    python -m ssljax.train --config=configs/images/moco_v3.py:demo --workdir=runs/moco_v3

| variant         | data              | encoder   | hardware        | expected                            | status  |
|-----------------|-------------------|-----------|-----------------|-------------------------------------|---------|
| `:demo`         | embedded images   | ResNet-8  | 2 CPU cores     | docs/results.md                     | run     |
| `:cifar10`      | tfds:cifar10      | ResNet-18 | 1 accelerator   | nothing at these settings           | not run |
| `:imagenet`     | tfds:imagenet2012 | ResNet-50 | 32 accelerators | 72.8 % linear, 300 epochs (authors) | not run |
| `:imagenet_vit` | tfds:imagenet2012 | ViT-B/16  | 64 accelerators | 76.7 % linear, 300 epochs (authors) | not run |
"""

from ssljax.config import demo_config, imagenet_config, lightly_config, variant_of
from ssljax.views.recipes import CIFAR10_MEAN, CIFAR10_STD


def demo():
    config = demo_config("moco_v3", epochs=7.0)
    config.method.update(projector=(256, 128), predictor=(256, 128), temperature=0.2)
    config.views.update(
        name="moco_v3", size=32, blur=0.0, solarize=0.0, scale=(0.2, 1.0), mean=CIFAR10_MEAN, std=CIFAR10_STD
    )
    return config


def cifar10():
    """solo-learn's heads and temperature."""
    config = lightly_config("moco_v3")
    config.method.update(projector=(4096, 256), predictor=(4096, 256), temperature=0.2)
    config.views.update(name="moco_v3", size=32, blur=0.0, solarize=0.0, mean=CIFAR10_MEAN, std=CIFAR10_STD)
    return config


def imagenet():
    """The authors' ResNet-50 of 300 epochs: LARS 0.3 · batch / 256, temperature 1."""
    config = imagenet_config("moco_v3", every=3130)
    config.encoder.update(name="resnet50", zero_init_residual=True)
    config.views.update(name="moco_v3", size=224, scale=(0.2, 1.0))
    config.batch_size = 4096
    config.epochs = 300.0
    config.optimizer.update(name="lars", learning_rate=0.3, weight_decay=1e-6, warmup_epochs=10.0)
    return config


def imagenet_vit():
    """The authors' ViT-B of 300 epochs: AdamW 1.5e-4 · batch / 256, patch projection frozen as it was drawn, weight
    decay on all else. Their ViT-S has 12 heads: `--config.encoder.name=vit_s --config.encoder.heads=12`."""
    config = imagenet()
    config.method.update(projector=(4096, 4096, 256), predictor_norm="plain", temperature=0.2)
    config.encoder.update(name="vit_b", initializer="moco_v3", freeze_patch_embed=True, zero_init_residual=None)
    config.views.scale = (0.08, 1.0)
    config.optimizer.update(
        name="adamw",
        learning_rate=1.5e-4,
        b2=0.999,
        weight_decay=0.1,
        exclude=(),
        warmup_epochs=40.0,
        freeze=("patch_embed",),
    )
    return config


def get_config(variant=None):
    variants = {"demo": demo, "cifar10": cifar10, "imagenet": imagenet, "imagenet_vit": imagenet_vit}
    return variant_of(variants, variant)
