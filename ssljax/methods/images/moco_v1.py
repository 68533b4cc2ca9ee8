"""MoCo v1: momentum contrast with a linear projector.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", 2020.
"""

from dataclasses import dataclass

from ssljax.methods.images.moco_v2 import MoCoV2


@dataclass(frozen=True, eq=False)
class MoCoV1(MoCoV2):
    """As `MoCoV2`, which came of it by another projector, temperature and augmentation; queue, momentum network and
    ShuffleBN (`encoder.bn_groups`) are the same."""

    projector: tuple[int, ...] = (128,)
    temperature: float = 0.07
