"""CLIP, Radford et al., 2021, and the sigmoid loss, Zhai et al., 2023.

    python -m ssljax.train --config=configs/image_text/clip.py:demo --workdir=runs/clip

| variant         | data           | encoder     | hardware         | expected                           | status  |
|-----------------|----------------|-------------|------------------|------------------------------------|---------|
| `:demo`         | embedded emoji | ResNet-8    | 2 CPU cores      | docs/results.md                    | run     |
| `:demo_sigmoid` | embedded emoji | ResNet-8    | 2 CPU cores      | docs/results.md                    | run     |
| `:folder`       | folder:PATH    | ViT 3 x 128 | 2 CPU cores      | nothing published                  | not run |
| `:paper`        | folder:PATH    | ViT-B/32    | 256 accelerators | 63.2 % zero-shot ImageNet, authors | not run |

With 3,052 pictures, words are tokens, and half of them are lost in training, so that the group, which all captions of a
group share, is learnt from more than its few full captions. The floor to beat is `colours to words`.
"""

from ssljax.config import base_config, variant_of
from ssljax.views.recipes import IMAGENET_MEAN, IMAGENET_STD


def demo():
    config = base_config("clip")
    config.encoder.name = "resnet8"
    config.method.update(text_width=96, text_depth=1, text_heads=3, dim=96, word_dropout=0.5)
    config.views.update(name="clip", size=32, scale=(0.5, 1.0), flip=0.5, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    config.data.update(
        tokenizer="words", length=20, templates=("{}", "something, {}", "something somewhere somehow, {}")
    )
    config.batch_size, config.steps = 64, 2000
    config.optimizer.update(
        name="adamw",
        learning_rate=2e-3,
        scaling="none",
        b2=0.98,
        weight_decay=0.5,
        exclude=("bias", "scale", "log_scale"),
        warmup_epochs=2.0,
    )
    config.log.every = 20
    config.evaluate.update(every=500, train_examples=1526, test_examples=380)
    config.checkpoint.every = 500
    return config


def demo_sigmoid():
    """With SigLIP's loss, whose bias begins where nearly all pairs of so small a batch do not belong together."""
    config = demo()
    config.method.update(objective="sigmoid", temperature=0.1, bias=-4.0)
    return config


def folder():
    """A small one for an image folder of your own with a table of captions."""
    config = demo()
    config.encoder.name = "clip_vit_micro"
    config.data.update(source="folder:PATH", length=77, templates=("a photo of a {}.",))
    config.views.size = 64
    return config


def paper():
    """ViT-B/32: 32 epochs of 400 M pairs in batches of 32,768; 2,000 steps of warm-up; the vocabulary's 49,152 pieces
    and their special tokens are learnt from your captions.

    Adam's epsilon is 1e-8 here, where the authors have 1e-6 for their ViTs. They crop a square of the resized image;
    here crops are OpenCLIP's. Dimensions of the text tower: 512, 12 blocks, 8 heads.
    """
    config = base_config("clip")
    config.encoder.update(name="clip_vit_b", scan=True, remat="blocks")
    config.views.update(name="clip", size=224)
    config.data.update(source="folder:PATH", canvas=256, tokenizer="bpe", vocabulary=49_408)
    config.dtype = "bfloat16"
    config.batch_size, config.epochs = 32_768, 32.0
    config.optimizer.update(
        name="adamw",
        learning_rate=5e-4,
        scaling="none",
        b2=0.98,
        weight_decay=0.2,
        exclude=("bias", "scale", "log_scale", "prefix"),
        warmup_epochs=2000 * 32_768 / 400e6,
    )
    config.log.every = 50
    config.evaluate.every = config.checkpoint.every = 5000
    return config


def get_config(variant=None):
    return variant_of({"demo": demo, "demo_sigmoid": demo_sigmoid, "folder": folder, "paper": paper}, variant)
