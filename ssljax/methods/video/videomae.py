"""VideoMAE: the encoder sees a tenth of a clip, the same patches at all times, a small decoder paints the rest.

Tong et al., "VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video Pre-Training", 2022.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ssljax.collectives import example_keys
from ssljax.losses.reconstruction import tubelet_statistics, tubify, untubify, videomae_loss
from ssljax.models import infer, initialise
from ssljax.models.video import VideoDecoder, VideoViT
from ssljax.typing import Array, Batch, TrainState, Variables
from ssljax.views.images import fold
from ssljax.views.masks import Mask, tube_mask
from ssljax.views.video import MultiScaleCrop


@dataclass(frozen=True, eq=False)
class VideoMAE:
    """mask_ratio of the patches are hidden, through all of the clip; loss on these (`videomae_loss`).

    encoder: what is pretrained; it works on the visible tubelets only. augmentations: how a clip is cropped. norm_pix:
    targets are each tubelet's pixels, normalised by the tubelet. decoder_*: the paper's decoder for ViT-B by default.

    A batch has `video` (batch, frames, height, width, 3) and maybe `size`; see `ssljax.data.video`.
    """

    encoder: VideoViT
    augmentations: MultiScaleCrop
    mask_ratio: float = 0.9
    norm_pix: bool = True
    decoder_width: int = 384
    decoder_depth: int = 4
    decoder_heads: int = 6

    modality = "video"
    mean_over_examples = True
    shown_ratios = (0.5, 0.75, 0.9)
    needs_labels = False

    def __post_init__(self):
        if self.decoder_width % self.decoder_heads:
            raise ValueError(
                f"--config.method.decoder_heads={self.decoder_heads} must divide decoder_width, which is "
                f"{self.decoder_width}."
            )

    @property
    def caption(self) -> str:
        lent = ", each with its true mean and contrast, which it is not asked for" if self.norm_pix else ""
        return (
            "four moments of a clip, line by line; what the encoder sees of them; and the hidden tubelets as the "
            f"decoder paints them{lent}"
        )

    @property
    def decoder(self) -> VideoDecoder:
        e = self.encoder
        return VideoDecoder(
            self.decoder_width,
            self.decoder_depth,
            self.decoder_heads,
            3 * e.tubelet * e.patch**2,
            e.epsilon,
            e.scan,
            e.remat,
            e.dtype,
        )

    def init(self, key: Array, batch: Batch) -> Variables:
        encoder_key, decoder_key = jax.random.split(key)
        videos, mask, _ = self.views(example_keys(key, len(batch["video"])), batch)
        encoder, _ = initialise(self.encoder, encoder_key, videos)
        tokens = jnp.zeros((*mask.keep.shape, self.encoder.width))
        decoder, _ = initialise(self.decoder, decoder_key, tokens, mask.keep, mask.hide)
        return Variables(params={"encoder": encoder, "decoder": decoder}, model_state={}, target={}, extra={})

    def views(self, keys: Array, batch: Batch) -> tuple[Array, Mask, Array]:
        """The clip in [0, 1], its mask, and a key for drop-path, which so belongs to the example in whatever microbatch
        it is."""
        videos = self.augmentations(fold(keys, 0), batch)
        return videos, self._mask(fold(keys, 1), videos), fold(keys, 2)

    def loss(self, params, state: TrainState, views, key: Array, axis: str | None) -> tuple[Array, dict]:
        videos, mask, keys = views
        # 1) The encoder works on the visible tubelets only, 2) the decoder on all places, with mask tokens in the gaps.
        tokens, prediction = self._reconstruct(params, videos, mask, keys)
        # 3) Hidden tubelets must match; visible ones cost nothing.
        e = self.encoder
        loss = videomae_loss(videos, prediction, mask.hide, e.tubelet, e.patch, norm_pix=self.norm_pix)
        return loss, {"metrics": {}, "features": tokens.astype(jnp.float32).mean(axis=1), "embeddings": ()}

    def update(self, state: TrainState, aux: dict, axis: str | None) -> TrainState:
        return state

    def features(self, state: Variables, batch: Batch) -> Array:
        """The mean of all tokens of the clip's central square."""
        videos = self.augmentations.normalize(self.augmentations.center(batch))
        return infer(self.encoder, state.params["encoder"], {}, videos)

    def show(self, state: Variables, batch: Batch, keys: Array) -> Array:
        """Clips (examples, 3, frames, height, width, 3): whole, what is seen of them, and reconstructed."""
        videos, e = self.augmentations.center(batch), self.encoder
        mask = self._mask(keys, videos)
        _, prediction = self._reconstruct(state.params, videos, mask)
        tubelets = tubify(videos, e.tubelet, e.patch)
        if self.norm_pix:  # the prediction is of normalised tubelets: give it back the true tubelets' statistics
            mean, std = tubelet_statistics(jnp.take_along_axis(tubelets, mask.hide[:, :, None], axis=1), channels=3)
            prediction = prediction * std + mean
        seen = tubelets * (1 - mask.hidden[:, :, None])
        painted = jax.vmap(lambda all, places, new: all.at[places].set(new))(seen, mask.hide, prediction)
        grid = e.grid(*videos.shape[1:4])
        shown = [untubify(x, e.tubelet, e.patch, grid) for x in (tubelets, seen, painted)]
        return jnp.clip(jnp.stack(shown, axis=1), 0.0, 1.0)

    def _mask(self, keys: Array, videos: Array) -> Mask:
        slots, rows, columns = self.encoder.grid(*videos.shape[1:4])
        return tube_mask(keys, slots, rows * columns, self.mask_ratio)

    def _reconstruct(self, params, videos, mask: Mask, keys: Array | None = None) -> tuple[Array, Array]:
        """(visible tokens encoded, prediction for the hidden tubelets)"""
        pixels = self.augmentations.normalize(videos)
        seen = dict(keep=mask.keep, train=keys is not None, keys=keys)
        tokens = infer(self.encoder, params["encoder"], {}, pixels, method="tokens", **seen)
        return tokens, infer(self.decoder, params["decoder"], {}, tokens, mask.keep, mask.hide)
