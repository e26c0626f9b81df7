"""Files that appear whole or not at all, and digests that tell whether they still are what was written."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


def file_digest(content: bytes) -> str:
    """BLAKE2b-128 of a file's bytes, in hex."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def stream_digest(stream: IO[bytes]) -> str:
    """The same of a stream that may be larger than memory."""
    digest = hashlib.blake2b(digest_size=16)
    while content := stream.read(2**22):
        digest.update(content)
    return digest.hexdigest()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary)`, then fsync and rename, so that `path` is never seen half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `folder` once the block has ended without an error.

    Killed at any moment, the one or the other is whole, see `standing`.
    """
    new, old = folder.with_name(f".{folder.name}.new"), _aside(folder)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    yield new
    for path in (*new.iterdir(), new):
        sync(path)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    new.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def standing(folder: Path) -> Path:
    """The folder to read: this one, or what stood there where its writer was killed as it exchanged them."""
    return _aside(folder) if not folder.exists() and _aside(folder).exists() else folder


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def write_json(path: Path, tree: Any) -> None:
    """Write JSON, indented, whole or not at all."""
    write_text(path, json.dumps(tree, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_atomically(path, lambda temporary: temporary.write_text(text))


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, reach the disk before returning."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
