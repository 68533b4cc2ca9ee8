"""DINO, Caron et al., 2021.

    python -m ssljax.train --config=configs/images/dino.py:demo --workdir=runs/dino

| variant     | data              | encoder   | hardware        | expected                   | status  |
|-------------|-------------------|-----------|-----------------|----------------------------|---------|
| `:demo`     | embedded images   | ResNet-8  | 2 CPU cores     | docs/results.md            | run     |
| `:cifar10`  | tfds:cifar10      | ResNet-18 | 1 accelerator   | 84.8 % k-NN (lightly)      | not run |
| `:imagenet` | tfds:imagenet2012 | ViT-S/16  | 16 accelerators | 76.1 % linear, 73.3 % k-NN | not run |
| `:resnet50` | tfds:imagenet2012 | ResNet-50 | 16 accelerators | 75.3 % linear, 67.5 % k-NN | not run |
| `:small`    | your own, few     | ViT-S/16  | 1 accelerator   | nothing published          | not run |
"""

from ssljax.config import demo_config, imagenet_config, lightly_config, variant_of
from ssljax.views.recipes import CIFAR10_MEAN, CIFAR10_STD


def demo():
    config = demo_config("dino", epochs=5.0, batch_size=64)
    config.method.update(count=128, hidden=256, bottleneck=64, momentum=0.98, head_norm=True)
    config.views.update(
        name="dino",
        size=32,
        local_crops=2,
        scale=(0.2, 1.0),
        local_size=16,
        local_scale=(0.1, 0.3),
        blur=0.0,
        solarize=0.0,
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
    )
    config.optimizer.update(clip_each=3.0, freeze=("last_layer",), freeze_epochs=0.3)
    return config


def cifar10():
    """lightly's: a head of 2048-256-2048 with BatchNorm on a ResNet-18, momentum 0.99, two crops; the last layer never
    rests."""
    config = lightly_config("dino")
    config.method.update(count=2048, head_layers=2, head_norm=True, momentum=0.99, momentum_schedule="constant")
    config.views.update(
        name="dino",
        local_crops=0,
        scale=(0.14, 1.0),
        size=32,
        blur=0.0,
        solarize=0.0,
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
    )
    return config


def imagenet():
    """The authors' ViT-S of 300 epochs: 5e-4 · batch / 256, weight decay 0.04 to 0.4, teacher's temperature to 0.07."""
    config = imagenet_config("dino", every=12510)
    config.method.update(teacher_temperature=0.07, warmup_temperature_epochs=30, norm_last_layer=False)
    config.encoder.update(name="vit_s", positions="learned", position_offset=0.1, initializer="dino", drop_path=0.1)
    config.views.name = "dino"
    config.epochs = 300.0
    config.optimizer.update(
        name="adamw",
        learning_rate=5e-4,
        b2=0.999,
        weight_decay=0.04,
        weight_decay_final=0.4,
        exclude=("bias", "scale"),
        warmup_epochs=10.0,
        final=1e-6 / 2e-3,
        clip_each=3.0,
        freeze=("last_layer",),
        freeze_epochs=1.0,
    )
    config.batch_size = 1024
    return config


def resnet50():
    """The authors' ResNet-50 of 800 epochs: SGD, constant weight decay, BatchNorm in the head, tighter crops."""
    config = imagenet()
    config.epochs = 800.0
    config.method.update(head_norm=True, norm_last_layer=True)
    config.encoder.update(name="resnet50", positions=None, position_offset=None, initializer=None, drop_path=None)
    config.views.update(scale=(0.14, 1.0), local_scale=(0.05, 0.14))
    config.optimizer.update(name="sgd", learning_rate=0.03, weight_decay=1e-4, weight_decay_final=-1.0)
    config.optimizer.final = 1e-6 / 0.12
    return config


def small():
    """For few images or small batches, where the original's loss stays at ln(count): fewer outputs, a faster teacher.

    A loss that stays at ln 8192 = 9.0 has learnt nothing: `target_entropy` near 1 or `prototypes_used` near 0 says
    which collapse it is. Not run: a starting point.
    """
    config = imagenet()
    config.method.update(count=8192, momentum=0.99, teacher_temperature=0.04, warmup_temperature_epochs=0)
    config.views.local_crops = 6
    config.data.update(source="folder:PATH", test_split="test")
    config.batch_size = 256
    config.epochs = 300.0
    config.optimizer.final = 1e-6 / 5e-4
    config.evaluate.update(every=1000, train_examples=4000, test_examples=1000)
    config.checkpoint.every = 1000
    return config


def get_config(variant=None):
    return variant_of(
        {"demo": demo, "cifar10": cifar10, "imagenet": imagenet, "resnet50": resnet50, "small": small},
        variant,
    )
