"""Local paths and pyarrow.fs URIs under one roof: open, join, read."""

import os
from functools import cache
from urllib.parse import SplitResult, quote, unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from cvgl_ray.errors import InputError


def resolve(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of a local path (relative and '~' allowed) or a URI, and the path within it.

    A URI's path may be percent-encoded, as `join` gives it. Raises InputError if pyarrow.fs
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
    return file_type(uri) != fs.FileType.NotFound


def file_type(uri: str) -> fs.FileType:
    """Whether there is a file, a folder or nothing; InputError if its store cannot be asked."""
    filesystem, path = resolve(uri)
    try:
        return filesystem.get_file_info(path).type
    except OSError as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"{uri!r} cannot be reached ({reason}): check the address and your access"
        ) from error


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
    if path.startswith("/") and "//" not in path and "/." not in path and not path.endswith("/"):
        return path  # as most are, of many
    return os.path.abspath(os.path.expanduser(path))


@cache
def _filesystem(scheme: str, netloc: str, query: str) -> tuple[fs.FileSystem, str]:
    """The file system of a store and the path of its top; kept, for opening a bucket asks the network."""
    filesystem, top = fs.FileSystem.from_uri(f"{scheme}://{netloc}/" + (f"?{query}" if query else ""))
    return filesystem, top.rstrip("/")
