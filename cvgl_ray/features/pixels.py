"""Bytes of an image file -> an RGB picture, or one sentence saying why not."""

import io

from PIL import Image, ImageOps

MAX_PIXELS = 200_000_000  # larger images are refused before decoding (decompression bombs)


class BrokenImageError(ValueError):
    """An image that cannot be used; the message says why. The run counts it, names it and goes on."""


def decode(content: bytes) -> Image.Image:
    """Decode an image file to 8-bit RGB, upright by its EXIF orientation.

    Grey, palette, 16-bit, CMYK and alpha images are converted (16-bit by its high byte; alpha is dropped).
    Raises BrokenImageError for empty, truncated, corrupt, unknown or absurdly large (> 200 megapixel) files.
    """
    if not content:
        raise BrokenImageError("the file is empty")
    try:
        image = Image.open(io.BytesIO(content), formats=("JPEG", "PNG"))
        if image.width * image.height > MAX_PIXELS:
            raise BrokenImageError(f"the image has {image.width} x {image.height} px, more than {MAX_PIXELS}")
        image.load()
        return ImageOps.exif_transpose(_to_rgb(image))
    except BrokenImageError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise BrokenImageError(f"the file cannot be decoded ({error})") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow would clip 16-bit values at 255 instead of scaling them
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    return image.convert("RGB")
