"""From the bytes of an image file to (height, width, 3) uint8 pixels, whatever the file's colour mode."""

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")


class UndecodableImage(ValueError):
    """The bytes are no image that Pillow can read to its end."""


def image_shapes(height: int, width: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """`Source.shapes` of images that all have this size."""
    return {"image": ((height, width, 3), np.uint8)}


def decode(data: bytes) -> np.ndarray:
    """Decodes an image file to RGB.

    Grey images are repeated over the channels, transparency is composited on white, 16-bit grey is scaled so that 65535
    becomes 255, float grey as :func:`grey_from_float` says, palettes and CMYK are converted, the EXIF orientation is
    applied, and of an animation the first frame is taken.

    Args:
        data: the whole file.

    Returns:
        (height, width, 3) uint8.

    Raises:
        UndecodableImage: the file is empty, truncated, no image, in a colour space Pillow can't convert, or so large
            that Pillow takes it for a decompression bomb.
    """
    return np.asarray(_picture(data))


def decode_resized(data: bytes, canvas: int) -> tuple[np.ndarray, tuple[int, int]]:
    """`resize(decode(data), canvas)`, and the height and width before, with no array of all pixels in between."""
    picture = _picture(data)
    return np.asarray(_resized(picture, canvas)), (picture.height, picture.width)


def resize(image: np.ndarray, canvas: int) -> np.ndarray:
    """Resizes the whole (h, w, 3) uint8 image to (canvas, canvas, 3), antialiased bicubic; the aspect is not kept."""
    return image if image.shape[:2] == (canvas, canvas) else np.asarray(_resized(Image.fromarray(image), canvas))


def grey_from_uint16(values: np.ndarray) -> np.ndarray:
    """Scales 16-bit values to uint8 (65535 becomes 255), rounded; what lies outside 16 bits is clipped. Any shape."""
    # 65535 = 255 * 257, so that division by 257 maps the range exactly; adding 128 first rounds to nearest.
    return ((np.clip(values, 0, 65535).astype(np.uint32) + 128) // 257).astype(np.uint8)


def grey_from_float(values: np.ndarray) -> np.ndarray:
    """Scales float values to uint8: from [0, 1] if none exceeds 1, else taken as [0, 255]; NaN is 0. Any shape."""
    values = np.nan_to_num(values.astype(np.float64))
    scale = 255.0 if values.max(initial=0.0) <= 1.0 else 1.0
    return np.rint(np.clip(values * scale, 0, 255)).astype(np.uint8)


def composite_on_white(rgba: np.ndarray) -> np.ndarray:
    """Lays (..., 4) uint8 RGBA over white: (..., 3) uint8."""
    alpha = rgba[..., 3:].astype(np.uint32)
    blended = rgba[..., :3] * alpha + 255 * (255 - alpha)
    return ((blended + 127) // 255).astype(np.uint8)


def _picture(data: bytes) -> Image.Image:
    """See `decode`."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except UnidentifiedImageError as error:
        raise UndecodableImage("not an image in a format that Pillow knows") from error
    # Broad on purpose: on damaged files Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error and more.
    except Exception as error:
        raise UndecodableImage(f"{type(error).__name__}: {error}") from error


def _resized(picture: Image.Image, canvas: int) -> Image.Image:
    side = canvas, canvas
    return picture if picture.size == side else picture.resize(side, Image.Resampling.BICUBIC)


def _to_rgb(image: Image.Image) -> Image.Image:
    # Pillow clips 16-bit and float pixels at 255 instead of scaling them, so these two come before its own conversion.
    if image.mode in SIXTEEN_BIT_MODES:
        image = Image.fromarray(grey_from_uint16(np.asarray(image)))
    elif image.mode == "F":
        image = Image.fromarray(grey_from_float(np.asarray(image)))
    if image.has_transparency_data:
        return Image.fromarray(composite_on_white(np.asarray(image.convert("RGBA"))))
    return image if image.mode == "RGB" else image.convert("RGB")
