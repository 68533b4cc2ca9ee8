"""I-JEPA, Assran et al., 2023.

    python -m ssljax.train --config=configs/images/ijepa.py:demo --workdir=runs/ijepa

| variant     | data              | encoder        | hardware        | expected              | status  |
|-------------|-------------------|----------------|-----------------|-----------------------|---------|
| `:demo`     | embedded images   | ViT 4 x 64     | 2 CPU cores     | docs/results.md       | run     |
| `:cifar10`  | tfds:cifar10      | ViT-S, patch 4 | 1 accelerator   | nothing published     | not run |
| `:imagenet` | tfds:imagenet2012 | ViT-H/14       | 16 accelerators | 79.3 % linear (paper) | not run |
"""

from ssljax.config import cifar10_config, demo_config, imagenet_config, variant_of
from ssljax.views.recipes import CIFAR10_MEAN, CIFAR10_STD


def demo():
    config = demo_config("ijepa", epochs=12.0, batch_size=16)
    config.method.update(
        predictor_width=64, predictor_depth=2, predictor_heads=4, momentum=0.99, min_keep=4, target_norm="instance"
    )
    config.encoder.update(name="vit_micro", cls_token=False, pool="mean", positions="learned")
    config.views.update(name="ijepa", size=32, mean=CIFAR10_MEAN, std=CIFAR10_STD)
    config.optimizer.learning_rate = 1e-3
    return config


def cifar10():
    """With targets that have lost what all patches of an image share, which in small images is most of what they are
    (docs/results.md)."""
    config = cifar10_config("ijepa", epochs=800.0)
    config.method.update(predictor_width=192, predictor_depth=6, predictor_heads=6, target_norm="instance")
    config.encoder.update(name="vit_s", patch=4, cls_token=False, pool="mean", initializer="ijepa")
    config.views.update(name="ijepa", size=32, mean=CIFAR10_MEAN, std=CIFAR10_STD)
    config.optimizer.update(
        name="adamw", learning_rate=1e-3, b2=0.999, weight_decay=0.04, weight_decay_final=0.4, warmup_epochs=10.0
    )
    return config


def imagenet():
    """The authors' ViT-H/14 of 300 epochs: 1e-3 at a batch of 2048, warmed up from 2e-4, weight decay 0.04 to 0.4. The
    predictor has as many heads as the encoder. Weights begin equally large in all blocks: the authors' code makes those
    of later blocks smaller, and then draws all of them anew.

    `--config.method.mask=reference` draws masks as the authors' code does.
    """
    config = imagenet_config("ijepa", every=6250)
    config.method.update(predictor_heads=16, collapse_after=26_000)  # the warm-up has 25,024 steps
    config.encoder.update(name="vit_h", cls_token=False, pool="mean", initializer="ijepa")
    config.views.name = "ijepa"
    config.epochs = 300.0
    config.optimizer.update(
        name="adamw",
        learning_rate=1e-3,
        scaling="none",
        b2=0.999,
        weight_decay=0.04,
        weight_decay_final=0.4,
        exclude=("bias", "scale"),
        warmup_epochs=40.0,
        start=0.2,
        final=1e-3,
    )
    config.batch_size = 2048
    return config


def get_config(variant=None):
    return variant_of({"demo": demo, "cifar10": cifar10, "imagenet": imagenet}, variant)
