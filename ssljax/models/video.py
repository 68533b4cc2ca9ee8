"""VideoMAE: a Vision Transformer over tubelets, of which it sees a few, and the decoder that paints the others."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ssljax.models.decoder import PixelDecoder
from ssljax.models.vit import TORCH_LINEAR, Blocks
from ssljax.patches import cut
from ssljax.typing import Array


def sinusoid_positions(count: int, dim: int) -> np.ndarray:
    """Fixed one-dimensional sine-cosine positions (count, dim): number p of place i is sin(p w) where i is even and
    cos(p w) where it is odd, with w = 10000^(-2 ⌊i / 2⌋ / dim). Raises ValueError unless 2 divides dim."""
    if dim % 2:
        raise ValueError(f"sin-cos positions need a width that 2 divides, but it is {dim}.")
    angles = np.outer(np.arange(count), 10000.0 ** (-np.arange(0, dim, 2, dtype=np.float64) / dim))
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(count, dim).astype(np.float32)


class VideoViT(nn.Module):
    """Videos (batch, frames, height, width, channels) -> features (batch, width), float32: the mean of its tokens.

    tubelet, patch: frames and pixels that a token is long and wide. Positions are fixed and count through all tokens,
    slot by slot and row by row. drop_path, scan, remat: see `Blocks`; chunks: see `ssljax.models.run`.

    The authors' keys have no bias (queries and values do); here they have one, which changes nothing: it adds the same
    to all logits of a query, so that softmax takes it out, and it gets no gradient.

    Tong et al., "VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video Pre-Training",
    2022.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    patch: int = 16
    tubelet: int = 2
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    drop_path_uniform: bool = False
    epsilon: float = 1e-6
    scan: bool = False
    remat: str = ""
    chunks: int = 1
    dtype: DTypeLike = jnp.float32

    modality = "video"

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be divisible by heads {self.heads}.")

    @property
    def num_features(self) -> int:
        return self.width

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """(slots, rows, columns) of the tokens of such videos. Raises ValueError if they cannot be cut so."""
        if frames % self.tubelet or height % self.patch or width % self.patch:
            raise ValueError(
                f"videos of {frames} frames of {height}x{width} cannot be cut into tubelets of {self.tubelet} frames "
                f"of {self.patch}x{self.patch}: let encoder.tubelet divide the frames and encoder.patch the sides."
            )
        return frames // self.tubelet, height // self.patch, width // self.patch

    def __call__(self, videos, *, train: bool = False, axis: str | None = None, keys: Array | None = None):
        """`axis` is accepted, as for every encoder, and not used: no statistic crosses examples."""
        return self.tokens(videos, train=train, keys=keys).astype(jnp.float32).mean(axis=1)

    @nn.compact
    def tokens(self, videos, *, keep: Array | None = None, train: bool = False, keys: Array | None = None) -> Array:
        """All tokens after the last norm (batch, tokens, width); those of `keep` (batch, kept) alone where it is given:
        the others then cost nothing. Raises ValueError as `grid`, or if keys for drop-path are missing."""
        if train and self.drop_path and keys is None:
            raise ValueError(f"drop_path={self.drop_path} in train mode needs `keys`, one random key for each example.")
        slots, rows, columns = self.grid(*videos.shape[1:4])
        x = cut(videos, (self.tubelet, self.patch, self.patch))
        positions = jnp.asarray(sinusoid_positions(slots * rows * columns, self.width), self.dtype)
        if keep is None:
            places = positions
        else:
            x, places = jnp.take_along_axis(x, keep[:, :, None], axis=1), positions[keep]
        x = nn.Dense(self.width, kernel_init=TORCH_LINEAR, dtype=self.dtype, name="patch_embed")(x) + places
        x = Blocks(
            self.depth,
            self.heads,
            self.mlp_ratio,
            drop_path=self.drop_path,
            drop_path_uniform=self.drop_path_uniform,
            epsilon=self.epsilon,
            scan=self.scan,
            remat=self.remat,
            dtype=self.dtype,
            name="encoder",
        )(x, keys if train and self.drop_path else None)
        return nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm")(x)


video_vit_micro = partial(VideoViT, patch=8, width=64, depth=4, heads=4)
video_vit_s = partial(VideoViT, width=384, depth=12, heads=6)
video_vit_b = partial(VideoViT)
video_vit_l = partial(VideoViT, width=1024, depth=24, heads=16)
video_vit_h = partial(VideoViT, width=1280, depth=32, heads=16)


class VideoDecoder(PixelDecoder):
    """Encoded visible tokens (batch, kept, dim) -> pixels of the hidden ones (batch, hidden, pixels), float32.

    The tokens are [visible, mask], not put back in their places: positions say where each belongs. The paper's decoder
    has half the encoder's width, 4 blocks and heads of 64.
    """

    def __call__(self, tokens: Array, keep: Array, hide: Array) -> Array:
        """keep (batch, kept) and hide (batch, hidden): indexes of the tokens, which together are all of them."""
        positions = jnp.asarray(sinusoid_positions(keep.shape[1] + hide.shape[1], self.width), self.dtype)
        init = nn.initializers.truncated_normal(0.02, lower=-1.0, upper=1.0)  # the authors cut at one deviation

        def together(visible: Array, mask_token: Array) -> Array:
            hidden = mask_token.astype(self.dtype) + positions[hide]
            return jnp.concatenate([visible + positions[keep], hidden], axis=1)

        return self.paint(tokens, together, first=keep.shape[1], bias=False, mask_init=init)
