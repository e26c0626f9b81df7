"""Photos of a flight: each file read once for what it says, and again, small, for its pixels."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from cvgl_ray.errors import InputError
from cvgl_ray.features.pixels import BrokenImageError, decode
from cvgl_ray.maps.masks import black_surround, is_blank
from cvgl_ray.maps.metadata import PhotoInfo, read_info
from cvgl_ray.maps.photos import Photo
from cvgl_ray.storage.files import file_digest
from cvgl_ray.storage.filesystem import read_bytes

SUFFICIENT_PX = 480  # of a photo's shorter side: the finest fit lays it on the map at about that
LEAST_VALID = 0.1  # share of the pixels that must show something
READERS = 4


class PhotoFile(NamedTuple):
    """A photo's file. digest: of its bytes, "" where it cannot be read; `reason` then says why."""

    image_id: str
    uri: str
    digest: str
    info: PhotoInfo
    reason: str = ""


class PhotoPixels(NamedTuple):
    """rgb [H, W, 3] uint8, upright; valid [H, W] bool: False on fill around the picture."""

    rgb: np.ndarray
    valid: np.ndarray


def open_photos(photos: Sequence[Photo]) -> list[PhotoFile]:
    """Digest and metadata of each photo; a file that cannot be read has a reason instead."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(_opened, photos))


def _opened(photo: Photo) -> PhotoFile:
    try:
        content = read_bytes(photo.uri)
    except OSError as error:
        return PhotoFile(*photo, "", PhotoInfo(), f"the file cannot be read ({error})")
    return PhotoFile(*photo, file_digest(content), read_info(content))


def read_pixels(uri: str, sufficient_px: int = SUFFICIENT_PX) -> PhotoPixels:
    """A photo's pixels, reduced to what the alignment uses.

    Raises BrokenImageError for a file that is no picture, or a picture that shows nothing; InputError for one
    that cannot be read: `open_photos` has read it.
    """
    try:
        content = read_bytes(uri)
    except OSError as error:
        raise InputError(
            f"the photo {uri!r} was there and cannot be read now ({error}): start again, and where a cluster"
            " works give photos that all of its nodes see"
        ) from error
    rgb = np.asarray(reduced(decode(content, sufficient_px), sufficient_px))
    if is_blank(rgb):
        raise BrokenImageError("the picture is of one brightness throughout")
    valid = black_surround(rgb)
    if valid.mean() < LEAST_VALID:
        raise BrokenImageError(f"{100 - 100 * valid.mean():.0f} % of the picture is black or white fill")
    return PhotoPixels(rgb, valid)


def reduced(image: Image.Image, sufficient_px: int) -> Image.Image:
    """The picture at a whole fraction of its size whose shorter side is sufficient."""
    factor = min(image.size) // sufficient_px
    return image.reduce(factor) if factor > 1 else image
