"""What stands on an encoder while it is pretrained, and is thrown away afterwards."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax.models.norm import BatchNorm
from ssljax.models.vit import NORMAL, TORCH_LINEAR, gelu
from ssljax.numerics import normalize
from ssljax.typing import Array, PyTree


class MLP(nn.Module):
    """Dense layers with ReLU between them: (batch, dim) or (batch, tokens, dim) -> (…, widths[-1]), float32.

    norm: BatchNorm after every dense layer but the last. last_norm: what follows the last one: "none", "scale"
    (BatchNorm without offset) or "plain" (with neither scale nor offset). first: if not None, the output is that of so
    many first layers, of which 0 are none. hidden_bias, last_bias: whether dense layers
    have a bias; None: where no BatchNorm follows, which would take it out again. The papers':

    | head | fields |
    |---|---|
    | SimCLR | last_norm="scale" |
    | MoCo v2 | norm=False |
    | MoCo v3; SimSiam's projector | last_norm="plain" |
    | MoCo v3's predictor on a ResNet; Barlow Twins | last_bias=False |
    | BYOL's, both; VICReg | hidden_bias=True, last_bias=False |
    | SimSiam's predictor | |
    | SwAV | hidden_bias=True |
    """

    widths: Sequence[int]
    norm: bool = True
    last_norm: str = "none"
    first: int | None = None
    hidden_bias: bool | None = None
    last_bias: bool | None = None
    activation: Callable[[Array], Array] = nn.relu
    kernel_init: nn.initializers.Initializer = TORCH_LINEAR
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, *, train: bool, axis: str | None = None):
        for i, width in enumerate(self.widths[: self.first], start=1):
            last = i == len(self.widths)
            normed = self.last_norm != "none" if last else self.norm
            bias = self.last_bias if last else self.hidden_bias
            x = nn.Dense(
                width,
                use_bias=not normed if bias is None else bias,
                dtype=self.dtype,
                kernel_init=self.kernel_init,
                name=f"dense{i}",
            )(x)
            if normed:
                norm = BatchNorm(
                    use_bias=not last,
                    use_scale=not last or self.last_norm == "scale",
                    dtype=self.dtype,
                    name=f"norm{i}",
                )
                x = norm(x, train=train, axis=axis)
            x = x if last else self.activation(x)
        return x.astype(jnp.float32)


class DINOHead(nn.Module):
    """Logits of `count` prototypes: (batch, dim) or (batch, tokens, dim) -> (…, count), float32.

    An MLP of `layers` dense layers with GELU between them, z = mlp(x) / |mlp(x)| of `bottleneck` numbers, then
    logits_k = g_k z · v_k / |v_k|. norm_last_layer: g is 1 and no parameter (DINO by default), else learnt from 1 on
    (DINO's ViT-S, iBOT, DINOv2). norm: BatchNorm in the MLP (DINO with a ResNet).

    patch_count: another last layer, of so many prototypes, that gives the logits with `patches=True`: iBOT's head for
    patches, where it is not shared. The last layers are `last_layer` and `last_layer2` among the parameters, so that an
    optimiser can hold them by name in the first epoch.

    Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021;
    Zhou et al., "iBOT: Image BERT Pre-Training with Online Tokenizer", 2022.
    """

    count: int = 65536
    patch_count: int | None = None
    layers: int = 3
    hidden: int = 2048
    bottleneck: int = 256
    norm: bool = False
    norm_last_layer: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, *, train: bool, axis: str | None = None, patches: bool = False):
        """Raises ValueError if there is no such last layer."""
        if patches and self.patch_count is None:
            raise ValueError("this head has no last layer for patches of their own: set patch_count.")
        widths = (self.hidden,) * (self.layers - 1) + (self.bottleneck,)
        mlp = MLP(widths, norm=self.norm, activation=gelu, kernel_init=NORMAL, dtype=self.dtype, name="mlp")
        z = normalize(mlp(x, train=train, axis=axis))
        logits = WeightNormDense(self.count, self.norm_last_layer, name="last_layer")(z)
        if self.patch_count is None:
            return logits
        # Both exist, whichever was asked for at first; under jit the other is not computed.
        of_patches = WeightNormDense(self.patch_count, self.norm_last_layer, name="last_layer2")(z)
        return of_patches if patches else logits


class WeightNormDense(nn.Module):
    """x (…, dim) -> g_k x · v_k / |v_k| for k of `features`, float32; g is learnt from 1 on, or 1 if `fixed`.

    Salimans and Kingma, "Weight Normalization", 2016.
    """

    features: int
    fixed: bool = False

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", TORCH_LINEAR, (x.shape[-1], self.features))
        y = jnp.matmul(x.astype(jnp.float32), normalize(kernel, axis=0), precision=jax.lax.Precision.HIGHEST)
        return y if self.fixed else y * self.param("g", nn.initializers.ones, (self.features,))


class Prototypes(nn.Module):
    """x (…, dim) -> x · c_k for `count` prototypes c_k, float32 (SwAV); x is expected to have length 1.

    The prototypes are rows of length 1 of the parameter `prototypes` (count, dim) when they are initialised, and a
    method keeps them so by `normalize_prototypes` after each step of the optimiser. SwAV normalises the stored weights
    before each forward pass, so both see the same prototypes, and no gradient goes through the normalisation in either.

    Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", 2020.
    """

    count: int

    @nn.compact
    def __call__(self, x):
        prototypes = self.param("prototypes", _unit_rows, (self.count, x.shape[-1]))
        return jnp.matmul(x.astype(jnp.float32), prototypes.T, precision=jax.lax.Precision.HIGHEST)


def normalize_prototypes(params: PyTree) -> PyTree:
    """The parameters of `Prototypes` with rows of length 1."""
    return jax.tree.map(normalize, params)


def _unit_rows(key: Array, shape: tuple[int, int], dtype: DTypeLike = jnp.float32) -> Array:
    return normalize(TORCH_LINEAR(key, shape[::-1], dtype).T)
