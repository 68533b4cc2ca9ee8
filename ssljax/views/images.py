"""Image augmentation on the device, for whole batches at static shapes.

Images are (batch, height, width, 3) in [0, 1]. Between the crop and the end they are planes, (batch, 3, height, width),
which operations on colour take and give: what lies together has the same done to it, which halves the time of a view on
a CPU, and on an accelerator wastes no lanes on three channels. Whatever is random comes from `keys`, one for each
example (`ssljax.collectives.example_keys` makes them), so that a draw depends on the example and not on how the batch
is spread. Resampling is products with small matrices, which is what an accelerator is good at. The deterministic cores
follow Pillow and torchvision; the tests hold them to their numbers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce

import jax
import jax.numpy as jnp

from ssljax.collectives import example_keys
from ssljax.typing import Array, Batch

# Random draws ---------------------------------------------------------------------------------------------------------


def fold(keys: Array, salt: int) -> Array:
    """Fresh keys (batch,) for another purpose."""
    return jax.vmap(lambda key: jax.random.fold_in(key, salt))(keys)


def uniform(keys: Array, low=0.0, high=1.0, shape: tuple[int, ...] = ()) -> Array:
    """One draw (batch, *shape) for each key."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape, minval=low, maxval=high))(keys)


def sometimes(keys: Array, probability: float, changed: Array, x: Array) -> Array:
    """`changed` with that probability, `x` otherwise, drawn for each example."""
    return jnp.where((uniform(keys) < probability)[:, None, None, None], changed, x)


# Geometry -------------------------------------------------------------------------------------------------------------


def _triangle(x: Array) -> Array:
    return jnp.maximum(1.0 - jnp.abs(x), 0.0)


def _cubic(x: Array, a: float = -0.5) -> Array:
    x = jnp.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return jnp.where(x < 1.0, near, jnp.where(x < 2.0, far, 0.0))


KERNELS: dict[str, Callable[[Array], Array]] = {"bilinear": _triangle, "bicubic": _cubic}
REACH = {"bilinear": 1, "bicubic": 2}
"""How many pixels a kernel reaches to each side."""
BLOCK = 32
"""Lines that a CPU makes at once."""


def resize_matrix(start: Array, extent: Array, size_in: int, size_out: int, interpolation: str = "bilinear") -> Array:
    """The matrix (size_out, size_in) that crops [start, start + extent) of a line of pixels and resizes it.

    Antialiased as in Pillow and torchvision: when shrinking, the kernel is widened by the scale. Pixels outside the
    crop have no weight, so that this equals cropping first.
    """
    scale = extent / size_out
    widen = jnp.maximum(scale, 1.0)
    pixels = jnp.arange(size_in) + 0.5
    centres = start + (jnp.arange(size_out) + 0.5) * scale
    weights = KERNELS[interpolation]((pixels[None, :] - centres[:, None]) / widen)
    inside = (pixels >= start) & (pixels < start + extent)
    weights = jnp.where(inside, weights, 0.0)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def resize_lines(matrix: Array, images: Array, reach: int) -> Array:
    """A `resize_matrix` (batch, out, height) for each of images (batch, height, width, channels).

    Lines that come to lie side by side are made of few that did so before, and all other weights are 0. For an
    accelerator a product with these costs next to nothing; a CPU is spared them.
    """
    size_out, size_in = matrix.shape[1:]
    scale = size_in / size_out
    window = math.ceil((BLOCK - 1) * scale + 2 * reach * max(scale, 1.0)) + 1

    def whole(matrix: Array, images: Array) -> Array:
        # HIGH: a TPU's default would round pixels and weights to eight bits of mantissa.
        return jnp.einsum("boh,bhwc->bowc", matrix, images, precision=jax.lax.Precision.HIGH)

    def in_blocks(matrix: Array, images: Array) -> Array:
        def block(weights, image):
            first = jnp.argmax(jnp.any(weights != 0.0, axis=0))
            return tuple(jax.lax.dynamic_slice_in_dim(x, first, window, axis) for x, axis in ((weights, 1), (image, 0)))

        blocks = matrix.reshape(len(matrix), -1, BLOCK, size_in)
        weights, lines = jax.vmap(jax.vmap(block, (0, None)))(blocks, images)
        return jnp.einsum("bnoh,bnhwc->bnowc", weights, lines).reshape(-1, size_out, *images.shape[2:])

    if size_out % BLOCK or 2 * window > size_in:
        return whole(matrix, images)
    return jax.lax.platform_dependent(matrix, images, cpu=in_blocks, default=whole)


