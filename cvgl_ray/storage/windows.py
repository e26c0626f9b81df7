"""Addresses of windows: pixels of a raster file that stand for an image, as in `map.tif#px=0,512,400,400`."""

import re
from typing import NamedTuple

from cvgl_ray.storage.files import file_digest

_WINDOW = re.compile(r"(?P<file>.+)#px=(\d+),(\d+),(\d+),(\d+)")


class PixelBox(NamedTuple):
    """A window of a raster, in px of it; column and row of its first pixel are counted from 0."""

    column: int
    row: int
    width: int
    height: int


def window_uri(file: str, box: PixelBox) -> str:
    """The address of a window of a file, path or URI."""
    return f"{file}#px={box.column},{box.row},{box.width},{box.height}"


def split_window(uri: str) -> tuple[str, PixelBox | None]:
    """The file of an address, and its window; None where it names the whole file."""
    found = _WINDOW.fullmatch(uri)
    if found is None:
        return uri, None
    return found["file"], PixelBox(*map(int, found.groups()[1:]))


def image_digest(of_file: str, uri: str) -> str:
    """The digest of an address's image, given its file's; "!" and a reason stay what they are."""
    _, box = split_window(uri)
    return of_file if box is None or of_file.startswith("!") else file_digest(f"{of_file}{box}".encode())
