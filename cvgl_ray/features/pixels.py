"""Bytes of an image file -> an RGB picture, or one sentence saying why not."""

import io
import warnings
from collections.abc import Sequence

from PIL import Image, ImageOps, UnidentifiedImageError

from cvgl_ray.catalog.images import formats, readable
from cvgl_ray.maps.windows import window_picture
from cvgl_ray.storage.filesystem import read_bytes
from cvgl_ray.storage.windows import split_window


class BrokenImageError(ValueError):
    """An image that cannot be used; the message says why. The run counts it, names it and goes on."""


def read_picture(uri: str, at_least: int = 0) -> Image.Image:
    """The picture at an address that suffices for one size, see `read_pictures`."""
    return read_pictures(uri, [at_least])[0]


def read_pictures(uri: str, sides: Sequence[int]) -> list[Image.Image]:
    """The picture at an address, for each of several sizes, see `decode_for`.

    It is a file's, or that of a window of a raster (storage.windows). Raises OSError too, where the file
    cannot be read.
    """
    file, box = split_window(uri)
    if box is not None:
        return [window_picture(file, box)] * len(sides)
    return decode_for(read_bytes(file), sides)


def decode(content: bytes, at_least: int = 0) -> Image.Image:
    """An image file as a picture that suffices for one size, see `decode_for`."""
    return decode_for(content, [at_least])[0]


def decode_for(content: bytes, sides: Sequence[int]) -> list[Image.Image]:
    """Decode an image file of one of `catalog.images.formats` to 8-bit RGB, upright by its EXIF orientation.

    Grey, palette, 16-bit, CMYK and alpha images are converted (16-bit by its high byte; alpha is dropped); of
    several pictures in one file the first is taken.
    sides: px of the shorter side that suffice, and a picture for each: a JPEG that has twice, four or eight
    times as many is decoded at that fraction of its size, which takes a fraction of the time. 0: at its full
    size. What comes to one size is decoded once; of other files than large JPEGs, all does.
    Raises BrokenImageError for empty, truncated, corrupt, unknown or absurdly large files: more than 178
    megapixels, Pillow's guard against decompression bombs, are refused before decoding. So are floating-point
    pixels, which are no picture but measurements.
    """
    if not content:
        raise BrokenImageError("the file is empty")
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images, odd palettes and corrupt EXIF; what matters here, it raises.
            warnings.simplefilter("ignore")
            by_size: dict[tuple[int, int], Image.Image] = {}
            return [_decoded(content, side, by_size) for side in sides]
    except UnidentifiedImageError as error:
        raise BrokenImageError(
            f"the file is no image of a kind that is read: {', '.join(formats())}"
        ) from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise BrokenImageError(f"the file cannot be decoded ({error})") from error


def _decoded(content: bytes, side: int, by_size: dict[tuple[int, int], Image.Image]) -> Image.Image:
    """by_size: what is decoded already, by its size on file or the fraction of it that is taken."""
    image = Image.open(io.BytesIO(content), formats=readable())  # reads its header
    if side:
        image.draft(None, (side, side))
    size = image.size
    if size not in by_size:
        image.load()
        by_size[size] = _upright(_to_rgb(image))
    return by_size[size]


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, no picture")
    if image.mode.startswith("I"):  # Pillow would clip 16-bit values at 255 instead of scaling them
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # as above; EXIF that cannot be read says nothing against the pixels
        return image