def crop_to_planes(
    images: Array, boxes: Array, size: int, interpolation: str = "bilinear", flipped: Array | bool = False
) -> Array:
    """Each image's box (top, left, height, width), in pixels, as planes (3, size, size); boxes (batch, 4). flipped
    (batch,): in which left becomes right."""
    top, left, height, width = jnp.moveaxis(boxes.astype(jnp.float32), -1, 0)
    matrix = partial(resize_matrix, size_out=size, interpolation=interpolation)
    rows = jax.vmap(partial(matrix, size_in=images.shape[1]))(top, height)
    columns = jax.vmap(partial(matrix, size_in=images.shape[2]))(left, width)
    columns = jnp.where(jnp.broadcast_to(flipped, top.shape)[:, None, None], columns[:, ::-1], columns)
    lines = resize_lines(rows, images, REACH[interpolation])
    planes = jnp.einsum("bcow,bpw->bcop", as_planes(lines), columns, precision=jax.lax.Precision.HIGH)
    return jnp.clip(planes, 0.0, 1.0)


def crop_and_resize(images: Array, boxes: Array, size: int, interpolation: str = "bilinear") -> Array:
    """The same, as images (size, size, 3)."""
    return as_images(crop_to_planes(images, boxes, size, interpolation))


def as_planes(images: Array) -> Array:
    """(batch, height, width, 3) to (batch, 3, height, width)"""
    return jnp.moveaxis(images, -1, 1)


def as_images(planes: Array) -> Array:
    """(batch, 3, height, width) to (batch, height, width, 3)"""
    return jnp.moveaxis(planes, 1, -1)


def random_crop_boxes(
    keys: Array, sizes: Array, scale: tuple[float, float], ratio=(3 / 4, 4 / 3), tries: int = 10
) -> Array:
    """Boxes (batch, 4) of random resized crops of images of `sizes` (batch, 2) in pixels.

    torchvision's rule: area uniform in `scale` times the image's, aspect ratio log-uniform in `ratio`, the first of ten
    tries that fits; if none does, the largest central crop with an allowed ratio.
    """

    def one(key, size):
        height, width = size[0], size[1]
        area_key, ratio_key, top_key, left_key = jax.random.split(key, 4)
        area = height * width * jax.random.uniform(area_key, (tries,), minval=scale[0], maxval=scale[1])
        log_ratio = jnp.log(jnp.asarray(ratio))
        aspect = jnp.exp(jax.random.uniform(ratio_key, (tries,), minval=log_ratio[0], maxval=log_ratio[1]))
        w, h = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
        fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
        first = jnp.argmax(fits)
        central_w = jnp.round(jnp.minimum(width, height * ratio[1]))
        central_h = jnp.round(jnp.minimum(height, width / ratio[0]))
        w, h = jnp.where(fits[first], w[first], central_w), jnp.where(fits[first], h[first], central_h)
        top = jnp.floor(jax.random.uniform(top_key) * (height - h + 1))
        left = jnp.floor(jax.random.uniform(left_key) * (width - w + 1))
        top, left = jnp.where(fits.any(), top, (height - h) // 2), jnp.where(fits.any(), left, (width - w) // 2)
        return jnp.stack([top, left, h, w])

    return jax.vmap(one)(keys, sizes.astype(jnp.float32))


def on_canvas(boxes: Array, sizes: Array, images: Array) -> Array:
    """Boxes in pixels of the original images, of `sizes` (batch, 2), as boxes in pixels of the resized ones."""
    canvas = jnp.asarray(images.shape[1:3], jnp.float32)
    return boxes * jnp.tile(canvas / sizes.astype(jnp.float32), (1, 2))


# Colour ---------------------------------------------------------------------------------------------------------------


def luma(x: Array) -> Array:
    """ITU-R 601, 0.2989 R + 0.587 G + 0.114 B, as one plane: (batch, 1, height, width)."""
    return 0.2989 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]


def mean_luma(x: Array) -> Array:
    """(batch, 1, 1, 1); line by line, as one sum over all pixels takes twice as long on a CPU."""
    return luma(x).mean(axis=3, keepdims=True).mean(axis=(1, 2), keepdims=True)


def greyscale(x: Array) -> Array:
    """`luma` in all three planes."""
    return jnp.broadcast_to(luma(x), x.shape)


