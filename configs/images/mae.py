"""MAE, He et al., 2022.

    python -m ssljax.train --config=configs/images/mae.py:demo --workdir=runs/mae

| variant     | data              | encoder         | hardware      | expected              | status  |
|-------------|-------------------|-----------------|---------------|-----------------------|---------|
| `:demo`     | embedded images   | ViT 4 x 64      | 2 CPU cores   | docs/results.md       | run     |
| `:cifar10`  | tfds:cifar10      | ViT-S, patch 4  | 1 accelerator | nothing published     | not run |
| `:imagenet` | tfds:imagenet2012 | ViT-B, patch 16 | 128 devices   | 68.0 % linear (paper) | not run |
"""

from ssljax.config import cifar10_config, demo_config, imagenet_config, variant_of
from ssljax.views.recipes import CIFAR10_MEAN, CIFAR10_STD


def demo():
    config = demo_config("mae", epochs=14.0, batch_size=128)
    config.method.update(decoder_width=64, decoder_depth=1, decoder_heads=4)
    config.encoder.update(name="vit_micro", pool="mean")
    config.views.update(name="mae", size=32, scale=(0.4, 1.0), mean=CIFAR10_MEAN, std=CIFAR10_STD)
    config.optimizer.update(b2=0.95, weight_decay=0.05)
    return config


def cifar10():
    """solo-learn's recipe for CIFAR-10: ViT-S with patches of 4, the paper's decoder."""
    config = cifar10_config("mae", epochs=1000.0)
    config.encoder.update(name="vit_s", patch=4)
    config.views.update(name="mae", size=32, mean=CIFAR10_MEAN, std=CIFAR10_STD)
    config.optimizer.update(name="adamw", learning_rate=2e-4, weight_decay=0.05, warmup_epochs=10.0)
    return config


def imagenet():
    """The paper's: 1.5e-4 · batch / 256 by AdamW (0.9, 0.95), 1600 epochs, targets normalised by the patch."""
    config = imagenet_config("mae", every=6260)
    config.encoder.update(name="vit_b")
    config.views.update(name="mae", size=224)
    config.batch_size = 4096
    config.epochs = 1600.0
    config.optimizer.update(name="adamw", learning_rate=1.5e-4, weight_decay=0.05, warmup_epochs=40.0)
    config.checkpoint.every = 3130
    return config


def get_config(variant=None):
    return variant_of({"demo": demo, "cifar10": cifar10, "imagenet": imagenet}, variant)
