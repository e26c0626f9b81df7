"""Local paths and pyarrow.fs URIs under one roof: open, join, list, read."""

import os
from functools import cache
from urllib.parse import SplitResult, quote, unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from cvgl_ray.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def resolve(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of a local path (relative and '~' allowed) or a URI, and the path within it.

    A URI's path may be percent-encoded, as `join` and `list_images` give it. Raises InputError if pyarrow.fs
    knows no such scheme or cannot reach it.
    """
    parts = _split(uri)
    if parts is None:
        return fs.LocalFileSystem(), _absolute(uri)
    try:
        filesystem, top = _filesystem(parts.scheme, parts.netloc, parts.query)
    except (pa.ArrowException, OSError, ImportError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"{uri!r} cannot be opened ({reason}): give a local path or a URI that pyarrow.fs"
            " reaches from here, such as s3://bucket/folder"
        ) from error
    return filesystem, top + unquote(parts.path)


def join(uri: str, relative: str) -> str:
    """The address of the '/'-separated path `relative` below `uri`, percent-encoded if a URI, else absolute.

    Raises InputError if `relative` could leave `uri`: if it is absolute or has a '..'.
    """
    if relative.startswith("/") or ".." in relative.split("/"):
        raise InputError(f"the path {relative!r} leads out of {uri!r}: give one below it, without '..'")
    parts = _split(uri)
    if parts is None:
        return _absolute(uri).rstrip("/") + "/" + relative
    path = quote(unquote(parts.path).rstrip("/") + "/" + relative)
    return f"{parts.scheme}://{parts.netloc}{path}" + (f"?{parts.query}" if parts.query else "")


def is_uri(address: str) -> bool:
    """Whether an address is a URI and not a local path."""
    return "://" in address


def exists(uri: str) -> bool:
    """Whether there is a file or a folder; InputError if its store cannot be asked."""
    return _file_type(uri) != fs.FileType.NotFound


def list_images(root: str) -> list[tuple[str, str]]:
    """The .jpg, .jpeg and .png files (any case) below `root` as (path relative to root, uri), sorted.

    Hidden files and folders (a leading dot) are skipped. `root` itself may be a link, and links within it are
    followed. One recursive listing, and no file is opened. Raises InputError if `root` is no folder, cannot
    be listed, holds a loop of links, or a link that leads out of it: an archive that somebody else packed
    must not reach other files of this machine.
    """
    if _file_type(root) != fs.FileType.Directory:
        raise InputError(f"there is no folder {root!r}: give an existing folder of images")
    filesystem, path = resolve(root)
    below = len(path.rstrip("/")) + 1
    try:
        if isinstance(filesystem, fs.LocalFileSystem):
            _check_links(path, os.path.realpath(path) + os.sep)
        found = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
        names = sorted(info.path[below:] for info in found if info.type == fs.FileType.File)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the folder {root!r} cannot be listed ({error}): make it readable and its file names UTF-8"
        ) from error
    return [(name, join(root, name)) for name in names if _is_image(name)]


def read_bytes(uri: str) -> bytes:
    """The bytes of a file. Raises OSError if it cannot be read: the caller sets such an image aside."""
    filesystem, path = resolve(uri)
    with filesystem.open_input_file(path) as source:
        content: bytes = source.read()
    return content


def _split(uri: str) -> SplitResult | None:
    """The parts of a URI, None for a local path."""
    if not is_uri(uri):
        return None
    try:
        # '#' stays in the path: no store has fragments, but file names may hold one.
        return urlsplit(uri, allow_fragments=False)
    except ValueError as error:
        raise InputError(f"{uri!r} is no URI ({error}): give one such as s3://bucket/folder") from error


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


@cache
def _filesystem(scheme: str, netloc: str, query: str) -> tuple[fs.FileSystem, str]:
    """The file system of a store and the path of its top; kept, for opening a bucket asks the network."""
    filesystem, top = fs.FileSystem.from_uri(f"{scheme}://{netloc}/" + (f"?{query}" if query else ""))
    return filesystem, top.rstrip("/")


def _file_type(uri: str) -> fs.FileType:
    filesystem, path = resolve(uri)
    try:
        return filesystem.get_file_info(path).type
    except OSError as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"{uri!r} cannot be reached ({reason}): check the address and your access"
        ) from error


def _check_links(folder: str, inside: str, around: tuple[tuple[int, int], ...] = ()) -> None:
    # A recursive listing follows a loop until the kernel stops it, two of them for practically ever.
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in around:
        raise InputError(f"{folder!r} links to a folder that it lies in: take the link away")
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        if entry.is_dir():
            _check_links(entry.path, inside, (*around, identity))
        if entry.is_symlink() and not (os.path.realpath(entry.path) + os.sep).startswith(inside):
            raise InputError(
                f"{entry.path!r} links to {os.path.realpath(entry.path)!r}, out of the folder that is read: "
                "put the files themselves there, or bind-mount their folder"
            )


def _is_image(name: str) -> bool:
    # A '..' in the key of an object store counts as hidden, so that no listed path leaves the root.
    hidden = any(part.startswith(".") for part in name.split("/"))
    return not hidden and name.lower().endswith(IMAGE_SUFFIXES)
