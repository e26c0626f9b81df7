"""Images that a published list names: those of them that are there, and the reading of such lists."""

import logging
from collections.abc import Mapping
from posixpath import dirname

from cvgl_ray.catalog.images import list_images
from cvgl_ray.catalog.table import Catalog
from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import join, read_bytes

log = logging.getLogger(__name__)


def listed_images(root: str, view: str, splits: Mapping[str, str]) -> Catalog:
    """The images that a list names and that are there, sorted by path, whatever the order of the list.

    Args:
        root: the data set's folder; an image's id is its path relative to it.
        view: the name of the view.
        splits: path relative to `root` -> split.

    Raises:
        InputError: a folder of the list is missing, or not one of its images is there.
    """
    present = {
        f"{folder}/{name}" if folder else name: uri
        for folder in sorted({dirname(path) for path in splits})
        for name, uri in list_images(join(root, folder) if folder else root).images
    }
    found = sorted(path for path in splits if path in present)
    if not found:
        raise InputError(
            f"view {view!r}: none of the {len(splits)} images that the data set's list names is in {root!r}, "
            f"such as {next(iter(splits), '(the list is empty)')!r}: put the images where the list has them"
        )
    if len(found) < len(splits):
        missing = next(path for path in splits if path not in present)
        log.warning(
            "view %r: %d of the %d images that the data set's list names are not in %s, such as %s",
            view,
            len(splits) - len(found),
            len(splits),
            root,
            missing,
        )
    return Catalog.from_rows(
        {"image_id": path, "uri": present[path], "view": view, "split": splits[path]} for path in found
    )


def read_lines(uri: str, what: str) -> list[str]:
    """The lines of a published text file that are not blank. Raises InputError where it cannot be read.

    what: what the file is, for the error.
    """
    text = read_content(uri, what).decode("utf-8-sig", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_content(uri: str, what: str) -> bytes:
    """The bytes of a published file; InputError where it cannot be read."""
    try:
        return read_bytes(uri)
    except OSError as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"{uri!r} cannot be read ({reason}): {what}") from error
