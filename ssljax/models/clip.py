"""The two towers of CLIP: a Vision Transformer, and a Transformer that reads a text from its beginning."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax.models.language import Embed, causal_mask, check_fields, token_at
from ssljax.models.transformer import Block, Stack
from ssljax.models.vit import ViT
from ssljax.typing import Array


class CLIPViT(ViT):
    """A ViT as OpenAI's: a norm before the first block too, no bias in the patch projection, learned positions, and the
    activation x σ(1.702 x), which their weights need. Features are those before CLIP's projection."""

    positions: str = "learned"
    epsilon: float = 1e-5
    initializer: str = "clip"

    pre_norm, patch_bias, activation = True, False, "quick_gelu"


class CLIPText(nn.Module):
    """Token ids (batch, tokens) -> the feature (batch, dim), float32, that CLIP compares with an image's, not
    normalised. The defaults are those beside ViT-B; see `clip_text_l`.

    eot: id of the token that ends a text, whose output is the feature, at the first place where it stands. None: it
    is the largest id of all, as in CLIP's vocabulary. dim: of the linear projection, which has no bias. activation:
    "quick_gelu" (OpenAI's weights) or "gelu" (OpenCLIP's). chunks: see `ssljax.models.run`; scan, remat: see `Stack`.

    A token sees those before it and itself, by pre-norm blocks, so whatever stands after the end has no effect, if only
    its ids are smaller.

    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.
    """

    vocabulary: int = 49408
    positions: int = 77
    width: int = 512
    depth: int = 12
    heads: int = 8
    mlp_ratio: float = 4.0
    activation: str = "quick_gelu"
    dim: int = 512
    eot: int | None = None
    epsilon: float = 1e-5
    scan: bool = False
    remat: str = ""
    chunks: int = 1
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        check_fields(self)

    @property
    def num_features(self) -> int:
        return self.dim

    @nn.compact
    def __call__(self, ids: Array, *, train: bool = False, axis: str | None = None, keys: Array | None = None) -> Array:
        """Nothing is random, and no statistic crosses examples: all but `ids` is accepted, as for every encoder, and
        not used. Raises ValueError unless ids are integers, (batch, tokens), no more than there are positions."""
        embed = Embed(
            self.vocabulary,
            self.positions,
            self.width,
            position_init=nn.initializers.normal(0.01),
            dtype=self.dtype,
            name="embed",
        )
        std = self.width**-0.5
        block = Block(
            self.heads,
            int(self.mlp_ratio * self.width),
            "pre",
            self.activation,
            self.epsilon,
            kernel_init=nn.initializers.normal(std),
            out_init=nn.initializers.normal(std / (2 * self.depth) ** 0.5),
            mlp_init=nn.initializers.normal(std / 2**0.5),
            dtype=self.dtype,
        )
        x = embed(ids)
        x = Stack(self.depth, block, self.scan, self.remat, name="encoder")(x, causal_mask(ids.shape[1]))
        x = token_at(x, jnp.argmax(ids if self.eot is None else ids == self.eot, axis=1))
        x = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm")(x)
        project = nn.Dense(
            self.dim, use_bias=False, kernel_init=nn.initializers.normal(std), dtype=self.dtype, name="project"
        )
        return project(x).astype(jnp.float32)


clip_vit_micro = partial(CLIPViT, patch=8, width=128, depth=3, heads=4)
clip_vit_b = partial(CLIPViT, patch=32, width=768, depth=12, heads=12)
clip_vit_l = partial(CLIPViT, patch=14, width=1024, depth=24, heads=16)
clip_text_b = partial(CLIPText)
clip_text_l = partial(CLIPText, width=768, heads=12, dim=768)
