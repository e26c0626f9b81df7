"""The one walk of the house over a tree of files, on this machine or in a store."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from pyarrow import fs

from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import resolve

ASKED_ONE_BY_ONE = 32  # files of a store; more are found by one listing


class File(NamedTuple):
    """A file below a folder.

    name: its '/'-separated path relative to the folder; path: its path within the file system; modified_ns:
    nanoseconds since 1970; changed_ns: when its status changed too, where the file system knows (else 0).
    """

    name: str
    path: str
    size: int
    modified_ns: int
    changed_ns: int = 0


def files_below(filesystem: fs.FileSystem, folder: str, *, contained: bool = False) -> list[File]:
    """All files below a folder, hidden ones too, sorted by name; none where the folder does not exist.

    Links are followed. Raises InputError for a loop of links and, where `contained`, for a link that leads
    out of the folder; OSError where the folder cannot be listed.
    """
    top = folder.rstrip("/") or "/"
    if isinstance(filesystem, fs.LocalFileSystem):
        return sorted(_local(top, "", os.path.realpath(top) + os.sep if contained else "", ()))
    selector = fs.FileSelector(top, allow_not_found=True, recursive=True)
    below = len(top.strip("/")) + 1
    found = (info for info in filesystem.get_file_info(selector) if info.type == fs.FileType.File)
    return sorted(
        File(info.path.strip("/")[below:], info.path, info.size, info.mtime_ns or 0) for info in found
    )


def stat_all(addresses: Sequence[str]) -> list[File | None]:
    """Each file, by its address (a local path or a URI); None for one that is not there or not accessible.

    A store is asked for many files by one listing of the folder that they share.
    """
    found: dict[str, File] = {}
    stores: dict[int, tuple[fs.FileSystem, list[str]]] = {}
    places = [resolve(address) for address in addresses]
    for filesystem, path in places:
        if isinstance(filesystem, fs.LocalFileSystem):
            with suppress(OSError):
                found[path] = _file(path, path, os.stat(path))
        else:
            stores.setdefault(id(filesystem), (filesystem, []))[1].append(path)
    for filesystem, paths in stores.values():
        with suppress(OSError):
            if len(paths) > ASKED_ONE_BY_ONE:
                found |= {file.path: file for file in files_below(filesystem, os.path.commonpath(paths))}
            else:
                found |= {
                    info.path: File(info.path, info.path, info.size, info.mtime_ns or 0)
                    for info in filesystem.get_file_info(paths)
                    if info.type == fs.FileType.File
                }
    return [found.get(path) for _, path in places]


def _local(folder: str, prefix: str, inside: str, around: tuple[tuple[int, int], ...]) -> Iterator[File]:
    """Files below a local folder; inside: where links must lead, if anywhere; around: the folders above."""
    try:
        status = os.stat(folder)
        with os.scandir(folder) as entries:
            found = list(entries)
    except FileNotFoundError:
        return
    identity = (status.st_dev, status.st_ino)
    if identity in around:  # a listing would follow it until the kernel stops it: two of them, for ever
        raise InputError(f"{folder!r} links to a folder that it lies in: take the link away")
    for entry in found:
        if inside and entry.is_symlink() and not (os.path.realpath(entry.path) + os.sep).startswith(inside):
            raise InputError(
                f"{entry.path!r} links to {os.path.realpath(entry.path)!r}, out of the folder that is read: "
                "put the files themselves there, or bind-mount their folder"
            )
        if entry.is_dir():
            yield from _local(entry.path, f"{prefix}{entry.name}/", inside, (*around, identity))
        elif entry.is_file():
            try:
                yield _file(prefix + entry.name, entry.path, entry.stat())
            except FileNotFoundError:  # it was removed meanwhile
                continue


def _file(name: str, path: str, status: os.stat_result) -> File:
    return File(name, path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
