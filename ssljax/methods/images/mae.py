"""MAE: the encoder sees a quarter of the patches, a small decoder paints the rest.

He et al., "Masked Autoencoders Are Scalable Vision Learners", 2022.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssljax.collectives import example_keys
from ssljax.losses.reconstruction import mae_loss, patch_statistics, patchify, unpatchify
from ssljax.methods.images.image_method import ImageMethod
from ssljax.models import infer, initialise
from ssljax.models.decoder import PixelDecoder
from ssljax.models.positions import sincos_positions
from ssljax.models.vit import ViT
from ssljax.typing import Array, Batch, TrainState, Variables
from ssljax.views.images import Augment, draw_views, fold, unnormalize
from ssljax.views.masks import Mask, mae_mask, unshuffle


class Decoder(PixelDecoder):
    """Encoded visible tokens (batch, prefix + kept, dim) -> pixels of every patch (batch, patches, pixels), float32."""

    prefix: int = 1

    def __call__(self, tokens: Array, restore: Array, grid: tuple[int, int]) -> Array:
        def together(x: Array, mask_token: Array) -> Array:
            patches = unshuffle(x[:, self.prefix :], mask_token, restore)
            patches = patches + jnp.asarray(sincos_positions(*grid, self.width), patches.dtype)
            return jnp.concatenate([x[:, : self.prefix], patches], axis=1)

        init = nn.initializers.normal(0.02)
        return self.paint(tokens, together, first=self.prefix, bias=True, mask_init=init)


@dataclass(frozen=True, eq=False)
class MAE(ImageMethod):
    """mask_ratio of the patches are hidden; the encoder works on the others only; loss on the hidden ones (`mae_loss`).

    norm_pix: targets are each patch's pixels, normalised by the patch. decoder_*: the paper's decoder by default.
    """

    mask_ratio: float = 0.75
    norm_pix: bool = True
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16

    mean_over_examples = True
    shown_ratios = (0.5, 0.75, 0.9)

    def __post_init__(self):
        if not isinstance(self.encoder, ViT):
            raise ValueError(
                "MAE hides patches from the encoder, so it needs a Vision Transformer: choose an encoder vit_*."
            )
        self._expect_views(1, "'mae'")
        if self.decoder_width % self.decoder_heads:
            raise ValueError(
                f"--config.method.decoder_heads={self.decoder_heads} must divide decoder_width, which is "
                f"{self.decoder_width}."
            )
        if self.view.size % self.encoder.patch:
            raise ValueError(
                f"patches of {self.encoder.patch} do not divide a view of {self.view.size} pixels: change one of them."
            )

    @property
    def caption(self) -> str:
        lent = ", each with its true mean and contrast, which it is not asked for" if self.norm_pix else ""
        return f"the image, what the encoder sees, and the hidden patches as the decoder paints them{lent}"

    @property
    def view(self) -> Augment:
        return self.augmentations[0]

    @property
    def grid(self) -> tuple[int, int]:
        side = self.view.size // self.encoder.patch
        return side, side

    @property
    def decoder(self) -> Decoder:
        e = self.encoder
        return Decoder(
            self.decoder_width,
            self.decoder_depth,
            self.decoder_heads,
            3 * e.patch**2,
            e.epsilon,
            e.scan,
            e.remat,
            e.dtype,
            e.num_prefix,
        )

    def init(self, key: Array, batch: Batch) -> Variables:
        encoder_key, decoder_key = jax.random.split(key)
        images, mask, _ = self.views(example_keys(key, len(batch["image"])), batch)
        encoder, _ = initialise(self.encoder, encoder_key, images)
        tokens = jnp.zeros((len(images), self.encoder.num_prefix + mask.keep.shape[1], self.encoder.width))
        decoder, _ = initialise(self.decoder, decoder_key, tokens, mask.restore, self.grid)
        params = {"encoder": encoder, "decoder": decoder}
        return Variables(params=params, model_state={"encoder": {}}, target={}, extra={})

    def views(self, keys: Array, batch: Batch) -> tuple[Array, Mask, Array]:
        """The view, its mask, and a key for drop-path, which so belongs to the example in whatever microbatch it is."""
        (images,) = draw_views(self.augmentations, fold(keys, 0), batch)
        mask = mae_mask(fold(keys, 1), self.grid[0] * self.grid[1], self.mask_ratio)
        return images, mask, fold(keys, 2)

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        images, mask, keys = views
        # 1) The encoder works on the visible patches only, 2) the decoder on all places, with mask tokens in the gaps.
        tokens, prediction = self._reconstruct(params, images, mask, keys)
        # 3) Hidden patches must match; visible ones cost nothing.
        loss = mae_loss(images, prediction, mask.hidden, self.encoder.patch, norm_pix=self.norm_pix)
        features = tokens[:, self.encoder.num_prefix :].astype(jnp.float32).mean(axis=1)
        return loss, {"metrics": {}, "features": features, "embeddings": ()}

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        return state

    def show(self, state: Variables, batch: Batch, keys: Array) -> Array:
        images = self.eval_view(batch)
        mask = mae_mask(keys, self.grid[0] * self.grid[1], self.mask_ratio)
        _, prediction = self._reconstruct(state.params, images, mask)
        patches, hidden = patchify(images, self.encoder.patch), mask.hidden[:, :, None]
        if self.norm_pix:  # the prediction is of normalised patches: give it back the true patches' statistics
            mean, std = patch_statistics(patches)
            prediction = prediction * std + mean
        columns = patches, patches * (1 - hidden), patches * (1 - hidden) + prediction * hidden
        pixels = (unpatchify(patches, self.encoder.patch, self.grid) for patches in columns)
        return jnp.stack([unnormalize(p, self.view.mean, self.view.std) for p in pixels], axis=1)

    def _reconstruct(self, params, images, mask: Mask, keys: Array | None = None) -> tuple[Array, Array]:
        """(visible tokens encoded, prediction for every patch)"""
        seen = dict(keep=mask.keep, train=keys is not None, keys=keys)
        tokens = infer(self.encoder, params["encoder"], {}, images, method="tokens", **seen)
        return tokens, infer(self.decoder, params["decoder"], {}, tokens, mask.restore, self.grid)
