"""Which photos there are, by the names that the output uses."""

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pyarrow import fs

from cvgl_ray.catalog.images import describe_left_out, formats, is_image, list_images
from cvgl_ray.errors import InputError
from cvgl_ray.maps.metadata import PhotoInfo, read_info
from cvgl_ray.storage.filesystem import read_bytes, resolve

log = logging.getLogger(__name__)


class Photo(NamedTuple):
    """A photo that is to be located. Its pixels are read by `features.pixels.decode`, upright."""

    image_id: str  # the file's name, or its path below the given folder
    uri: str  # path or URI

    def info(self) -> PhotoInfo:
        """Its metadata; never raises."""
        try:
            return read_info(read_bytes(self.uri))
        except OSError as error:
            return PhotoInfo(notes=(f"the file cannot be read ({error})",))


def list_photos(paths: str | Sequence[str]) -> list[Photo]:
    """The photos among files and in folders, sorted by image_id; no file is opened.

    Raises InputError for an address without a file or folder, a folder without photos, and two photos of one
    image_id.
    """
    return unique(
        photo for path in ([paths] if isinstance(paths, str) else paths) for photo in _photos_at(path)
    )


def unique(photos: Iterable[Photo]) -> list[Photo]:
    """The photos sorted by image_id. Raises InputError if there is none, or two have the same image_id."""
    found: dict[str, Photo] = {}
    for photo in photos:
        other = found.setdefault(photo.image_id, photo)
        if other is not photo:
            raise InputError(
                f"two photos are called {photo.image_id!r}, {other.uri!r} and {photo.uri!r}: name each"
                " once, or give the folder that holds both, so that their paths below it differ"
            )
    if not found:
        raise InputError(f"no photo is named: give files or folders of photos ({', '.join(formats())})")
    return [found[name] for name in sorted(found)]


def _photos_at(path: str) -> list[Photo]:
    filesystem, inner = resolve(path)
    try:
        kind = filesystem.get_file_info(inner).type
    except OSError as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"the photos {path!r} cannot be reached ({reason}): check the address") from error
    if kind == fs.FileType.Directory:
        images, left_out = list_images(path)
        others = describe_left_out(left_out)
        if not images:
            raise InputError(
                f"the folder {path!r} holds no photo ({', '.join(formats())}; found: {others or 'nothing'}):"
                " put photos there"
            )
        if left_out:
            log.warning("%d photos in %s; left out: %s", len(images), path, others)
        return [Photo(name, uri) for name, uri in images]
    if kind == fs.FileType.NotFound:
        raise InputError(f"there is no photo {path!r}: give a file or a folder of photos")
    if not is_image(inner):
        raise InputError(f"{path!r} is no photo of a kind that is read ({', '.join(formats())}): convert it")
    return [Photo(inner.rsplit("/", 1)[-1], path)]
