"""NPID (instance discrimination), Wu et al., 2018.

    python -m ssljax.train --config=configs/images/npid.py:demo --workdir=runs/npid

| variant     | data              | encoder   | hardware       | expected                 | status  |
|-------------|-------------------|-----------|----------------|--------------------------|---------|
| `:demo`     | embedded images   | ResNet-8  | 2 CPU cores    | docs/results.md          | run     |
| `:cifar10`  | tfds:cifar10      | ResNet-18 | 1 accelerator  | nothing that was checked | not run |
| `:imagenet` | tfds:imagenet2012 | ResNet-50 | 8 accelerators | 46.8 % k-NN (authors)    | not run |
"""

from ssljax.config import cifar10_config, demo_config, imagenet_config, variant_of
from ssljax.views.recipes import CIFAR10_MEAN, CIFAR10_STD


def demo():
    """By the softmax over all images, which the authors take for CIFAR too: with few epochs NCE's constant Z fails."""
    config = demo_config("npid", epochs=15.0, batch_size=64)
    config.method.update(projector=(128,), temperature=0.1, noise=0)
    config.views.update(name="npid", size=32, mean=CIFAR10_MEAN, std=CIFAR10_STD)
    config.optimizer.learning_rate = 1e-3
    return config


def cifar10():
    """The authors': all images instead of noise, temperature 0.1, no flips, grey after the jitter; a tenth of the rate
    after 120 epochs and again after 160. (Their code divides by .2023, .1994, .2010, and not by the standard deviation
    of all pixels.)"""
    config = cifar10_config("npid", epochs=200.0, batch_size=128)
    config.method.update(projector=(128,), temperature=0.1, noise=0)
    config.encoder.update(name="resnet18", stem="cifar")
    config.views.update(name="npid", size=32, flip=0.0, grey_first=False, mean=CIFAR10_MEAN, std=CIFAR10_STD)
    config.optimizer.update(
        name="sgd", learning_rate=0.03, scaling="none", weight_decay=5e-4, exclude=(), schedule="steps"
    )
    config.optimizer.milestones = (120.0, 160.0)
    config.evaluate.update(k=200, temperature=0.1)
    return config


def imagenet():
    """The authors': 4096 images of noise, temperature 0.07, a tenth of the rate after 120 and 160 epochs."""
    config = imagenet_config("npid", every=5000)
    config.encoder.name = "resnet50"
    config.views.name = "npid"
    config.epochs = 200.0
    config.optimizer.update(name="sgd", learning_rate=0.03, weight_decay=1e-4, exclude=(), schedule="steps")
    config.optimizer.milestones = (120.0, 160.0)
    config.batch_size = 256
    config.evaluate.update(k=200)
    return config


def get_config(variant=None):
    return variant_of({"demo": demo, "cifar10": cifar10, "imagenet": imagenet}, variant)
