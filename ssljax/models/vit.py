"""Vision Transformer: encoder of MAE and of every method that takes one, and the pieces that decoders share."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ssljax.models.attention import Attention, Dense, last_attention
from ssljax.models.positions import resize_positions, sincos_positions
from ssljax.models.remat import rematerialised
from ssljax.patches import cut
from ssljax.typing import Array, PyTree

XAVIER = nn.initializers.xavier_uniform()
# Xavier over the packed (dim -> 3 dim) projection, as timm and MAE have it: fan_in + fan_out = 4 dim, not 2 dim.
XAVIER_QKV = nn.initializers.variance_scaling(0.5, "fan_avg", "uniform")
TORCH_LINEAR = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # U(±1/√fan_in), PyTorch's default


class Initializers(NamedTuple):
    patch: nn.initializers.Initializer
    qkv: nn.initializers.Initializer
    dense: nn.initializers.Initializer
    prefix: nn.initializers.Initializer
    positions: nn.initializers.Initializer


NORMAL = nn.initializers.normal(0.02)  # timm's trunc_normal_ cuts at ±2, not at ±2 standard deviations
INITIALIZERS = {
    "mae": Initializers(XAVIER, XAVIER_QKV, XAVIER, NORMAL, NORMAL),
    "moco_v3": Initializers(XAVIER, XAVIER, XAVIER, nn.initializers.normal(1e-6), NORMAL),
    "dino": Initializers(TORCH_LINEAR, NORMAL, NORMAL, NORMAL, NORMAL),
    "ijepa": Initializers(NORMAL, NORMAL, NORMAL, NORMAL, NORMAL),
    # A token and its position, each with standard deviation 1 / √width, are one parameter here: the prefix.
    "clip": Initializers(
        TORCH_LINEAR,
        XAVIER_QKV,
        TORCH_LINEAR,
        nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        nn.initializers.variance_scaling(1.0, "fan_out", "normal"),
    ),
}


@jax.custom_jvp
def gelu(x: Array) -> Array:
    """x Φ(x) with the exact normal distribution function Φ, as in the reference ViTs; JAX approximates by default.

    Its derivative Φ(x) + x φ(x) is written out: JAX 0.12 failed to differentiate Φ under `shard_map` (as `erfc`).
    """
    return x * _normal_cdf(x)


@gelu.defjvp
def _gelu_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    density = jnp.exp(-0.5 * jnp.square(x)) * (2.0 * np.pi) ** -0.5
    return gelu(x), dx * (_normal_cdf(x) + x * density)


def _normal_cdf(x: Array) -> Array:
    """By `erf`, as PyTorch has it; `erfc` takes the TPU compiler much longer."""
    return 0.5 * (1.0 + jax.lax.erf(x * 0.5**0.5))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_tanh": lambda x: nn.gelu(x, approximate=True),  # GPT-2's
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),  # OpenAI's CLIP
}


class Block(nn.Module):
    """Pre-norm Transformer block: x + attention(norm(x)), then x + ffn(norm(x)).

    ffn: "mlp", W₂ a(W₁ x) with mlp_ratio · dim hidden units and the `activation` a, one of `ACTIVATIONS`, or "swiglu",
    W₂ (silu(V x) · W₁ x) with two thirds of them, rounded up to a multiple of 8 (Shazeer, "GLU Variants Improve
    Transformer", 2020; DINOv2).
    `layer_scale`: initial value of a learnt factor on both branches (None: no factor). `drop_path` in train mode drops
    both branches of an example with that probability; it needs one key an example.
    """

    heads: int
    mlp_ratio: float = 4.0
    ffn: str = "mlp"
    layer_scale: float | None = None
    epsilon: float = 1e-6
    initializer: str = "mae"
    dtype: DTypeLike = jnp.float32
    activation: str = "gelu"

    @nn.compact
    def __call__(self, x, drop_path: Array | float = 0.0, keys: Array | None = None, valid: Array | None = None):
        """x (batch, tokens, dim), keys (batch,) or None -> the same shape; see `Blocks`."""
        dim = x.shape[-1]
        init = INITIALIZERS[self.initializer]
        norm = partial(nn.LayerNorm, epsilon=self.epsilon, dtype=self.dtype)
        dense = partial(Dense, dtype=self.dtype, kernel_init=init.dense)
        attention = Attention(self.heads, init.qkv, init.dense, dtype=self.dtype, name="attention")
        y = attention(norm(name="norm1")(x), None if valid is None else valid[:, None, None, :])
        x = x + self._branch("scale1", y, drop_path, keys, 0)
        y = norm(name="norm2")(x)
        hidden = int(dim * self.mlp_ratio)
        if self.ffn == "swiglu":
            hidden = math.ceil(int(hidden * 2 / 3) / 8) * 8
            y = nn.silu(dense(hidden, name="gate")(y)) * dense(hidden, name="mlp1")(y)
        else:
            y = ACTIVATIONS[self.activation](dense(hidden, name="mlp1")(y))
        y = dense(dim, name="mlp2")(y)
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
    """`depth` blocks with drop-path growing linearly from 0 to `drop_path`, or as large in all (`drop_path_uniform`).

    `scan` compiles one block instead of `depth` (parameters get a leading layer axis); `remat` says what is kept for
    the backward pass (`rematerialised`).
    """

    depth: int
    heads: int
    mlp_ratio: float = 4.0
    ffn: str = "mlp"
    layer_scale: float | None = None
    drop_path: float = 0.0
    drop_path_uniform: bool = False
    epsilon: float = 1e-6
    initializer: str = "mae"
    scan: bool = False
    remat: str = ""
    dtype: DTypeLike = jnp.float32
    activation: str = "gelu"

    @nn.compact
    def __call__(self, x, keys: Array | None = None, last: int | None = None, valid: Array | None = None):
        """x (batch, tokens, dim) -> the same shape; with `last`, a tuple of the outputs of so many last blocks.

        valid (batch, tokens), bool: tokens that others attend to; what stands in the rest is padding (None: all count).
        """
        block = rematerialised(Block, self.remat)
        make = partial(
            block,
            self.heads,
            self.mlp_ratio,
            self.ffn,
            self.layer_scale,
            self.epsilon,
            self.initializer,
            self.dtype,
            self.activation,
        )
        first_rate = self.drop_path if self.drop_path_uniform else 0.0
        rates = np.linspace(first_rate, self.drop_path, self.depth, dtype=np.float32)
        if not self.scan:
            outputs = []
            for i, rate in enumerate(rates):
                x = make(name=f"block{i}")(x, float(rate), _fold(keys, i), valid)
                outputs.append(x)
            return x if last is None else tuple(outputs[-last:])

        def layer(module, carry, index_and_rate):
            x, kept = carry
            index, rate = index_and_rate
            x = module(x, rate, _fold(keys, index), valid)
            if last is not None:  # blocks before the last ones write where the first of these will
                kept = jax.lax.dynamic_update_index_in_dim(kept, x, jnp.maximum(index - self.depth + last, 0), 0)
            return (x, kept), None

        scanned = nn.scan(
            layer,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True},
            length=self.depth,
        )
        kept = None if last is None else jnp.broadcast_to(x, (last, *x.shape))
        layers = jnp.arange(self.depth), jnp.asarray(rates)
        x, kept = scanned(make(name="blocks"), (x, kept), layers)[0]
        return x if last is None else tuple(kept)


def _fold(keys: Array | None, layer) -> Array | None:
    return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, layer))(keys)


class ViT(nn.Module):
    """Images (batch, height, width, channels) -> features (batch, width), float32.

    positions: "sincos" (fixed; any size), or "learned": one a patch of the images that it is initialised with. Learned
      ones are resized to other images (local crops, evaluation) from a square grid, which a square number of them
      always is, with PyTorch's bicubic kernel. DINO and DINOv2 without registers have position_offset=0.1, DINOv2 with
      registers position_antialias=True; see `bicubic`.
    pool: "cls" (the class token's output) or "mean" (of the patches'; with `cls_token=False` there is no class token).
    registers: learnt tokens after the class token. Tokens are ordered [class, registers, patches]. What others learn
      as a class token and its position is one parameter here, their sum, as both are the same in every image (Adam so
      moves it half as far as the two).
    mask_token: whether there is one, to stand for the patches that are `masked`.
    ffn, layer_scale, drop_path: see `Block` and `Blocks`.
    freeze_patch_embed: no gradient reaches the patch projection, which stays as it was drawn (MoCo v3); the optimiser
      must leave it alone too.
    initializer: "mae" (Xavier-uniform, over the packed queries, keys and values), "moco_v3" (Xavier-uniform, over each
      of them; the prefix is nearly zero), "dino" (normal with standard deviation 0.02; patches as PyTorch's default),
      "ijepa" (all normal) or "clip" (PyTorch's defaults; prefix and positions normal, the wider the smaller).
    chunks: see `ssljax.models.run`.

    Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021; registers: Darcet et al., "Vision Transformers Need
    Registers", 2024.
    """

    patch: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    ffn: str = "mlp"
    positions: str = "sincos"
    position_offset: float = 0.0
    position_antialias: bool = False
    pool: str = "cls"
    cls_token: bool = True
    registers: int = 0
    mask_token: bool = False
    layer_scale: float | None = None
    drop_path: float = 0.0
    drop_path_uniform: bool = False
    epsilon: float = 1e-6
    freeze_patch_embed: bool = False
    initializer: str = "mae"
    scan: bool = False
    remat: str = ""
    chunks: int = 1
    dtype: DTypeLike = jnp.float32

    modality = "images"
    # What a kind of ViT has by itself, and a config does not say (`ssljax.models.clip`): a norm of the tokens before
    # the first block, a bias in the patch projection, and the activation in the blocks.
    pre_norm, patch_bias, activation = False, True, "gelu"

    def __post_init__(self):
        super().__post_init__()
        if self.positions not in ("learned", "sincos"):
            raise ValueError(f"positions '{self.positions}' are unknown; use 'learned' or 'sincos'.")
        if self.ffn not in ("mlp", "swiglu"):
            raise ValueError(f"ffn '{self.ffn}' is unknown; use 'mlp' or 'swiglu'.")
        if self.initializer not in INITIALIZERS:
            raise ValueError(f"initializer '{self.initializer}' is unknown; use one of {', '.join(INITIALIZERS)}.")
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
    def tokens(
        self,
        images,
        *,
        keep: Array | None = None,
        valid: Array | None = None,
        masked: Array | None = None,
        train: bool = False,
        keys: Array | None = None,
        last: int | None = None,
        norm: bool = True,
    ):
        """All tokens after the last norm: (batch, num_prefix + patches, width).

        keep (batch, kept): indexes of the patches that the encoder may see: the others cost nothing. Positions are
          added before patches are dropped.
        valid (batch, kept), bool: which of `keep` count; no token attends to the others, which are padding.
        masked (batch, patches), bool: which patches' embeddings are replaced by the mask token, before positions are
          added (iBOT, DINOv2, data2vec).
        last: a tuple of the outputs of so many last blocks instead, the last one's at the end; norm=False leaves them
          as they are (data2vec's targets), else each goes through the last norm (DINO's probe of several blocks).

        Raises ValueError if the patch does not divide the image, `masked` has another shape or there is no mask token,
        there are not so many blocks, or keys for drop-path are missing.
        """
        batch, height, width, _ = images.shape
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"images of {height}x{width} cannot be cut into patches of {self.patch}: let encoder.patch divide "
                "views.size, and views.local_size where there are local crops."
            )
        if train and self.drop_path and keys is None:
            raise ValueError(f"drop_path={self.drop_path} in train mode needs `keys`, one random key for each example.")
        if last is not None and not 0 < last <= self.depth:
            raise ValueError(f"the last {last} blocks were asked for, but there are {self.depth}.")
        grid = height // self.patch, width // self.patch
        patches = grid[0] * grid[1]
        init = INITIALIZERS[self.initializer]
        x = cut(images, (self.patch, self.patch))
        dense = nn.Dense
        if self.freeze_patch_embed:
            dense = nn.map_variables(dense, "params", jax.lax.stop_gradient, init=self.is_initializing())
        embed = dense(
            self.width, use_bias=self.patch_bias, kernel_init=init.patch, dtype=self.dtype, name="patch_embed"
        )
        x = embed(x)
        if self.mask_token:
            mask_token = self.param("mask_token", nn.initializers.zeros, (self.width,))
        if masked is not None:
            if not self.mask_token or masked.shape != (batch, patches):
                raise ValueError(
                    f"masked of shape {masked.shape} with mask_token={self.mask_token} is not possible; it must be "
                    f"{(batch, patches)}, and the encoder must have mask_token=True."
                )
            x = jnp.where(masked[:, :, None], mask_token.astype(x.dtype), x)
        if self.positions == "sincos":
            positions = jnp.asarray(sincos_positions(*grid, self.width))
        else:
            # Positions that are stored keep their number, whatever the size of these images.
            stored = self.get_variable("params", "positions") if self.has_variable("params", "positions") else None
            shape = (patches if stored is None else stored.shape[0], self.width)
            positions = self.param("positions", init.positions, shape)
            positions = resize_positions(positions, grid, self.position_offset, self.position_antialias)
        x = x + positions.astype(x.dtype)
        if keep is not None:
            x = jnp.take_along_axis(x, keep[:, :, None], axis=1)
        if self.num_prefix:
            prefix = self.param("prefix", init.prefix, (self.num_prefix, self.width))
            x = jnp.concatenate([jnp.broadcast_to(prefix.astype(x.dtype), (batch, *prefix.shape)), x], axis=1)
            if valid is not None:
                valid = jnp.concatenate([jnp.ones((batch, self.num_prefix), bool), valid], axis=1)
        layer_norm = partial(nn.LayerNorm, epsilon=self.epsilon, dtype=self.dtype)
        if self.pre_norm:
            x = layer_norm(name="pre_norm")(x)
        x = Blocks(
            self.depth,
            self.heads,
            self.mlp_ratio,
            self.ffn,
            self.layer_scale,
            self.drop_path,
            self.drop_path_uniform,
            self.epsilon,
            self.initializer,
            self.scan,
            self.remat,
            self.dtype,
            self.activation,
            name="encoder",
        )(x, keys if train and self.drop_path else None, last, valid)
        if not norm:
            return x
        final = layer_norm(name="norm")
        return final(x) if last is None else tuple(final(y) for y in x)


def attention_of_patches(encoder: ViT, params: PyTree, images: Array) -> tuple[Array, Array]:
    """(attention (batch, heads, patches), patches (batch, patches, width)), float32, of images in evaluation mode.

    attention: softmax(q kᵀ / √(width / heads)) of the last block, the class token's to each patch; what it leaves of 1
      is its attention to itself and to registers. Where there is no class token: the mean of the patches'.
    patches: their tokens after the last norm.

    Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021, figure 1.
    """
    tokens, sown = encoder.apply({"params": params}, images, method="tokens", mutable=["intermediates"])
    first = encoder.num_prefix
    to_patches = last_attention(sown["intermediates"]["encoder"])[..., first:]
    attention = to_patches[:, :, 0] if encoder.cls_token else to_patches[:, :, first:].mean(axis=2)
    return attention, tokens[:, first:].astype(jnp.float32)


vit_ti = partial(ViT, patch=16, width=192, depth=12, heads=3)
vit_s = partial(ViT, patch=16, width=384, depth=12, heads=6)
vit_b = partial(ViT, patch=16, width=768, depth=12, heads=12)
vit_l = partial(ViT, patch=16, width=1024, depth=24, heads=16)
vit_h = partial(ViT, patch=14, width=1280, depth=32, heads=16)
vit_g = partial(ViT, patch=14, width=1536, depth=40, heads=24, ffn="swiglu")
vit_micro = partial(ViT, patch=4, width=64, depth=4, heads=4)