def blend(x: Array, other: Array, factor: Array) -> Array:
    """factor * x + (1 - factor) * other, clipped; factor (batch,)."""
    factor = factor[:, None, None, None]
    return jnp.clip(factor * x + (1.0 - factor) * other, 0.0, 1.0)


def brightness(x: Array, factor: Array) -> Array:
    """Blend with black; factor (batch,)."""
    return blend(x, jnp.zeros_like(x), factor)


def contrast(x: Array, factor: Array) -> Array:
    """Blend with the mean of the grey image; factor (batch,)."""
    return blend(x, mean_luma(x), factor)


def saturation(x: Array, factor: Array) -> Array:
    """Blend with the grey image; factor (batch,)."""
    return blend(x, luma(x), factor)


def shift_hue(x: Array, shift: Array) -> Array:
    """Turn the hue by `shift` (batch,) of a full circle, through HSV."""
    r, g, b = x[:, 0], x[:, 1], x[:, 2]
    value = jnp.maximum(jnp.maximum(r, g), b)
    chroma = value - jnp.minimum(jnp.minimum(r, g), b)
    # In sixths of the circle times chroma, which needs no division. Never by `value == r`: a compiler that computes the
    # image twice may round it in two ways.
    blue_or_green = jnp.where((b > r) & (b > g), 4.0 * chroma + (r - g), 2.0 * chroma + (b - r))
    turn = jnp.where((r >= g) & (r >= b), g - b, blue_or_green)
    turn = turn + 6.0 * (shift - jnp.floor(shift))[:, None, None] * chroma

    def channel(n: float) -> Array:
        """value - clip(min(k, 4 chroma - k), 0, chroma) with k = (n chroma + turn) mod 6 chroma, of less than 18"""
        k = turn + n * chroma
        k = k - 6.0 * chroma * ((k >= 6.0 * chroma) + jnp.float32(k >= 12.0 * chroma))
        return value - jnp.clip(jnp.minimum(k, 4.0 * chroma - k), 0.0, chroma)

    return jnp.stack([channel(5.0), channel(3.0), channel(1.0)], axis=1)


def solarize(x: Array, threshold: float = 0.5) -> Array:
    """Invert what is at or above the threshold."""
    return jnp.where(x >= threshold, 1.0 - x, x)


def color_jitter(
    keys: Array,
    x: Array,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    drawn: Array | bool = True,
) -> Array:
    """Brightness, contrast, saturation and hue in an order drawn for each image; clipped after each.

    Factors are uniform in [max(0, 1 - strength), 1 + strength], the hue's shift in [-hue, hue] of a circle; where an
    image is not `drawn` (batch,) they are 1 and 0.
    """
    strengths = jnp.array([brightness, contrast, saturation])
    factors = uniform(fold(keys, 0), jnp.maximum(0.0, 1.0 - strengths), 1.0 + strengths, shape=(3,))
    shift = uniform(fold(keys, 1), -hue, hue)
    drawn = jnp.broadcast_to(drawn, shift.shape)
    factors, shift = jnp.where(drawn[:, None], factors, 1.0), jnp.where(drawn, shift, 0.0)
    # All four operations by images of different orders would cost sixteen evaluations. The first three are blends that
    # differ only in what they blend with, so one blend a slot serves whichever is due, before the hue's turn or after.
    order = jax.vmap(lambda key: jax.random.permutation(key, 3))(fold(keys, 2))
    hue_slot = jax.vmap(lambda key: jax.random.randint(key, (), 0, 4))(fold(keys, 3))

    def blends(x, active):
        for slot in range(3):
            due = order[:, slot][:, None, None, None]
            other = jnp.where(due == 0, 0.0, jnp.where(due == 1, mean_luma(x), luma(x)))
            factor = jnp.take_along_axis(factors, order[:, slot : slot + 1], axis=1)[:, 0]
            x = blend(x, other, jnp.where(active(slot), factor, 1.0))
        return x

    x = blends(x, lambda slot: slot < hue_slot)
    x = shift_hue(x, shift)
    return blends(x, lambda slot: slot >= hue_slot)


