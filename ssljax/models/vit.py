"""Vision Transformer: encoder of MAE and of every method that takes one, and the pieces that decoders share."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.typing import DTypeLike

from ssljax.typing import Array

XAVIER = nn.initializers.xavier_uniform()
# Xavier over the packed (dim -> 3 dim) projection, as timm and MAE have it: fan_in + fan_out = 4 dim, not 2 dim.
XAVIER_QKV = nn.initializers.variance_scaling(0.5, "fan_avg", "uniform")


def sincos_positions(rows: int, columns: int, dim: int) -> np.ndarray:
    """Fixed two-dimensional sine-cosine positions of MAE: (rows * columns, dim), the column's half first.

    Each half is [sin(p w), cos(p w)] with w_i = 10000^(-i / (dim / 4)). Raises ValueError unless 4 divides dim.
    """
    if dim % 4:
        raise ValueError(f"sin-cos positions need a width that 4 divides, but it is {dim}.")
    frequency = 1.0 / 10000 ** (np.arange(dim // 4, dtype=np.float64) / (dim / 4))
    y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    angles = [np.outer(place.ravel(), frequency) for place in (x, y)]
    return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1).astype(np.float32)


@jax.custom_jvp
def gelu(x: Array) -> Array:
    """x Φ(x) with the exact normal distribution function Φ, as in the reference ViTs; JAX approximates by default.

    Its derivative Φ(x) + x φ(x) is written out because JAX 0.12 cannot differentiate `erfc` under `shard_map`.
    """
    return x * _normal_cdf(x)


@gelu.defjvp
def _gelu_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    density = jnp.exp(-0.5 * jnp.square(x)) * (2.0 * np.pi) ** -0.5
    return gelu(x), dx * (_normal_cdf(x) + x * density)


def _normal_cdf(x: Array) -> Array:
    return 0.5 * jax.lax.erfc(-x * 0.5**0.5)


class Block(nn.Module):
    """Pre-norm Transformer block: x + attention(norm(x)), then x + mlp(norm(x)).

    `layer_scale`: initial value of a learnt factor on both branches (None: no factor). `drop_path` in train mode drops
    both branches of an example with that probability; it needs one key an example.
    """

    heads: int
    mlp_ratio: float = 4.0
    layer_scale: float | None = None
    epsilon: float = 1e-6
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, drop_path: Array | float = 0.0, keys: Array | None = None):
        """x (batch, tokens, dim), keys (batch,) or None -> the same shape."""
        dim = x.shape[-1]
        norm = partial(nn.LayerNorm, epsilon=self.epsilon, dtype=self.dtype)
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=XAVIER)
        y = nn.MultiHeadDotProductAttention(
            self.heads,
            dtype=self.dtype,
            kernel_init=XAVIER_QKV,
            out_kernel_init=XAVIER,
            deterministic=True,
            force_fp32_for_softmax=True,
            name="attention",
        )(norm(name="norm1")(x))
        x = x + self._branch("scale1", y, drop_path, keys, 0)
        y = dense(int(dim * self.mlp_ratio), name="mlp1")(norm(name="norm2")(x))
        y = dense(dim, name="mlp2")(gelu(y))
        return x + self._branch("scale2", y, drop_path, keys, 1)

    def _branch(self, name: str, y, drop_path, keys, salt: int):
        if self.layer_scale is not None:
            y = y * self.param(f"layer_{name}", nn.initializers.constant(self.layer_scale), (y.shape[-1],)).astype(
                y.dtype
            )
        if keys is None:
            return y
        drawn = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, salt)))(keys)
        kept = (drawn >= drop_path) / (1.0 - drop_path)
        return y * kept.astype(y.dtype)[:, None, None]


class Blocks(nn.Module):
    """`depth` blocks with drop-path growing linearly from 0 to `drop_path`.

    `scan` compiles one block instead of `depth` (parameters get a leading layer axis); `remat` keeps only the blocks'
    inputs for the backward pass.
    """

    depth: int
    heads: int
    mlp_ratio: float = 4.0
    layer_scale: float | None = None
    drop_path: float = 0.0
    epsilon: float = 1e-6
    scan: bool = False
    remat: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, keys: Array | None = None):
        block = nn.remat(Block) if self.remat else Block
        make = partial(block, self.heads, self.mlp_ratio, self.layer_scale, self.epsilon, self.dtype)
        rates = np.linspace(0.0, self.drop_path, self.depth, dtype=np.float32)
        if not self.scan:
            for i, rate in enumerate(rates):
                x = make(name=f"block{i}")(x, float(rate), _fold(keys, i))
            return x

        def layer(module, x, index_and_rate):
            index, rate = index_and_rate
            return module(x, rate, _fold(keys, index)), None

        scanned = nn.scan(layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.depth)
        return scanned(make(name="blocks"), x, (jnp.arange(self.depth), jnp.asarray(rates)))[0]


def _fold(keys: Array | None, layer) -> Array | None:
    return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, layer))(keys)


class ViT(nn.Module):
    """Images (batch, height, width, channels) -> features (batch, width), float32.

    positions: "learned" (one a patch, for one image size) or "sincos" (fixed; any size). pool: "cls" (the class
    token's output) or "mean" (of the patches'; with `cls_token=False` there is no class token). Registers are learnt
    tokens after the class token. Tokens are ordered [class, registers, patches]. chunks: see `ssljax.models.run`.

    Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021; registers: Darcet et al., 2024.
    """

    patch: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    positions: str = "sincos"
    pool: str = "cls"
    cls_token: bool = True
    registers: int = 0
    layer_scale: float | None = None
    drop_path: float = 0.0
    epsilon: float = 1e-6
    scan: bool = False
    remat: bool = False
    chunks: int = 1
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        if self.positions not in ("learned", "sincos"):
            raise ValueError(f"positions '{self.positions}' are unknown; use 'learned' or 'sincos'.")
        if self.pool not in ("cls", "mean") or (self.pool == "cls" and not self.cls_token):
            raise ValueError(
                f"pool '{self.pool}' with cls_token={self.cls_token} is not possible; use 'cls' with a class token, "
                "or 'mean'."
            )
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be divisible by heads {self.heads}.")

    @property
    def num_features(self) -> int:
        return self.width

    @property
    def num_prefix(self) -> int:
        """Tokens before the patches: class and registers."""
        return int(self.cls_token) + self.registers

    def __call__(self, images, *, train: bool = False, axis: str | None = None, keys: Array | None = None):
        """`axis` is accepted, as for every encoder, and not used: no statistic crosses examples."""
        tokens = self.tokens(images, train=train, keys=keys).astype(jnp.float32)
        return tokens[:, 0] if self.pool == "cls" else tokens[:, self.num_prefix :].mean(axis=1)

    @nn.compact
    def tokens(self, images, *, keep: Array | None = None, train: bool = False, keys: Array | None = None):
        """All tokens after the last norm: (batch, num_prefix + patches, width).

        `keep` (batch, kept) holds the indexes of the patches that the encoder may see: the others cost nothing.
        Positions are added before patches are dropped. Raises ValueError if the patch does not divide the image.
        """
        batch, height, width, _ = images.shape
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"images of {height}x{width} cannot be cut into patches of {self.patch}: make one divide the other."
            )
        if train and self.drop_path and keys is None:
            raise ValueError(f"drop_path={self.drop_path} in train mode needs `keys`, one random key for each example.")
        grid = height // self.patch, width // self.patch
        x = rearrange(images, "b (h p) (w q) c -> b (h w) (p q c)", p=self.patch, q=self.patch)
        x = nn.Dense(self.width, kernel_init=XAVIER, dtype=self.dtype, name="patch_embed")(x)
        if self.positions == "sincos":
            positions = jnp.asarray(sincos_positions(*grid, self.width))
        else:
            positions = self.param("positions", nn.initializers.normal(0.02), (grid[0] * grid[1], self.width))
        x = x + positions.astype(x.dtype)
        if keep is not None:
            x = jnp.take_along_axis(x, keep[:, :, None], axis=1)
        if self.num_prefix:
            prefix = self.param("prefix", nn.initializers.normal(0.02), (self.num_prefix, self.width))
            x = jnp.concatenate([jnp.broadcast_to(prefix.astype(x.dtype), (batch, *prefix.shape)), x], axis=1)
        x = Blocks(
            self.depth,
            self.heads,
            self.mlp_ratio,
            self.layer_scale,
            self.drop_path,
            self.epsilon,
            self.scan,
            self.remat,
            self.dtype,
            name="encoder",
        )(x, keys if train and self.drop_path else None)
        return nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm")(x)


vit_ti = partial(ViT, patch=16, width=192, depth=12, heads=3)
vit_s = partial(ViT, patch=16, width=384, depth=12, heads=6)
vit_b = partial(ViT, patch=16, width=768, depth=12, heads=12)
vit_l = partial(ViT, patch=16, width=1024, depth=24, heads=16)
vit_h = partial(ViT, patch=14, width=1280, depth=32, heads=16)
vit_micro = partial(ViT, patch=4, width=128, depth=4, heads=4)
