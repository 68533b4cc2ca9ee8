"""What the last block of a Vision Transformer attends to."""

import jax.numpy as jnp

from ssljax.models.vit import ViT
from ssljax.typing import Array, PyTree


def last_attention(encoder: ViT, params: PyTree, images: Array) -> tuple[Array, Array]:
    """(attention (batch, heads, patches), patches (batch, patches, width)), float32, of images in evaluation mode.

    attention: softmax(q kᵀ / √(width / heads)) of the last block, the class token's to each patch; what it leaves of 1
      is its attention to itself and to registers. Where there is no class token: the mean of the patches'.
    patches: their tokens after the last norm.

    Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021, figure 1.
    """
    tokens, sown = encoder.apply({"params": params}, images, method="tokens", mutable=["intermediates"])
    blocks = sown["intermediates"]["encoder"]
    if encoder.scan:
        (weights,) = blocks["blocks"]["attention"]["attention_weights"]
        weights = weights[-1]
    else:
        (weights,) = blocks[f"block{encoder.depth - 1}"]["attention"]["attention_weights"]
    first = encoder.num_prefix
    to_patches = weights[..., first:].astype(jnp.float32)
    attention = to_patches[:, :, 0] if encoder.cls_token else to_patches[:, :, first:].mean(axis=2)
    return attention, tokens[:, first:].astype(jnp.float32)
