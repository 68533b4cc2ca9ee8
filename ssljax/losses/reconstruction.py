"""Losses that compare a reconstruction with what was hidden."""

import jax
import jax.numpy as jnp

from ssljax.patches import cut, join
from ssljax.typing import Array


def patchify(images: Array, patch: int) -> Array:
    """Images (batch, h, w, channels) as rows of patches (batch, patches, patch * patch * channels).

    Patches and the pixels in them go row by row, the channel last. Raises ValueError if the patch does not divide.
    """
    if images.ndim != 4 or patch < 1 or images.shape[1] % patch or images.shape[2] % patch:
        raise ValueError(
            f"images {images.shape} must be (batch, height, width, channels) with sides that {patch} divides."
        )
    return cut(images, (patch, patch))


def unpatchify(patches: Array, patch: int, grid: tuple[int, int]) -> Array:
    """The inverse of `patchify` for a grid of (rows, columns) patches. Raises ValueError if they do not fit it."""
    rows, columns = grid
    fits = patches.ndim == 3 and min(patch, *grid) > 0 and patches.shape[1] == rows * columns
    if not fits or patches.shape[2] % patch**2:
        raise ValueError(
            f"patches {patches.shape} must be (batch, {rows} * {columns}, {patch} * {patch} * channels), with the grid "
            "and the patch that the images were cut by."
        )
    return join(patches, (patch, patch), grid)


def patch_statistics(patches: Array) -> tuple[Array, Array]:
    """Mean and standard deviation (batch, patches, 1) of patches: unbiased variance, 1e-6 under the root, as in MAE."""
    return patches.mean(-1, keepdims=True), jnp.sqrt(patches.var(-1, ddof=1, keepdims=True) + 1e-6)


def mae_loss(images: Array, prediction: Array, mask: Array, patch: int, *, norm_pix: bool = True) -> Array:
    """Mean squared error on the masked patches (MAE).

        L = Σ_p m_p · mean_pixels (x̂_p - x_p)² / Σ_p m_p,   m_p = 1 where patch p was hidden

    Args:
      images: (batch, h, w, channels), as the encoder saw them.
      prediction: (batch, patches, patch * patch * channels).
      mask: (batch, patches), 1 for hidden and 0 for visible.
      patch: side of a patch in pixels.
      norm_pix: compare with each patch's pixels less their mean over their standard deviation (the paper's better
        variant; the reference script has it off unless asked).

    Returns: a float32 scalar. With the same number of hidden patches in every example, the mean over shards is the loss
    of the whole batch.

    Raises: ValueError if the shapes do not fit.

    He et al., "Masked Autoencoders Are Scalable Vision Learners", 2022, sections 3 and 4.1.
    """
    images, prediction, mask = jnp.asarray(images), jnp.asarray(prediction), jnp.asarray(mask)
    target = patchify(images.astype(jnp.float32), patch)
    if prediction.shape != target.shape or mask.shape != target.shape[:2]:
        raise ValueError(
            f"images {images.shape} in patches of {patch} need prediction {target.shape} and mask {target.shape[:2]}, "
            f"but these are {prediction.shape} and {mask.shape}."
        )
    if not isinstance(mask, jax.core.Tracer) and not mask.any():
        raise ValueError(f"mask {mask.shape} hides no patch, so there is nothing to reconstruct.")
    if norm_pix:
        if target.shape[-1] < 2:
            raise ValueError("norm_pix needs patches of more than one number: raise the patch or set norm_pix=False.")
        mean, std = patch_statistics(target)
        target = (target - mean) / std
    error = jnp.mean((prediction.astype(jnp.float32) - target) ** 2, axis=-1)
    mask = mask.astype(jnp.float32)
    return jnp.sum(error * mask) / jnp.sum(mask)


