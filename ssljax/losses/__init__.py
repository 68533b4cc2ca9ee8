"""Losses of arrays alone: no mesh, no flags, no state. With `axis=` they see the batch of all shards."""

from ssljax.losses.clustering import sinkhorn, swav
from ssljax.losses.contrastive import info_nce, nce, nce_log_z, nt_xent
from ssljax.losses.distillation import (
    center_and_sharpen,
    dino,
    ema_center,
    ibot_patches,
    koleo,
    patch_weights,
    soft_cross_entropy,
)
from ssljax.losses.graphs import dgi, graphcl
from ssljax.losses.image_text import clip, siglip
from ssljax.losses.language import masked_token_loss, next_token_loss
from ssljax.losses.reconstruction import mae_loss, patchify, tubify, unpatchify, untubify, videomae_loss
from ssljax.losses.redundancy import barlow_twins, vicreg
from ssljax.losses.regression import data2vec_target, instance_norm, layer_norm, smooth_l1
from ssljax.losses.series import ts2vec
from ssljax.losses.similarity import cosine_regression, negative_cosine
from ssljax.losses.speech import cpc, ctc, diversity, wav2vec2
from ssljax.losses.tables import vime

__all__ = [
    "barlow_twins",
    "center_and_sharpen",
    "clip",
    "cosine_regression",
    "cpc",
    "ctc",
    "data2vec_target",
    "dgi",
    "dino",
    "diversity",
    "ema_center",
    "graphcl",
    "ibot_patches",
    "info_nce",
    "instance_norm",
    "koleo",
    "layer_norm",
    "mae_loss",
    "masked_token_loss",
    "nce",
    "nce_log_z",
    "negative_cosine",
    "next_token_loss",
    "nt_xent",
    "patch_weights",
    "patchify",
    "siglip",
    "sinkhorn",
    "smooth_l1",
    "soft_cross_entropy",
    "swav",
    "ts2vec",
    "tubify",
    "unpatchify",
    "untubify",
    "vicreg",
    "videomae_loss",
    "vime",
    "wav2vec2",
]
