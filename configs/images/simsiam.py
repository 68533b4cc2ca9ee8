"""SimSiam, Chen and He, 2021.

    python -m ssljax.train --config=configs/images/simsiam.py:demo --workdir=runs/simsiam

| variant     | data              | encoder   | hardware       | expected              | status  |
|-------------|-------------------|-----------|----------------|-----------------------|---------|
| `:demo`     | embedded images   | ResNet-8  | 2 CPU cores    | docs/results.md       | run     |
| `:cifar10`  | tfds:cifar10      | ResNet-18 | 1 accelerator  | 90.4 % k-NN (lightly) | not run |
| `:imagenet` | tfds:imagenet2012 | ResNet-50 | 8 accelerators | 68.1 % linear (paper) | not run |
| `:small`    | your own, few     | ResNet-18 | 1 accelerator  | nothing published     | not run |
"""

from ssljax.config import demo_config, imagenet_config, lightly_config, variant_of
from ssljax.views.recipes import CIFAR10_MEAN, CIFAR10_STD


def demo():
    config = demo_config("simsiam", epochs=8.0, batch_size=64)
    config.method.update(projector=(128, 128), predictor=(32, 128))
    config.views.update(name="moco_v2", size=32, blur=0.0, mean=CIFAR10_MEAN, std=CIFAR10_STD)
    config.optimizer.constant = ("predictor",)
    return config


def cifar10():
    """lightly's: a projector of two layers, and a rate of 0.06 whatever the batch; but here the predictor's rate is
    constant, as in the paper."""
    config = lightly_config("simsiam")
    config.method.update(projector=(2048, 2048), predictor=(512, 2048))
    config.views.update(name="moco_v2", size=32, blur=0.0, mean=CIFAR10_MEAN, std=CIFAR10_STD)
    config.optimizer.update(learning_rate=0.06, scaling="none", constant=("predictor",))
    return config


def imagenet():
    """The paper's, 100 epochs: SGD 0.05 · batch / 256 once an epoch, the predictor's constant, decay on everything."""
    config = imagenet_config("simsiam", every=5000)
    config.encoder.update(name="resnet50", zero_init_residual=True)
    config.views.update(name="moco_v2", size=224)
    config.batch_size = 512
    config.epochs = 100.0
    config.optimizer.update(
        name="sgd", learning_rate=0.05, weight_decay=1e-4, exclude=(), per_epoch=True, constant=("predictor",)
    )
    return config


def small():
    """For few images or small batches, where users of the original saw the loss go to -1: that is collapse.

    A small rate that no batch scales, a warm-up, a smaller embedding, and a predictor whose rate stays. Watch
    `embedding_std` rather than the loss: 1 is healthy, and towards 0 it has collapsed. Not run: a starting point.
    """
    config = imagenet()
    config.method.update(projector=(512, 512, 512), predictor=(128, 512))
    config.encoder.name = "resnet18"
    config.data.update(source="folder:PATH", test_split="test")
    config.batch_size = 128
    config.epochs = 400.0
    config.optimizer.update(learning_rate=0.03, scaling="none", warmup_epochs=10.0, per_epoch=False)
    config.evaluate.update(every=1000, train_examples=4000, test_examples=1000)
    config.checkpoint.every = 1000
    return config


def get_config(variant=None):
    return variant_of({"demo": demo, "cifar10": cifar10, "imagenet": imagenet, "small": small}, variant)
