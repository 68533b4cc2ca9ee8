"""Losses of arrays alone: no mesh, no flags, no state. With `axis=` they see the batch of all shards."""

from ssljax.losses.contrastive import info_nce, nt_xent
from ssljax.losses.reconstruction import mae_loss, patchify, unpatchify

__all__ = ["info_nce", "mae_loss", "nt_xent", "patchify", "unpatchify"]
