"""DINOv2, Oquab et al., 2024.

    python -m ssljax.train --config=configs/images/dinov2.py:demo --workdir=runs/dinov2

| variant     | data              | encoder        | hardware        | expected                   | status  |
|-------------|-------------------|----------------|-----------------|----------------------------|---------|
| `:demo`     | embedded images   | ViT 4 x 64     | 2 CPU cores     | docs/results.md            | run     |
| `:cifar10`  | tfds:cifar10      | ViT-S, patch 4 | 1 accelerator   | nothing published          | not run |
| `:imagenet` | tfds:imagenet2012 | ViT-L/16       | 32 accelerators | 82.9 % linear, 81.6 % k-NN | not run |
| `:full`     | your ImageNet-21k | ViT-L/14       | 96 accelerators | 84.5 % linear, 82.0 % k-NN | not run |
| `:small`    | your own, few     | ViT-S/16       | 1 accelerator   | nothing published          | not run |

Distilled into a smaller encoder, given the run to learn from (docs/distillation.md):

    python -m ssljax.train --config=configs/images/dinov2.py:distill_demo --config.method.teacher=runs/dinov2 \\
        --workdir=runs/dinov2_distill

| variant         | data              | teacher     | encoder    | hardware        | expected             | status  |
|-----------------|-------------------|-------------|------------|-----------------|----------------------|---------|
| `:distill_demo` | embedded images   | `:demo`     | ViT 4 x 32 | 2 CPU cores     | docs/distillation.md | run     |
| `:distill`      | tfds:imagenet2012 | `:imagenet` | ViT-S/16   | 32 accelerators | nothing published    | not run |
"""

from ssljax.config import base_config, cifar10_config, demo_config, imagenet_config, variant_of
from ssljax.views.recipes import CIFAR10_MEAN, CIFAR10_STD

EPOCH = 1250
"""Steps of what the authors call an epoch, whatever the data."""


def demo():
    config = demo_config("dinov2", epochs=3.0, batch_size=32)
    config.method.update(count=512, hidden=256, bottleneck=64, momentum=0.99)
    config.encoder.update(name="vit_micro", positions="learned", mask_token=True)
    config.views.update(
        name="dinov2",
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
        learning_rate=5e-4, warmup_epochs=0.5, clip_norm=3.0, freeze=("last_layer",), freeze_epochs=0.2
    )
    return config


def cifar10():
    config = cifar10_config("dinov2", epochs=800.0)
    config.method.update(count=4096, momentum=0.99)
    config.encoder.update(
        name="vit_s", patch=4, positions="learned", initializer="dino", mask_token=True, layer_scale=1e-5, drop_path=0.1
    )
    config.views.update(
        name="dinov2", size=32, local_crops=6, local_size=16, blur=0.0, solarize=0.0, mean=CIFAR10_MEAN, std=CIFAR10_STD
    )
    config.optimizer.update(
        name="adamw",
        learning_rate=5e-4,
        b2=0.999,
        weight_decay=0.04,
        weight_decay_final=0.4,
        warmup_epochs=10.0,
        clip_module=3.0,
        freeze=("last_layer",),
        freeze_epochs=1.0,
    )
    return config


def imagenet():
    """The authors' short recipe, of 100 epochs of 1250 steps: a shared head with centring, layer-wise decay 0.9.

    In the first epoch their last layer has a rate of zero, while its moments go on; here these stay as they are, too.
    """
    config = imagenet_config("dinov2", every=6250)
    config.method.update(momentum=0.992, teacher_temperature=0.07)
    config.encoder.update(
        name="vit_l",
        positions="learned",
        position_offset=0.1,
        initializer="dino",
        mask_token=True,
        layer_scale=1e-5,
        drop_path=0.3,
        drop_path_uniform=True,
    )
    config.views.name = "dinov2"
    config.steps = 100 * EPOCH
    config.optimizer.update(
        name="adamw",
        learning_rate=4e-3 / 32,  # times the root of the batch: 0.004 at 1024
        scaling="sqrt",
        b2=0.999,
        weight_decay=0.04,
        weight_decay_final=0.4,
        final=1e-6 / (4e-3 * 2**0.5),
        layer_decay=0.9,
        clip_module=3.0,
        freeze=("last_layer",),
    )
    config.optimizer.rates = {"patch_embed": 0.2}
    config.batch_size = 2048
    _warm_up(config, examples=1_281_167, epochs=10)
    return config


def full():
    """The authors' full recipe, of 500 epochs of 1250 steps: two heads with Sinkhorn's centring, patches of 14."""
    config = imagenet()
    config.method.update(
        count=131072, bottleneck=384, patch_count=131072, patch_bottleneck=256, centering="sinkhorn", momentum=0.994
    )
    config.encoder.update(patch=14, ffn="swiglu", drop_path=0.4)
    config.views.local_size = 98
    config.data.update(source="folder:PATH", test_split="test")
    config.batch_size = 3072
    config.steps = 500 * EPOCH
    config.optimizer.update(
        learning_rate=2e-4 / 32, weight_decay_final=0.2, layer_decay=1.0, final=1e-6 / (2e-4 * 3**0.5)
    )
    _warm_up(config, examples=14_197_086, epochs=80)
    return config


def small():
    """For few images or small batches: fewer outputs, a faster teacher, a smaller encoder.

    A loss that stays at ln 8192 = 9.0 has learnt nothing: `target_entropy` near 1 or `prototypes_used` near 0 says
    which collapse it is. Not run: a starting point.
    """
    config = imagenet()
    config.method.update(count=8192, momentum=0.99, teacher_temperature=0.04, warmup_temperature_epochs=0)
    config.encoder.update(name="vit_s", drop_path=0.1)
    config.data.update(source="folder:PATH", test_split="test")
    config.batch_size = 256
    config.steps = 0
    config.epochs = 300.0
    config.optimizer.update(learning_rate=5e-4, scaling="linear", layer_decay=1.0, warmup_epochs=10.0)
    config.optimizer.update(final=1e-6 / 5e-4, freeze_epochs=1.0)
    config.evaluate.update(every=1000, train_examples=4000, test_examples=1000)
    config.checkpoint.every = 1000
    return config


def distill_demo():
    config = _distilled(demo())
    config.encoder.update(width=32, heads=2)
    return config


def distill():
    """The authors': as the large model was trained, but without hidden patches and drop-path."""
    config = _distilled(imagenet())
    config.method.update(momentum=0.994, warmup_temperature_epochs=0)
    config.encoder.update(name="vit_s", drop_path=0.0)
    config.optimizer.layer_decay = 1.0
    return config


def _warm_up(config, examples, epochs):
    """Learning rate, last layer and temperature, which the authors count in their epochs: here in those of the data,
    for the temperature in whole ones."""
    ours = EPOCH * config.batch_size / examples
    config.optimizer.update(warmup_epochs=epochs * ours, freeze_epochs=ours)
    config.method.warmup_temperature_epochs = round(30 * ours)


def _distilled(config):
    """The same with a teacher that is trained already: prototypes, views and all else must be as they were for it."""
    method = base_config("dinov2_distill").method
    method.update({name: value for name, value in config.method.items() if name != "name"})
    config.method = method
    config.encoder.mask_token = False
    return config


VARIANTS = {
    "demo": demo,
    "cifar10": cifar10,
    "imagenet": imagenet,
    "full": full,
    "small": small,
    "distill_demo": distill_demo,
    "distill": distill,
}


def get_config(variant=None):
    return variant_of(VARIANTS, variant)
