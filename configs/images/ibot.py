"""iBOT, Zhou et al., 2022.

    python -m ssljax.train --config=configs/images/ibot.py:demo --workdir=runs/ibot

| variant     | data              | encoder        | hardware        | expected                             | status  |
|-------------|-------------------|----------------|-----------------|--------------------------------------|---------|
| `:demo`     | embedded images   | ViT 4 x 64     | 2 CPU cores     | docs/results.md                      | run     |
| `:cifar10`  | tfds:cifar10      | ViT-S, patch 4 | 1 accelerator   | nothing published                    | not run |
| `:imagenet` | tfds:imagenet2012 | ViT-S/16       | 16 accelerators | 77.9 % linear, 75.2 % k-NN (authors) | not run |

Class token and patches share the head; with `--config.method.patch_count=8192` patches have a last layer of their own.
"""

from ssljax.config import cifar10_config, demo_config, imagenet_config, variant_of
from ssljax.views.recipes import CIFAR10_MEAN, CIFAR10_STD


def demo():
    config = demo_config("ibot", epochs=2.5, batch_size=32)
    config.method.update(count=512, hidden=256, bottleneck=64, momentum=0.99, patch_temperature=0.04)
    config.encoder.update(name="vit_micro", positions="learned", mask_token=True)
    config.views.update(
        name="ibot",
        size=32,
        scale=(0.3, 1.0),
        local_crops=2,
        local_size=16,
        local_scale=(0.15, 0.4),
        blur=0.0,
        solarize=0.0,
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
    )
    config.optimizer.update(
        learning_rate=5e-4, warmup_epochs=0.5, clip_each=3.0, freeze=("last_layer*",), freeze_epochs=0.2
    )
    return config


def cifar10():
    config = cifar10_config("ibot", epochs=800.0)
    config.method.update(count=4096, momentum=0.99, patch_temperature=0.04)
    config.encoder.update(
        name="vit_s", patch=4, positions="learned", initializer="dino", mask_token=True, drop_path=0.1
    )
    config.views.update(
        name="ibot", size=32, local_crops=6, local_size=16, blur=0.0, solarize=0.0, mean=CIFAR10_MEAN, std=CIFAR10_STD
    )
    config.optimizer.update(
        name="adamw",
        learning_rate=5e-4,
        b2=0.999,
        weight_decay=0.04,
        weight_decay_final=0.4,
        warmup_epochs=10.0,
        clip_each=3.0,
        freeze=("last_layer*",),
        freeze_epochs=1.0,
    )
    return config


def imagenet():
    """The authors' ViT-S of 800 epochs: one head of 8192 outputs for both, ten local crops."""
    config = imagenet_config("ibot", every=12510)
    config.method.update(
        count=8192,
        teacher_temperature=0.07,
        patch_temperature=0.07,
        warmup_temperature_epochs=30,
        norm_last_layer=False,
    )
    config.encoder.update(
        name="vit_s", positions="learned", initializer="dino", mask_token=True, position_offset=0.1, drop_path=0.1
    )
    config.views.name = "ibot"
    config.epochs = 800.0
    config.optimizer.update(
        name="adamw",
        learning_rate=5e-4,
        b2=0.999,
        weight_decay=0.04,
        weight_decay_final=0.4,
        exclude=("bias", "scale"),
        warmup_epochs=10.0,
        final=5e-4,
        clip_each=3.0,
        freeze=("last_layer*",),
        freeze_epochs=1.0,
    )
    config.batch_size = 1024
    return config


def get_config(variant=None):
    return variant_of({"demo": demo, "cifar10": cifar10, "imagenet": imagenet}, variant)
