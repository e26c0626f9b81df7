"""Decoding: every kind of picture becomes upright 8-bit RGB; what cannot be used says why."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from backbones import photo
from PIL import Image

from cvgl_ray.features.pixels import BrokenImageError, decode, decode_for

PAINT = (200, 100, 50)
ORIENTATION = 0x0112  # EXIF tag


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG by hand, for the kinds that Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_an_rgb_png_comes_back_bit_for_bit():
    image = noise()
    found = decode(encoded(image))
    assert found.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(found), np.asarray(image))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_every_mode_becomes_the_colour_it_shows(mode):
    image = Image.new("RGB", (9, 7), PAINT).convert(mode)
    content = encoded(image, "JPEG", quality=100) if mode == "CMYK" else encoded(image)
    found = decode(content)
    assert (found.mode, found.size) == ("RGB", (9, 7))
    np.testing.assert_allclose(np.asarray(found), np.asarray(image.convert("RGB")), atol=2)


def test_alpha_is_dropped_and_not_blended():
    image = Image.new("RGBA", (4, 4), (*PAINT, 0))
    assert decode(encoded(image)).getpixel((1, 1)) == PAINT


def test_a_palette_with_transparency_keeps_its_colours():
    image = noise(8).quantize(16)
    found = decode(encoded(image, transparency=bytes(range(0, 160, 10))))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "BMP", "MPO", "JPEG2000", "AVIF"])
def test_every_kind_that_pillow_reads_is_read(kind):
    image = photo(64, 48)
    found = decode(encoded(image, kind, quality=90))
    assert (found.mode, found.size) == ("RGB", (64, 48))
    assert np.abs(np.asarray(found, int) - np.asarray(image, int)).mean() < 6


def test_a_heic_is_read_where_the_package_is_there():
    pytest.importorskip("pillow_heif").register_heif_opener()
    found = decode(encoded(photo(64, 48), "HEIF"))
    assert (found.mode, found.size) == ("RGB", (64, 48))


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
def test_16_bit_files_keep_their_high_byte_in_every_kind(kind):
    values = np.array([[0, 255, 256, 40000]], np.uint16)
    assert np.asarray(decode(encoded(Image.fromarray(values), kind)))[0, :, 0].tolist() == [0, 0, 1, 156]


def test_measurements_are_no_picture():
    with pytest.raises(BrokenImageError, match="floating-point numbers, no picture"):
        decode(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))


def test_16_bit_grey_keeps_its_high_byte():
    values = np.array([[0, 255, 256, 40000], [511, 512, 65279, 65535]], np.uint16)
    found = np.asarray(decode(encoded(Image.fromarray(values))))
    np.testing.assert_array_equal(found, np.repeat((values >> 8)[..., None], 3, axis=2))


def test_16_bit_colour_keeps_its_high_bytes():
    pixel = struct.pack(">HHH", 0x9C40, 0x1000, 0x20FF)
    found = decode(png(2, 2, 16, 2, (b"\0" + 2 * pixel) * 2))
    assert found.getpixel((1, 1)) == (0x9C, 0x10, 0x20)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("orientation", "transpose"),
    [
        (1, None),
        (3, Image.Transpose.ROTATE_180),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_270),
    ],
)
def test_exif_orientation_is_undone(kind, mode, orientation, transpose):
    image = Image.new(mode, (32, 16))
    image.paste("white", (0, 0, 8, 8))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    upright = image if transpose is None else image.transpose(transpose)
    found = decode(encoded(image, kind, exif=exif))
    np.testing.assert_allclose(np.asarray(found), np.asarray(upright.convert("RGB")), atol=4)


@pytest.mark.parametrize(
    "exif", [b"garbage", b"Exif\0\0garbage", b"Exif\0\0II*\0", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"]
)
def test_a_corrupt_exif_block_does_not_cost_the_picture(exif):
    assert decode(encoded(noise(), "JPEG", exif=exif)).size == (64, 64)


def test_the_first_picture_of_a_multi_picture_jpeg_is_read():
    content = encoded(Image.new("RGB", (16, 16), PAINT), "MPO", save_all=True, append_images=[noise(16)])
    np.testing.assert_allclose(decode(content).getpixel((8, 8)), PAINT, atol=3)


@pytest.mark.parametrize(("at_least", "expected"), [(0, 512), (257, 512), (256, 256), (100, 128), (10, 64)])
def test_a_jpeg_is_decoded_no_larger_than_it_must(at_least, expected):
    content = encoded(noise(64).resize((1024, 512), Image.Resampling.BICUBIC), "JPEG", quality=95)
    found = decode(content, at_least)
    assert found.size == (2 * expected, expected)
    whole = np.asarray(decode(content).reduce(512 // expected), np.float32)
    assert np.abs(np.asarray(found) - whole).mean() < 2


def test_a_smaller_decode_is_upright_too():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    content = encoded(noise(64).resize((1024, 512), Image.Resampling.BICUBIC), "JPEG", exif=exif)
    assert decode(content, at_least=200).size == (256, 512)


def test_a_png_has_one_size():
    assert decode(encoded(noise(512)), at_least=100).size == (512, 512)


def test_an_empty_file_is_refused():
    with pytest.raises(BrokenImageError, match="the file is empty"):
        decode(b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.95])
def test_a_truncated_file_is_refused(kind, share):
    content = encoded(noise(), kind)
    with pytest.raises(BrokenImageError, match="the file "):
        decode(content[: int(len(content) * share)])


def test_corrupt_pixels_are_refused():
    content = bytearray(encoded(noise()))
    content[200:300] = b"\xff" * 100
    with pytest.raises(BrokenImageError, match="cannot be decoded"):
        decode(bytes(content))


@pytest.mark.parametrize("content", [b"<html>", encoded(noise(), "GIF"), encoded(noise(), "ICO")])
def test_another_format_is_refused_by_what_is_read(content):
    with pytest.raises(
        BrokenImageError, match=r"^the file is no image of a kind that is read: JPEG, PNG, TIFF"
    ):
        decode(content)


def test_a_decompression_bomb_is_refused_before_decoding():
    with pytest.raises(BrokenImageError, match=r"900000000 pixels"):
        decode(png(30_000, 30_000, 8, 2, b""))


def test_a_large_aerial_picture_is_no_bomb():
    with pytest.raises(BrokenImageError, match="truncated"):  # its size passed, its pixels are missing
        decode(png(10_000, 9_000, 8, 0, b"\0"))


def test_a_picture_is_decoded_once_per_fraction_that_is_asked_for():
    jpeg, small = encoded(photo(400, 400), "JPEG"), encoded(photo(400, 400))
    whole, half, same, quarter = decode_for(jpeg, [0, 150, 200, 100])
    assert [picture.width for picture in (whole, half, quarter)] == [400, 200, 100]
    assert half is same
    np.testing.assert_array_equal(np.asarray(half), np.asarray(decode(jpeg, 150)))
    assert len({id(picture) for picture in decode_for(small, [0, 150, 100])}) == 1
