"""SimCLR (Chen et al., 2020).

    python -m ssljax.train --config=configs/images/simclr.py:demo --workdir=runs/simclr

| variant     | data                   | encoder    | hardware, time   | expected                  | status  |
|-------------|------------------------|------------|------------------|---------------------------|---------|
| `:demo`     | embedded, 8,000 images | ResNet-8   | 2 CPU cores, 3 min | see docs/results.md     | measured |
| `:cifar10`  | tfds:cifar10           | ResNet-18  | one accelerator  | about 91 % linear (paper) | not run |
| `:imagenet` | tfds:imagenet2012      | ResNet-50  | 32 TPU cores     | 69.3 % linear (paper, 1000 epochs) | not run |
"""

from ssljax.config import base_config, variant_of


def demo():
    config = base_config("simclr")
    config.method.update(projector=(256, 128), temperature=0.2)
    config.encoder.name = "resnet8"
    config.views.update(name="simclr", size=32, strength=0.5, blur=0.0, scale=(0.2, 1.0))
    config.batch_size = 256
    config.epochs = 12.0
    config.optimizer.update(name="adamw", learning_rate=2e-3, scaling="none", b2=0.999, weight_decay=1e-4, warmup_epochs=1.0)
    config.log.every = 10
    config.evaluate.update(every=75, train_examples=2000, test_examples=1000)
    config.checkpoint.every = 75
    return config


def get_config(variant=None):
    return variant_of({"demo": demo}, variant)