def tubify(videos: Array, tubelet: int, patch: int) -> Array:
    """Videos (batch, frames, h, w, channels) as rows of tubelets (batch, tokens, tubelet * patch * patch * channels).

    Tubelets go slot by slot of `tubelet` frames, and in these row by row; so do the pixels in one, the channel last.
    Raises ValueError if tubelet and patch do not divide.
    """
    sizes = (tubelet, patch, patch)
    if videos.ndim != 5 or min(sizes) < 1 or any(n % size for n, size in zip(videos.shape[1:4], sizes, strict=True)):
        raise ValueError(
            f"videos {videos.shape} must be (batch, frames, height, width, channels), with a number of frames that "
            f"{tubelet} divides and sides that {patch} divides."
        )
    return cut(videos, sizes)


def untubify(tubelets: Array, tubelet: int, patch: int, grid: tuple[int, int, int]) -> Array:
    """The inverse of `tubify` for a grid of (slots, rows, columns). Raises ValueError if the tubelets do not fit it."""
    slots, rows, columns = grid
    fits = tubelets.ndim == 3 and min(tubelet, patch, *grid) > 0 and tubelets.shape[1] == slots * rows * columns
    if not fits or tubelets.shape[2] % (tubelet * patch**2):
        raise ValueError(
            f"tubelets {tubelets.shape} must be (batch, {slots} * {rows} * {columns}, {tubelet} * {patch} * {patch} * "
            "channels), with the grid, the tubelet and the patch that the videos were cut by."
        )
    return join(tubelets, (tubelet, patch, patch), grid)


def tubelet_statistics(tubelets: Array, channels: int) -> tuple[Array, Array]:
    """Mean and divisor (batch, tokens, pixels * channels) of tubelets, each channel's own: the standard deviation of
    unbiased variance, plus 1e-6, as in VideoMAE."""
    pixels = tubelets.reshape(*tubelets.shape[:2], -1, channels)
    statistics = pixels.mean(2, keepdims=True), pixels.std(2, ddof=1, keepdims=True) + 1e-6
    mean, std = (jnp.broadcast_to(x, pixels.shape).reshape(tubelets.shape) for x in statistics)
    return mean, std


def videomae_loss(
    videos: Array, prediction: Array, hidden: Array, tubelet: int, patch: int, *, norm_pix: bool = True
) -> Array:
    """Mean squared error on the masked tubelets (VideoMAE).

        L = mean over hidden tubelets p and their numbers of (x̂_p - x_p)²

    Args:
      videos: (batch, frames, h, w, channels), in [0, 1].
      prediction: (batch, K, tubelet * patch * patch * channels), of the hidden tubelets alone.
      hidden: (batch, K), integers: which these are, in the order of `tubify`.
      tubelet, patch: frames and pixels that a tubelet is long and wide.
      norm_pix: compare with each tubelet's pixels less their mean over their standard deviation, each channel for
        itself (`mae_loss` takes the three channels together).

    Returns: a float32 scalar; the mean over shards is the loss of the whole batch. No gradient flows into the videos.

    Raises: ValueError if the shapes do not fit.

    Tong et al., "VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video Pre-Training",
    2022, equation 1.
    """
    videos, prediction, hidden = jnp.asarray(videos), jnp.asarray(prediction), jnp.asarray(hidden)
    target = tubify(jax.lax.stop_gradient(videos).astype(jnp.float32), tubelet, patch)
    batch, tokens, numbers = target.shape
    fits = hidden.ndim == 2 and len(hidden) == batch and hidden.size and jnp.issubdtype(hidden.dtype, jnp.integer)
    if not fits or prediction.shape != (*hidden.shape, numbers):
        raise ValueError(
            f"videos {videos.shape} in {tokens} tubelets of {numbers} numbers need hidden ({batch}, K), integers, and "
            f"prediction ({batch}, K, {numbers}), but these are {hidden.shape}, {hidden.dtype}, and {prediction.shape}."
        )
    target = jnp.take_along_axis(target, hidden[:, :, None], axis=1)
    if norm_pix:
        channels = videos.shape[-1]
        if numbers == channels:
            raise ValueError("norm_pix needs tubelets of more than one pixel: raise the patch or set norm_pix=False.")
        mean, std = tubelet_statistics(target, channels)
        target = (target - mean) / std
    return jnp.mean((prediction.astype(jnp.float32) - target) ** 2)
