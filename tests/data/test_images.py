"""Decoding: every colour mode becomes RGB of the right values, and damaged bytes are one kind of error."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ssljax.data.images import (
    UndecodableImage,
    composite_on_white,
    decode,
    decode_resized,
    grey_from_float,
    grey_from_uint16,
    resize,
)


def encode(image: Image.Image, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def decode_pixel(image: Image.Image, file_format: str, **options) -> list[int]:
    """Decodes an image of one colour, checks type and shape, and gives that colour."""
    pixels = decode(encode(image, file_format, **options))
    assert pixels.dtype == np.uint8 and pixels.shape == (image.height, image.width, 3)
    return pixels[0, 0].tolist()


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, [255, 255, 255]),
        ("L", 77, [77, 77, 77]),
        ("LA", (100, 0), [255, 255, 255]),
        ("LA", (100, 255), [100, 100, 100]),
        ("RGB", (10, 20, 30), [10, 20, 30]),
        ("RGBA", (0, 0, 0, 0), [255, 255, 255]),
        ("RGBA", (10, 20, 30, 255), [10, 20, 30]),
        ("RGBA", (0, 100, 200, 51), [204, 224, 244]),
        ("I;16", 65535, [255, 255, 255]),
        ("I;16", 257 * 90, [90, 90, 90]),
    ],
)
def test_png_modes(mode, colour, expected):
    assert decode_pixel(Image.new(mode, (4, 3), colour), "PNG") == expected


@pytest.mark.parametrize(("mode", "colour", "expected"), [("I", 257 * 5, [5] * 3), ("F", 0.2, [51] * 3)])
def test_tiff_modes(mode, colour, expected):
    assert decode_pixel(Image.new(mode, (4, 3), colour), "TIFF") == expected


def test_palette_without_and_with_transparency():
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    assert decode_pixel(image, "PNG") == [200, 100, 50]
    assert decode_pixel(image, "PNG", transparency=1) == [255, 255, 255]
    assert decode_pixel(image, "GIF") == [200, 100, 50]


@pytest.mark.parametrize(("mode", "colour"), [("CMYK", (0, 255, 255, 0)), ("YCbCr", (76, 85, 255))])
def test_jpeg_modes_come_out_red(mode, colour):
    red, green, blue = decode_pixel(Image.new(mode, (16, 16), colour), "JPEG", quality=95)
    assert red > 240 and green < 15 and blue < 15


def test_sixteen_bit_colour_png():
    """Pillow writes no 16-bit RGB, so the chunks of this one-pixel file are written by hand."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    pixel = chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(">HHH", 0xFFFF, 0x8080, 0)))
    assert decode(b"\x89PNG\r\n\x1a\n" + header + pixel + chunk(b"IEND", b"")).tolist() == [[[255, 128, 0]]]


def test_exif_orientation_is_applied():
    image = Image.fromarray(np.array([[0, 255]], np.uint8).repeat(16, 0).repeat(16, 1))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise: left becomes top
    pixels = decode(encode(image, "JPEG", exif=exif, quality=95))
    assert pixels.shape == (32, 16, 3)
    assert pixels[:16].mean() < 5 and pixels[16:].mean() > 250


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(file_format):
    frames = [Image.new("RGB", (4, 4), colour) for colour in [(255, 0, 0), (0, 255, 0)]]
    data = encode(frames[0], file_format, save_all=True, append_images=frames[1:])
    red, green, _ = decode(data)[0, 0].astype(int)
    assert red > 245 and green < 10


def test_damaged_bytes_are_undecodable(monkeypatch):
    whole = encode(Image.effect_noise((64, 64), 50), "JPEG")
    for data in (b"", b"not an image", whole[: len(whole) // 2], encode(Image.new("L", (64, 64)), "PNG")[:50]):
        with pytest.raises(UndecodableImage):
            decode(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 // 4)
    with pytest.raises(UndecodableImage, match="DecompressionBomb"):
        decode(whole)


def test_every_sixteen_bit_value_is_rounded_to_nearest():
    values = np.arange(65536)
    np.testing.assert_array_equal(grey_from_uint16(values), np.rint(values / 257))
    np.testing.assert_array_equal(grey_from_uint16(np.array([-5, 70000])), [0, 255])


def test_float_scales():
    np.testing.assert_array_equal(grey_from_float(np.array([0, 0.5, 1, np.nan])), [0, 128, 255, 0])
    np.testing.assert_array_equal(grey_from_float(np.array([-1.0, 7.0, 300.0])), [0, 7, 255])


def test_composite_is_pillows():
    rgba = np.random.default_rng(0).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    white = Image.new("RGBA", (32, 32), (255, 255, 255, 255))
    expected = np.asarray(Image.alpha_composite(white, Image.fromarray(rgba)).convert("RGB"))
    assert np.abs(composite_on_white(rgba).astype(int) - expected).max() <= 1


def test_resize_is_pillows_bicubic_of_the_whole_image():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(resize(image, 16), expected)
    np.testing.assert_array_equal(resize(expected, 16), expected)


@pytest.mark.parametrize("canvas", [6, 9, 20])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("width", [9, 14])
def test_decoded_and_resized_at_once_is_one_after_the_other(canvas, orientation, width):
    """Also of pictures that lie on their side, and that have the size already."""
    noise = np.random.RandomState(0).randint(0, 256, (9, width, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    data = encode(Image.fromarray(noise), "PNG", exif=exif)
    found, size = decode_resized(data, canvas)
    np.testing.assert_array_equal(found, resize(decode(data), canvas))
    assert size == ((9, width) if orientation == 1 else (width, 9)) == decode(data).shape[:2]
