"""VideoMAE, Tong et al., 2022.

    python -m ssljax.train --config=configs/video/videomae.py:demo --workdir=runs/videomae

| variant  | data                      | encoder         | hardware    | expected                  | status  |
|----------|---------------------------|-----------------|-------------|---------------------------|---------|
| `:demo`  | embedded, camera moves    | ViT 4 x 64      | 2 CPU cores | docs/results.md           | run     |
| `:paper` | folder:PATH, Kinetics-400 | ViT-B, patch 16 | 64 devices  | 80.0 % fine-tuned (paper) | not run |
| `:ssv2`  | folder:PATH, SSv2         | ViT-B, patch 16 | 64 devices  | 70.8 % fine-tuned (paper) | not run |
"""

from ssljax.config import base_config, variant_of


def demo():
    config = base_config("videomae")
    config.data.update(frames=8, stride=1, canvas=32)
    config.encoder.update(name="video_vit_micro")
    config.method.update(mask_ratio=0.75, decoder_width=64, decoder_depth=1, decoder_heads=4)
    config.views.update(name="multi_scale", size=32, scales=(1.0, 0.875))
    config.batch_size, config.epochs = 64, 12.0
    config.optimizer.update(
        name="adamw", learning_rate=2e-3, scaling="none", b2=0.95, weight_decay=0.05, warmup_epochs=0.5
    )
    config.log.every = 20
    config.evaluate.every = config.checkpoint.every = 250
    return config


def paper():
    """The authors' for Kinetics-400: 16 frames, four apart, of 224 x 224; 0.9 of the patches are hidden; 1.5e-4 · batch
    / 256 by AdamW (0.9, 0.95) with a batch of 2048, 40 epochs of warm-up from 1e-6, then a cosine to 1e-5; 800 epochs.

    The folder has a sub-folder for each class, or `train` and `val` with these.
    """
    config = base_config("videomae")
    config.data.source = "folder:PATH"
    config.data.test_split = "val"
    config.encoder.update(name="video_vit_b", scan=True)
    config.views.update(name="multi_scale", size=224)
    config.dtype = "bfloat16"
    config.batch_size, config.epochs = 2048, 800.0
    config.train.microbatch = 512  # of 1,024 at once, 64 chips of 16 GiB would need 20 GiB each
    config.optimizer.update(
        name="adamw",
        learning_rate=1.5e-4,
        b2=0.95,
        weight_decay=0.05,
        warmup_epochs=40.0,
        start=1e-6 / 1.2e-3,
        final=1e-5 / 1.2e-3,
        exclude=("bias", "scale", "mask_token"),
    )
    config.log.every = 50
    config.evaluate.every = config.checkpoint.every = 2350
    return config


def ssv2():
    """The authors' for Something-Something v2: frames two apart, 2400 epochs."""
    config = paper()
    config.data.stride = 2
    config.data.test_split = "validation"
    config.epochs = 2400.0
    return config


def get_config(variant=None):
    return variant_of({"demo": demo, "paper": paper, "ssv2": ssv2}, variant)
