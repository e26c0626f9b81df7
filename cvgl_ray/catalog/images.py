"""Which files are images: the kinds that are read, known by their suffix, and what is left out."""

import logging
from collections import Counter
from functools import cache
from importlib.util import find_spec
from posixpath import splitext
from typing import NamedTuple

from pyarrow import fs

from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import file_type, join, resolve
from cvgl_ray.storage.tree import files_below

log = logging.getLogger(__name__)

# Pillow's names of the kinds, and the suffixes by which a folder's files are taken for one of them.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "AVIF": (".avif",),
}
HEIF = {"HEIF": (".heic", ".heif", ".hif")}  # what the package `pillow-heif` adds
BESIDE_IMAGES = ("coordinates.csv", "labels.csv")  # in a data set's root, read elsewhere


class Listing(NamedTuple):
    """The images of a folder as (path relative to it, uri), sorted, and how many other files, by suffix."""

    images: list[tuple[str, str]]
    left_out: dict[str, int]


@cache
def formats() -> dict[str, tuple[str, ...]]:
    """The kinds that can be read here: name -> suffixes, in lower case with their dot."""
    return FORMATS | (HEIF if find_spec("pillow_heif") else {})


@cache
def readable() -> tuple[str, ...]:
    """Pillow's names of the kinds, once all of them are known to it."""
    from PIL import Image  # here: what lists a folder alone need not wait

    Image.init()
    if formats().keys() & HEIF:
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return tuple(formats())


def list_images(root: str) -> Listing:
    """The image files (suffixes in any case) below a folder, a local path or a URI; no file is opened.

    Hidden files and folders (a leading dot) are skipped and not counted. `root` itself may be a link, and
    links within it are followed. Raises InputError if `root` is no folder, cannot be listed, holds a loop of
    links, or a link that leads out of it: an archive that somebody else packed must not reach other files of
    this machine.
    """
    if file_type(root) != fs.FileType.Directory:
        raise InputError(f"there is no folder {root!r}: give an existing folder of images")
    try:
        names = [file.name for file in files_below(*resolve(root), contained=True)]
        "".join(names).encode()
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"the folder {root!r} cannot be listed ({error}): make it readable and its file names UTF-8"
        ) from error
    visible = [name for name in names if not _is_hidden(name) and name not in BESIDE_IMAGES]
    images = [name for name in visible if is_image(name)]
    others = Counter(_suffix(name) for name in visible if not is_image(name))
    return Listing([(name, join(root, name)) for name in images], dict(others.most_common()))


def is_image(name: str) -> bool:
    """Whether a file's suffix is that of a kind that can be read here."""
    return _suffix(name) in _suffixes()


def describe_left_out(left_out: dict[str, int]) -> str:
    """Such as "40 .heic, 2 .txt, 1 without suffix (.heic needs the package pillow-heif)"."""
    counts = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in left_out.items())
    lacking = [suffix for suffix in HEIF["HEIF"] if suffix in left_out]
    return counts + (f" ({', '.join(lacking)} needs the package pillow-heif)" if lacking else "")


@cache
def _suffixes() -> frozenset[str]:
    return frozenset(suffix for kind in formats().values() for suffix in kind)


def _suffix(name: str) -> str:
    return splitext(name)[1].lower()


def _is_hidden(name: str) -> bool:
    # A '..' in the key of an object store counts as hidden, so that no listed path leaves the root.
    return name.startswith(".") or "/." in name
