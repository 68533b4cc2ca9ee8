"""I-JEPA: from a part of an image, predict the representation of its other parts.

Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture", 2023.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax import collectives
from ssljax.collectives import example_keys
from ssljax.losses import instance_norm, layer_norm, smooth_l1
from ssljax.methods.images.image_method import momentum_network
from ssljax.methods.images.token_regression import TokenRegression
from ssljax.models import infer, initialise, run
from ssljax.models.positions import sincos_positions
from ssljax.models.vit import INITIALIZERS, NORMAL, Blocks, ViT
from ssljax.typing import Array, Batch, PyTree, TrainState, Variables
from ssljax.views.blocks import MultiBlock, multi_block, multi_block_reference
from ssljax.views.images import draw_views, fold, show_views


class Predictor(nn.Module):
    """Context tokens (n, kept, dim) and the places that are asked for -> predictions (n, tokens, dim), float32.

    A narrow Transformer over the context and a mask token at each place, with positions of its own.
    """

    width: int
    depth: int
    heads: int
    out: int
    grid: tuple[int, int]
    epsilon: float = 1e-6
    initializer: str = "dino"
    scan: bool = False
    remat: str = ""
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, context: Array, context_places: Array, context_valid: Array, places: Array, places_valid: Array):
        positions = jnp.asarray(sincos_positions(*self.grid, self.width), self.dtype)
        init = INITIALIZERS[self.initializer]
        x = nn.Dense(self.width, kernel_init=init.dense, dtype=self.dtype, name="embed")(context)
        x = x + positions[context_places]
        asked = self.param("mask_token", NORMAL, (self.width,)).astype(self.dtype) + positions[places]
        valid = jnp.concatenate([context_valid, places_valid], axis=1)
        x = Blocks(
            self.depth,
            self.heads,
            epsilon=self.epsilon,
            initializer=self.initializer,
            scan=self.scan,
            remat=self.remat,
            dtype=self.dtype,
            name="predictor",
        )(jnp.concatenate([x, asked], axis=1), valid=valid)
        x = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm")(x[:, context.shape[1] :])
        return nn.Dense(self.out, kernel_init=init.dense, name="project")(x.astype(jnp.float32))


@dataclass(frozen=True, eq=False)
class IJEPA(TokenRegression):
    """context: the encoder's tokens of the patches that it sees; for each of `targets` blocks a predictor, given the
    context and the block's places, predicts the target encoder's tokens there, of the whole image, each normalised
    without scale and offset; loss `smooth_l1` with beta 1.

    mask: "unbiased" (every image has its own blocks, as many tokens as any other, and no side is preferred) or
    "reference" (the authors': block sizes are one for a batch, contexts are cut at the end to the shortest of the
    batch, so that the lower right is seen less). context_share: of the patches that the unbiased context holds.
    `target_std` is of all tokens, before they are normalised.
    """

    targets: int = 4
    context_scale: tuple[float, float] = (0.85, 1.0)
    target_scale: tuple[float, float] = (0.15, 0.2)
    aspect: tuple[float, float] = (0.75, 1.5)
    min_keep: int = 10
    mask: str = "unbiased"
    context_share: float = 0.25
    predictor_width: int = 384
    predictor_depth: int = 12
    predictor_heads: int = 12
    momentum: float = 0.996
    momentum_schedule: str = "linear"

    caption = "the image, what the encoder sees of it, and the blocks whose representation it must predict"

    def __post_init__(self):
        if not isinstance(self.encoder, ViT) or self.encoder.num_prefix or self.encoder.pool != "mean":
            raise ValueError(
                "I-JEPA's encoder sees some patches and nothing else: choose an encoder vit_* with "
                "--config.encoder.cls_token=False --config.encoder.pool=mean and no registers."
            )
        super().__post_init__()
        self._expect_views(1, "'ijepa'")
        if self.predictor_width % self.predictor_heads:
            raise ValueError(
                f"--config.method.predictor_heads={self.predictor_heads} must divide predictor_width, which is "
                f"{self.predictor_width}."
            )
        if self.predictor_width % 4:
            raise ValueError(f"--config.method.predictor_width={self.predictor_width} must be a multiple of 4.")
        if self.mask not in ("unbiased", "reference"):
            raise ValueError(f"mask '{self.mask}' is unknown; use 'unbiased' or 'reference'.")

    @property
    def predictor(self) -> Predictor:
        e = self.encoder
        return Predictor(
            self.predictor_width,
            self.predictor_depth,
            self.predictor_heads,
            e.width,
            self.grid,
            e.epsilon,
            e.initializer,
            e.scan,
            e.remat,
            e.dtype,
        )

    def init(self, key: Array, batch: Batch) -> Variables:
        encoder_key, predictor_key = jax.random.split(key)
        images, _, _ = self.views(example_keys(key, len(batch["image"])), batch)
        encoder, _ = initialise(self.encoder, encoder_key, images)
        tokens, place, valid = jnp.zeros((1, 1, self.encoder.width)), jnp.zeros((1, 1), int), jnp.ones((1, 1), bool)
        predictor, _ = initialise(self.predictor, predictor_key, tokens, place, valid, place, valid)
        target = momentum_network({"encoder": encoder}, {})
        params = {"encoder": encoder, "predictor": predictor}
        return Variables(params=params, model_state={"encoder": {}}, target=target, extra={})

    def views(self, keys: Array, batch: Batch) -> tuple[Array, Array, Array]:
        """The view, a key for its masks and one for drop-path."""
        (images,) = draw_views(self.augmentations, fold(keys, 0), batch)
        return images, fold(keys, 1), fold(keys, 2)

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        images, mask_keys, keys = views
        mask = self._mask(mask_keys, key, axis)
        n, blocks, asked = mask.target.shape
        # 1) The target encoder sees all; its tokens are normalised, and then the blocks are taken out.
        target_encoder, target_params = self.encoder.clone(drop_path=0.0), state.target["params"]["encoder"]
        whole, _ = run(target_encoder, target_params, {}, images, method="tokens")
        whole = whole.astype(jnp.float32)
        tokens = instance_norm(whole) if self.target_norm == "instance" else whole
        places = mask.target.reshape(n, -1)
        target = jnp.take_along_axis(layer_norm(tokens), places[:, :, None], axis=1)
        # 2) The encoder sees the context.
        seen = {"keep": mask.context, "valid": mask.context_valid, "keys": keys}
        context, _ = run(self.encoder, params["encoder"], {}, images, method="tokens", **seen)
        # 3) Each block is predicted by itself, from the same context.
        repeated = [jnp.repeat(x, blocks, axis=0) for x in (context, mask.context, mask.context_valid)]
        of_blocks = [x.reshape(n * blocks, asked) for x in (mask.target, mask.target_valid)]
        prediction = infer(self.predictor, params["predictor"], {}, *repeated, *of_blocks)
        prediction = prediction.reshape(n, blocks * asked, -1)
        # 4) All tokens of all blocks count alike.
        valid = mask.target_valid.reshape(n, -1)
        return smooth_l1(prediction, target, weights=valid, axis=axis), {
            "metrics": {
                "target_std": collectives.std(whole, axis),
                "prediction_std": collectives.std(jax.lax.stop_gradient(prediction), axis, valid),
            },
            "features": whole.mean(axis=1),
            "embeddings": (),
        }

    def evaluated(self, state: Variables) -> tuple[PyTree, PyTree]:
        """The target encoder's."""
        return state.target["params"]["encoder"], {}

    def show(self, state: Variables, batch: Batch, keys: Array) -> Array:
        """The view, its context, and its targets."""
        view = show_views(self.augmentations, fold(keys, 0), batch)[:, 1]
        mask = self._mask(fold(keys, 1), jax.random.key(0), None)
        tokens, side, patch = self.grid[0] * self.grid[1], self.grid[0], self.encoder.patch

        def picture(places, valid):
            places, valid = places.reshape(len(view), -1), valid.reshape(len(view), -1)
            covered = jnp.zeros((len(view), tokens)).at[jnp.arange(len(view))[:, None], places].max(valid * 1.0)
            covered = covered.reshape(-1, side, side).repeat(patch, axis=1).repeat(patch, axis=2)
            return view * covered[:, :, :, None]

        columns = view, picture(mask.context, mask.context_valid), picture(mask.target, mask.target_valid)
        return jnp.stack(columns, axis=1)

    def _mask(self, keys: Array, key: Array, axis: str | None) -> MultiBlock:
        names = "targets", "context_scale", "target_scale", "aspect", "min_keep"
        options: dict[str, Any] = {name: getattr(self, name) for name in names}
        if self.mask == "reference":
            return multi_block_reference(key, len(keys), self.grid, **options, axis=axis)
        kept = max(1, int(self.context_share * self.grid[0] * self.grid[1]))
        return multi_block(keys, self.grid, kept, **options)
