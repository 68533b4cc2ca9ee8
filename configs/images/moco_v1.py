"""MoCo v1, He et al., 2020.

    python -m ssljax.train --config=configs/images/moco_v1.py:demo --workdir=runs/moco_v1

| variant     | data              | encoder   | hardware       | expected               | status  |
|-------------|-------------------|-----------|----------------|------------------------|---------|
| `:demo`     | embedded images   | ResNet-8  | 2 CPU cores    | docs/results.md        | run     |
| `:cifar10`  | tfds:cifar10      | ResNet-18 | 1 accelerator  | 82.6 % k-NN (official) | not run |
| `:imagenet` | tfds:imagenet2012 | ResNet-50 | 8 accelerators | 60.6 % linear (paper)  | not run |
"""

from ssljax.config import cifar10_config, demo_config, imagenet_config, variant_of
from ssljax.views.recipes import CIFAR10_MEAN, CIFAR10_STD


def demo():
    config = demo_config("moco_v1", epochs=12.0)
    config.method.update(projector=(128,), queue=2048, momentum=0.98, temperature=0.2)
    config.encoder.bn_groups = 8
    config.views.update(name="moco_v1", size=32, mean=CIFAR10_MEAN, std=CIFAR10_STD)
    return config


def cifar10():
    """The official demo: linear head, 8 groups of BatchNorm, queue 4096, version 2's views without blur."""
    config = cifar10_config("moco_v1", epochs=200.0, batch_size=512, every=980)
    config.method.update(projector=(128,), temperature=0.1, queue=4096, momentum=0.99)
    config.encoder.update(name="resnet18", stem="cifar", bn_groups=8)
    config.views.update(name="moco_v2", size=32, blur=0.0, scale=(0.08, 1.0), mean=CIFAR10_MEAN, std=CIFAR10_STD)
    config.optimizer.update(name="sgd", learning_rate=0.03, weight_decay=5e-4, exclude=(), per_epoch=True)
    config.evaluate.update(k=200, temperature=0.1)
    return config


def imagenet():
    """The paper's: batch 256 in 8 groups of 32 with shuffled keys, SGD 0.03, a tenth of it after 120 and 160 epochs."""
    config = imagenet_config("moco_v1", every=5000)
    config.encoder.update(name="resnet50", bn_groups=8)
    config.views.update(name="moco_v1", size=224)
    config.epochs = 200.0
    config.optimizer.update(name="sgd", learning_rate=0.03, weight_decay=1e-4, exclude=(), schedule="steps")
    config.optimizer.milestones = (120.0, 160.0)
    return config


def get_config(variant=None):
    return variant_of({"demo": demo, "cifar10": cifar10, "imagenet": imagenet}, variant)
