"""Which photos there are, by the names that the output uses."""

from collections.abc import Sequence
from typing import NamedTuple

from pyarrow import fs

from cvgl_ray.errors import InputError
from cvgl_ray.maps.metadata import PhotoInfo, read_info
from cvgl_ray.storage.filesystem import IMAGE_SUFFIXES, list_images, read_bytes, resolve


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
    photos: dict[str, Photo] = {}
    for path in [paths] if isinstance(paths, str) else paths:
        for photo in _photos_at(path):
            other = photos.setdefault(photo.image_id, photo)
            if other is not photo:
                raise InputError(
                    f"two photos are called {photo.image_id!r}, {other.uri!r} and {photo.uri!r}: name each"
                    " once, or give the folder that holds both, so that their paths below it differ"
                )
    if not photos:
        raise InputError("no photo is named: give files or folders of .jpg, .jpeg or .png photos")
    return [photos[name] for name in sorted(photos)]


def _photos_at(path: str) -> list[Photo]:
    filesystem, inner = resolve(path)
    try:
        kind = filesystem.get_file_info(inner).type
    except OSError as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"the photos {path!r} cannot be reached ({reason}): check the address") from error
    if kind == fs.FileType.Directory:
        found = [Photo(name, uri) for name, uri in list_images(path)]
        if not found:
            raise InputError(f"the folder {path!r} holds no .jpg, .jpeg or .png photo: put photos there")
        return found
    if kind == fs.FileType.NotFound:
        raise InputError(f"there is no photo {path!r}: give a file or a folder of photos")
    if not inner.lower().endswith(IMAGE_SUFFIXES):
        raise InputError(f"{path!r} is no .jpg, .jpeg or .png photo: convert it")
    return [Photo(inner.rsplit("/", 1)[-1], path)]
