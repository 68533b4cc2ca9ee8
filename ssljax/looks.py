"""Pictures of what an encoder looks at, and of what a decoder paints where it sees less and less."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from matplotlib import colormaps

from ssljax.evals.patches import held, principal_colours
from ssljax.modalities.modality import Modality
from ssljax.models.vit import ViT
from ssljax.typing import Array, Batch, Method, Variables

SHARE = 0.6
"""Of a head's attention that its mask holds, as DINO draws it."""
FADED, GREY = 0.2, 0.55
"""How much of an image is left outside of a mask, and what is there for the rest: dark and bright images fade alike."""

Seen = tuple[str, str, np.ndarray]
"""A heading, what the lines and columns are, and pictures (examples, lines, columns, height, width, 3) in [0, 1]."""


def looks(method: Method, modality: Modality, state: Variables, batch: Batch, keys: Array) -> tuple[Seen, ...]:
    """All that there is to see of these examples; nothing of a method whose encoder is no ViT of images."""
    seen = []
    if isinstance(getattr(method, "encoder", None), ViT) and hasattr(method, "look"):
        seen.append(_attention(method, state, batch))
    if hasattr(method, "shown_ratios"):
        seen.append(_reconstructions(method, modality, state, batch, keys))
    return tuple(seen)


def _attention(method: Any, state: Variables, batch: Batch) -> Seen:
    images, attention, tokens = map(np.asarray, jax.jit(method.look)(state, batch))
    patch = method.encoder.patch
    colours = _painted(principal_colours(tokens), images.shape, patch)
    per_head = attention.transpose(1, 0, 2)
    relative = [a / a.max(axis=1, keepdims=True) for a in per_head]
    heat = [_painted(colormaps["viridis"](a)[..., :3], images.shape, patch) for a in relative]
    masks = [_painted(held(a, SHARE)[..., None], images.shape, patch) for a in per_head]
    kept = [np.where(mask, images, FADED * images + (1 - FADED) * GREY) for mask in masks]
    pictures = np.stack([np.stack([images, *heat], axis=1), np.stack([colours, *kept], axis=1)], axis=1)
    whose = "the class token's" if method.encoder.cls_token else "the patches' mean (there is no class token)"
    return (
        "What the encoder looks at",
        f"Each group, above: the image, and {whose} attention in the last block, head by head (yellow: much); below: "
        "the patches' first three principal components as red, green and blue, the same in all images, and of each "
        f"head the patches that hold {100 * SHARE:.0f} % of its attention.",
        pictures,
    )


def _painted(patches: np.ndarray, shape: tuple[int, ...], patch: int) -> np.ndarray:
    """(images, patches, channels) -> (images, height, width, channels): each patch all of one colour."""
    n, height, width, _ = shape
    grid = patches.reshape(n, height // patch, width // patch, -1)
    return grid.repeat(patch, axis=1).repeat(patch, axis=2)


def _reconstructions(method: Any, modality: Modality, state: Variables, batch: Batch, keys: Array) -> Seen:
    columns: list[np.ndarray] = []
    for ratio in method.shown_ratios:
        show = jax.jit(replace(method, mask_ratio=ratio).show)
        whole, seen, painted = np.moveaxis(modality.pictures(show(state, batch, keys)), 1, 0)
        columns += [seen, painted] if columns else [whole, seen, painted]
    ratios = ", ".join(f"{100 * ratio:.0f} %" for ratio in method.shown_ratios)
    return (
        "Reconstructions",
        f"Each line: the original, then what is seen of it and what is painted, with {ratios} hidden; what is hidden "
        f"stays so where more is. Trained with {100 * method.mask_ratio:.0f} % hidden.",
        np.stack(columns, axis=1)[:, None],
    )
