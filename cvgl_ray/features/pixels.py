"""Bytes of an image file -> an RGB picture, or one sentence saying why not."""

import io
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

from cvgl_ray.catalog.images import formats, readable
from cvgl_ray.maps.windows import window_picture
from cvgl_ray.storage.filesystem import read_bytes
from cvgl_ray.storage.windows import split_window


class BrokenImageError(ValueError):
    """An image that cannot be used; the message says why. The run counts it, names it and goes on."""


def read_picture(uri: str, at_least: int = 0) -> Image.Image:
    """The picture at an address: a file's, or that of a window of a raster (storage.windows); see `decode`.

    Raises OSError too, where the file cannot be read.
    """
    file, box = split_window(uri)
    return decode(read_bytes(file), at_least) if box is None else window_picture(file, box)


def decode(content: bytes, at_least: int = 0) -> Image.Image:
    """Decode an image file of one of `catalog.images.formats` to 8-bit RGB, upright by its EXIF orientation.

    Grey, palette, 16-bit, CMYK and alpha images are converted (16-bit by its high byte; alpha is dropped); of
    several pictures in one file the first is taken.
    at_least: px of the shorter side that suffice: a JPEG that has twice, four or eight times as many is
    decoded at that fraction of its size, which takes a fraction of the time. 0: at its full size.
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
            image = Image.open(io.BytesIO(content), formats=readable())
            if at_least:
                image.draft(None, (at_least, at_least))
            image.load()
            return _upright(_to_rgb(image))
    except UnidentifiedImageError as error:
        raise BrokenImageError(
            f"the file is no image of a kind that is read: {', '.join(formats())}"
        ) from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise BrokenImageError(f"the file cannot be decoded ({error})") from error


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