def gaussian_blur(x: Array, sigma: Array, kernel: int, drawn: Array | bool = True) -> Array:
    """Gaussian blur with a window of `kernel` (odd) pixels, edges reflected; sigma (batch,) in pixels. drawn (batch,):
    which images are blurred; others stay as they are."""
    if kernel % 2 == 0 or kernel // 2 >= min(x.shape[2:]):
        raise ValueError(
            f"a blur window of {kernel} pixels must be odd and less than twice a view of {min(x.shape[2:])}: "
            "change views.window, views.size or views.local_size, or set views.blur to 0."
        )
    radius, (height, width) = kernel // 2, x.shape[2:]
    offsets = jnp.arange(-radius, radius + 1)
    weights = jnp.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    weights = weights / weights.sum(axis=1, keepdims=True)
    weights = jnp.where(jnp.broadcast_to(drawn, sigma.shape)[:, None], weights, offsets == 0)
    # Along lines by a product with a matrix, across them by adding up lines. Sums alone would have XLA's CPU compiler
    # make the image anew for each of their terms, which takes three times as long.
    # Of the pixel at a distance, and of those that are its mirror images beyond the edges.
    place = jnp.arange(width)
    distances = place[:, None] - place, place[:, None] + place, 2 * (width - 1) - place[:, None] - place
    beyond = jnp.pad(weights[:, radius:], [(0, 0), (0, 1)])
    of = [beyond[:, jnp.minimum(jnp.abs(d), radius + 1)] for d in distances]
    matrix = of[0] + jnp.where(place > 0, of[1], 0) + jnp.where(place < width - 1, of[2], 0)
    x = jnp.einsum("bcow,bpw->bcop", x, matrix, precision=jax.lax.Precision.HIGH)
    lines = jnp.pad(x, [(0, 0), (0, 0), (radius, radius), (0, 0)], mode="reflect")
    terms = [weights[:, k, None, None, None] * lines[:, :, k : k + height] for k in range(kernel)]
    return reduce(jnp.add, terms)


# One view -------------------------------------------------------------------------------------------------------------


def check_scale(name: str, scale: tuple[float, float]) -> None:
    """Raises ValueError for a crop's `scale` that cannot be; name: the field of `views` that it is in."""
    if not (isinstance(scale, tuple) and len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1):
        raise ValueError(f"views.{name} {scale} must be (smallest, largest) share of the area, in (0, 1].")


@dataclass(frozen=True)
class Augment:
    """How one view is drawn from an image; the fields are the numbers that papers print.

    A call takes keys (batch,), or one key for all, and images (batch, height, width, 3), uint8 or floats in [0, 1]; or
    a dict with them as `image` and, where they were resized to a common canvas, their original `size`. It returns
    float32 views (batch, size, size, 3), normalised by mean and std where these are set. Grey images are images with
    three equal channels, and stay so.

    grey_first: grey before the jitter, not after. window: side of the blur's window in pixels, odd; 0 is a tenth of
    `size`, as SimCLR has it.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    interpolation: str = "bicubic"
    flip: float = 0.5
    jitter: float = 0.0
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    grey: float = 0.0
    grey_first: bool = False
    blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    window: int = 0
    solarize: float = 0.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def __post_init__(self):
        check_scale("scale", self.scale)
        if self.interpolation not in KERNELS:
            raise ValueError(f"views.interpolation '{self.interpolation}' is unknown; use {' or '.join(KERNELS)}.")
        if self.size < 1:
            raise ValueError(f"views.size {self.size} must be a side in pixels.")
        if not (isinstance(self.sigma, tuple) and len(self.sigma) == 2 and 0 < self.sigma[0] <= self.sigma[1]):
            raise ValueError(f"views.sigma {self.sigma} must be two numbers above 0, the smaller first.")
        if self.window < 0:
            raise ValueError(f"views.window {self.window} must be a side in pixels, or 0 for a tenth of the size.")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"views.hue {self.hue} must be a share of the circle in [0, 0.5].")
        for name in ("mean", "std"):
            numbers = getattr(self, name)
            if len(numbers) != 3 or (name == "std" and not all(number > 0 for number in numbers)):
                above = " above 0" if name == "std" else ""
                raise ValueError(f"views.{name} {numbers} must be three numbers{above}, one for each colour.")
        for name in ("brightness", "contrast", "saturation"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"views.{name} {getattr(self, name)} must be 0 or more.")
        for name in ("flip", "jitter", "grey", "blur", "solarize"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"views.{name} {getattr(self, name)} must be a probability in [0, 1].")

    def __call__(self, keys: Array, batch: Batch | Array) -> Array:
        batch = batch if isinstance(batch, dict) else {"image": batch}
        keys = keys if keys.ndim else example_keys(keys, len(batch["image"]))
        images = as_float(batch["image"])
        sizes = original_sizes(batch)
        boxes = on_canvas(random_crop_boxes(fold(keys, 0), sizes, self.scale), sizes, images)
        flipped = uniform(fold(keys, 1)) < self.flip
        x = crop_to_planes(images, boxes, self.size, self.interpolation, flipped)
        if self.grey and self.grey_first:
            x = sometimes(fold(keys, 4), self.grey, greyscale(x), x)
        if self.jitter:
            strengths = self.brightness, self.contrast, self.saturation, self.hue
            x = color_jitter(fold(keys, 3), x, *strengths, drawn=uniform(fold(keys, 2)) < self.jitter)
        if self.grey and not self.grey_first:
            x = sometimes(fold(keys, 4), self.grey, greyscale(x), x)
        if self.blur:
            sigma, drawn = uniform(fold(keys, 6), *self.sigma), uniform(fold(keys, 5)) < self.blur
            x = gaussian_blur(x, sigma, self.window or self.size // 10 | 1, drawn)
        if self.solarize:
            x = sometimes(fold(keys, 7), self.solarize, solarize(x), x)
        return normalize(as_images(x), self.mean, self.std)


def as_float(images: Array) -> Array:
    """uint8 to float32 in [0, 1]; floats are taken as they are. Raises ValueError for other types and channels."""
    if images.shape[-1] != 3:
        raise ValueError(f"images {images.shape} must have three channels last: repeat a grey image's one three times.")
    if images.dtype != jnp.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images must be uint8, or floats in [0, 1], but are {images.dtype}.")
    return images.astype(jnp.float32) / 255.0 if images.dtype == jnp.uint8 else images.astype(jnp.float32)


def original_sizes(batch: Batch) -> Array:
    """(batch, 2): the `size` of images that were resized to a canvas, else the images' own."""
    images = batch["image"]
    return batch["size"] if "size" in batch else jnp.broadcast_to(jnp.array(images.shape[1:3]), (len(images), 2))


