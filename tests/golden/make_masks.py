"""Block masks and I-JEPA's multi-block masks by lightly: how often each patch is masked, over many draws."""

import random

import lightly
import numpy as np
import torch
from lightly.data.ijepa_collate import IJEPAMaskCollator
from lightly.models.utils import random_block_mask, random_block_mask_image
from seeded import save

GRID = (14, 14)
MASKS, BATCHES, BATCH = 5000, 800, 16
# patches to hide, smallest and largest block: BEiT, data2vec, DINOv2
BLOCKS = {"beit": (75, 16, None), "data2vec": (120, 16, 196), "dinov2": (60, 4, 98)}
# the published config, and blocks so large that some contexts must give up being outside of all targets
PUBLISHED = {"input_size": 224, "enc_mask_scale": (0.85, 1.0), "pred_mask_scale": (0.15, 0.2), "min_keep": 10}
CROWDED = {"input_size": 128, "enc_mask_scale": (0.5, 0.8), "pred_mask_scale": (0.3, 0.5), "min_keep": 14}
BOTH = {"patch_size": 16, "aspect_ratio": (0.75, 1.5), "nenc": 1, "npred": 4}


def dense(indexes, tokens):
    return torch.zeros(len(indexes), tokens).scatter_(1, indexes, 1.0)


def moments(name, values):
    """Mean and standard deviation over the first axis."""
    values = np.asarray(values, np.float64)
    return {f"{name}_mean": values.mean(axis=0), f"{name}_std": values.std(axis=0)}


def main():
    random.seed(0)
    torch.manual_seed(0)
    arrays = {"draws": np.array(MASKS), "batches": np.array(BATCHES)}
    for name, (hidden, smallest, largest) in BLOCKS.items():
        masks = torch.stack([random_block_mask_image(GRID, hidden, smallest, largest) for _ in range(MASKS)])
        masks = masks.reshape(MASKS, -1).numpy()
        arrays |= moments(name, masks) | moments(f"{name}_count", masks.sum(axis=1))

    batches = torch.stack([random_block_mask((BATCH, *GRID)) for _ in range(BATCHES)]).reshape(BATCHES, BATCH, -1)
    arrays |= moments("batch_count", batches.sum(dim=(1, 2)).numpy())

    for name, config in {"ijepa": PUBLISHED, "crowded": CROWDED}.items():
        collate = IJEPAMaskCollator(**config, **BOTH)
        drawn = [collate([torch.zeros(1)] * BATCH)[1:] for _ in range(BATCHES)]
        tokens = collate.height * collate.width
        # A batch is one draw: its images share the sizes of blocks.
        arrays |= moments(f"{name}_context", [dense(c[0], tokens).mean(0).numpy() for c, _ in drawn])
        arrays |= moments(
            f"{name}_target", [np.mean([dense(t, tokens).mean(0).numpy() for t in ts], 0) for _, ts in drawn]
        )
        arrays |= moments(f"{name}_kept", [c[0].shape[1] for c, _ in drawn])
    save("masks", f"lightly {lightly.__version__}, torch {torch.__version__}", **arrays)


if __name__ == "__main__":
    main()
