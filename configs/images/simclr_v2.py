"""SimCLR v2, Chen et al., 2020: pretrain, fine-tune with few labels, distil without any (docs/distillation.md).

    python -m ssljax.train --config=configs/images/simclr_v2.py:demo --workdir=runs/simclr_v2
    python -m ssljax.train --config=configs/images/simclr_v2.py:fine_tune_demo --config.method.teacher=runs/simclr_v2 \\
        --workdir=runs/fine_tune
    python -m ssljax.train --config=configs/images/simclr_v2.py:distill_demo --config.method.teacher=runs/fine_tune \\
        --workdir=runs/distill

| variant                | data                  | encoder       | hardware        | expected               | status  |
|------------------------|-----------------------|---------------|-----------------|------------------------|---------|
| `:demo`                | embedded images       | ResNet-8      | 2 CPU cores     | docs/results.md        | run     |
| `:fine_tune_demo`      | a tenth of the labels | the teacher's | 2 CPU cores     | docs/distillation.md   | run     |
| `:distill_demo`        | embedded images       | half as wide  | 2 CPU cores     | docs/distillation.md   | run     |
| `:cifar10`             | tfds:cifar10          | ResNet-18     | 1 accelerator   | nothing published      | not run |
| `:imagenet`            | tfds:imagenet2012     | ResNet-50     | 32 accelerators | 71.7 % linear (paper)  | not run |
| `:memory`              | the same              | ResNet-50     | 32 accelerators | about 1 % more (paper) | not run |
| `:fine_tune_1percent`  | its published 1 %     | ResNet-50     | 8 accelerators  | 57.9 % top-1 (paper)   | not run |
| `:fine_tune_10percent` | its published 10 %    | ResNet-50     | 8 accelerators  | 68.4 % top-1 (paper)   | not run |
| `:distill`             | tfds:imagenet2012     | ResNet-50     | 32 accelerators | depends on the teacher | not run |
"""

from ssljax.config import base_config, cifar10_config, demo_config, imagenet_config, variant_of

CROP_AND_FLIP = dict(name="mae", scale=(0.08, 1.0), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def demo():
    config = demo_config("simclr_v2", epochs=7.0)
    config.method.update(projector=(128, 128, 128), temperature=0.2)
    config.views.update(name="simclr", size=32, strength=0.5, blur=0.0, scale=(0.2, 1.0))
    return config


def cifar10():
    """The command for CIFAR-10 of the authors' code, whose projector has three layers in both versions."""
    config = cifar10_config("simclr_v2", epochs=1000.0, batch_size=512)
    config.method.update(projector=(512, 512, 128), temperature=0.5, convention="sum")
    config.encoder.update(name="resnet18", stem="cifar", zero_init_residual=True)
    config.views.update(name="simclr", size=32, strength=0.5, blur=0.0)
    config.optimizer.update(name="lars_simclr", learning_rate=1.0, weight_decay=1e-4, warmup_epochs=10.0)
    return config


def imagenet():
    """The paper's: 0.1 √batch = 6.4 by LARS, weight decay 1e-4, 800 epochs of which 5 % are warm-up."""
    config = _on_imagenet("simclr_v2", epochs=800.0)
    config.method.update(temperature=0.1, convention="sum")
    config.encoder.update(name="resnet50", zero_init_residual=True)
    config.views.update(name="simclr", size=224, strength=1.0, blur=0.5)
    return config


def memory():
    """With a memory of 64 thousand keys, made by a momentum network of 0.999."""
    config = imagenet()
    config.method.memory = 65536
    return config


def fine_tune_demo():
    config = demo_config("fine_tune", epochs=40.0, batch_size=128)
    config.views.update(CROP_AND_FLIP, size=32, scale=(0.2, 1.0))
    config.data.labelled = 0.1
    config.optimizer.update(learning_rate=1e-3, weight_decay=0.0, warmup_epochs=0.0)
    return config


def distill_demo():
    config = demo_config("distill", epochs=10.0)
    config.encoder.channels = 16
    config.views.update(CROP_AND_FLIP, size=32, scale=(0.2, 1.0))
    return config


def fine_tune_1percent():
    """The paper's: from the projector's first layer, 0.005 √batch = 0.16 by LARS, no weight decay, no warm-up.

    The encoder must be the teacher's, and so its fields. The linear layer follows plain momentum, as in the authors'
    code.
    """
    config = base_config("fine_tune")
    config.method.update(classes=1000, eval_crop=0.875)
    config.encoder.update(name="resnet50", zero_init_residual=True)
    config.views.update(CROP_AND_FLIP, size=224)
    config.data.update(source="tfds:imagenet2012_subset:1pct", test_split="validation", canvas=512)
    config.batch_size = 1024
    config.epochs = 60.0
    config.dtype = "bfloat16"
    config.optimizer.update(
        name="lars_simclr", learning_rate=0.005, scaling="sqrt", exclude=("bias", "scale", "classifier")
    )
    config.evaluate.update(every=200, train_examples=10_000, test_examples=10_000)
    config.checkpoint.every = 200
    return config


def fine_tune_10percent():
    config = fine_tune_1percent()
    config.data.source = "tfds:imagenet2012_subset:10pct"
    config.epochs = 30.0
    return config


def distill():
    """The paper's: as in pretraining, for 400 epochs, of crops and flips alone, at temperature 1. For a student as
    large as its teacher the temperature is 0.1; a large teacher is first distilled into one like itself. The linear
    layer has no weight decay, where theirs has 1e-4."""
    config = _on_imagenet("distill", epochs=400.0)
    config.encoder.update(name="resnet50", zero_init_residual=True)
    config.views.update(CROP_AND_FLIP, size=224)
    config.optimizer.exclude = ("bias", "scale", "classifier")
    return config


def _on_imagenet(method, epochs):
    config = imagenet_config(method, every=3130)
    config.batch_size = 4096
    config.epochs = epochs
    config.optimizer.update(
        name="lars_simclr", learning_rate=0.1, scaling="sqrt", weight_decay=1e-4, warmup_epochs=0.05 * epochs
    )
    return config


VARIANTS = {
    "demo": demo,
    "cifar10": cifar10,
    "imagenet": imagenet,
    "memory": memory,
    "fine_tune_demo": fine_tune_demo,
    "distill_demo": distill_demo,
    "fine_tune_1percent": fine_tune_1percent,
    "fine_tune_10percent": fine_tune_10percent,
    "distill": distill,
}


def get_config(variant=None):
    return variant_of(VARIANTS, variant)