def normalize(images: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """(images - mean) / std, by channel."""
    return (images - jnp.array(mean)) / jnp.array(std)


def unnormalize(images: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """The inverse of `normalize`, clipped to what can be shown."""
    return jnp.clip(images * jnp.array(std) + jnp.array(mean), 0.0, 1.0)


def center_view(batch: Batch, size: int, fraction: float, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """The view for evaluation: the central square of `fraction` times the short side, resized and normalised.

    224 of 256 pixels, the usual protocol of ImageNet, is a fraction of 0.875; small images are taken whole.
    """
    images, sizes = as_float(batch["image"]), original_sizes(batch).astype(jnp.float32)
    side = jnp.broadcast_to(sizes.min(axis=1, keepdims=True) * fraction, sizes.shape)
    boxes = on_canvas(jnp.concatenate([(sizes - side) / 2, side], axis=1), sizes, images)
    return normalize(crop_and_resize(images, boxes, size, "bicubic"), mean, std)


def draw_views(augmentations: tuple[Augment, ...], keys: Array, batch: Batch | Array) -> tuple[Array, ...]:
    """One view by each of the augmentations, from independent draws; arguments as for `Augment`.

    What view i shows depends on i, on its augmentation and on the example's key alone. Equal augmentations are compiled
    once and drawn one after the other, so that many local crops need the memory of one.
    """
    keys = keys if keys.ndim else example_keys(keys, len(batch["image"] if isinstance(batch, dict) else batch))
    views: dict[int, Array] = {}
    for augment in augmentations:
        places = [i for i, other in enumerate(augmentations) if other == augment]
        if places[0] not in views:
            drawn = jax.lax.map(lambda i, augment=augment: augment(fold(keys, i), batch), jnp.array(places))
            views |= zip(places, drawn, strict=True)
    return tuple(views[i] for i in range(len(augmentations)))


def show_views(augmentations: tuple[Augment, ...], keys: Array, batch: Batch) -> Array:
    """Each example's whole image and its views beside it, un-normalised: (batch, 1 + views, size, size, 3).

    All have the first view's size: smaller crops are shown enlarged.
    """
    first = augmentations[0]
    shown = [center_view(batch, first.size, 1.0, (0.0,) * 3, (1.0,) * 3)]
    for augment, view in zip(augmentations, draw_views(augmentations, keys, batch), strict=True):
        view = unnormalize(view, augment.mean, augment.std)
        whole = jnp.tile(jnp.array([0, 0, augment.size, augment.size]), (len(view), 1))
        shown.append(view if augment.size == first.size else crop_and_resize(view, whole, first.size))
    return jnp.stack(shown, axis=1)
