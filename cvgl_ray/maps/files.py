"""Raster files behind rasterio: open by path or URI, few at a time, and say in one sentence why not."""

import atexit
import io
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import rasterio
from pyarrow import fs
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError

from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import is_uri, resolve

CACHE_MB = 256  # of decoded blocks in each process; GDAL's own default is a twentieth of the memory
READ_BYTES = 65_536  # from a store at once: GDAL asks for a few bytes here and there, each a request
HANDLES = 32  # open files per thread
ENDS = {(".jpg", ".jpeg"): b"\xff\xd9", (".png",): b"IEND"}  # how complete files end
TAIL_BYTES = 65_536  # some programs append to a picture


class FileStamp(NamedTuple):
    """What tells whether a file is still the one that was read, without reading it."""

    name: str
    bytes: int
    time_ns: int


class DamagedError(Exception):
    """A part of a raster that cannot be decoded; the message names the file and the part."""


class _Handles(threading.local):
    def __init__(self) -> None:
        self.datasets: OrderedDict[tuple[str, FileStamp], Any] = OrderedDict()


_handles = _Handles()  # a GDAL dataset must not be used by two threads at once
atexit.register(lambda: close_all())  # before Python is gone, which GDAL's messages go through


def close_all() -> None:
    """Close the files that this thread keeps open."""
    while _handles.datasets:
        _handles.datasets.popitem()[1].close()


def stamp(address: str) -> FileStamp:
    """The stamp of a file by path or URI. Raises InputError if there is none."""
    filesystem, path = resolve(address)
    try:
        info = filesystem.get_file_info(path)
    except OSError as error:
        raise InputError(
            f"the map {address!r} cannot be reached ({_first_line(error)}): check the address"
        ) from error
    if info.type != fs.FileType.File:
        raise InputError(f"there is no map {address!r}: give a raster file or a folder of them")
    return stamp_of(info)


def stamp_of(info: fs.FileInfo) -> FileStamp:
    """The stamp in a listing's entry."""
    return FileStamp(info.base_name, int(info.size or 0), int(info.mtime_ns or 0))


@contextmanager
def dataset(address: str, known: FileStamp) -> Iterator[Any]:
    """The open rasterio dataset of a file, kept open for the thread's next read.

    Raises InputError if rasterio cannot open it, DamagedError for a decoder's error within the block.
    """
    with rasterio.Env(GDAL_CACHEMAX=CACHE_MB), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # said where it matters
        opened = _handles.datasets
        key = (address, known)
        if key not in opened:
            opened[key] = _open(address)
            while len(opened) > HANDLES:
                opened.popitem(last=False)[1].close()
        opened.move_to_end(key)
        try:
            yield opened[key]
        except RasterioIOError as error:
            raise DamagedError(f"{known.name} ({_reason(error)})") from error


def _open(address: str) -> Any:
    try:
        if not is_uri(address):
            return rasterio.open(resolve(address)[1])
        store = urlsplit(address, allow_fragments=False)._replace(path="/").geturl()
        return rasterio.open(resolve(address)[1], opener=_opener(store))
    except (RasterioError, OSError) as error:
        raise InputError(
            f"the map {address!r} cannot be opened ({_first_line(error)}): give a raster that GDAL reads,"
            " such as a GeoTIFF"
        ) from error


@cache
def _opener(store: str) -> Callable[..., Any]:
    """What gives GDAL the files of a pyarrow.fs store; one per store, as rasterio wants it."""
    filesystem, _ = resolve(store)

    def open_file(path: str, mode: str = "rb") -> Any:
        return io.BufferedReader(filesystem.open_input_file(path), READ_BYTES)

    return open_file


def check_complete(address: str) -> None:
    """Raise InputError for a JPEG or PNG file without its end: GDAL would make up the rest of it."""
    end = next((mark for suffixes, mark in ENDS.items() if address.lower().endswith(suffixes)), None)
    if end is not None:
        filesystem, path = resolve(address)
        with filesystem.open_input_file(path) as file:
            file.seek(max(0, file.size() - TAIL_BYTES))
            if end not in file.read():
                raise InputError(f"the map {address!r} is cut off: copy it again")


def _reason(error: Exception) -> str:
    text = _first_line(error.__cause__ or error).split(", band", 1)[-1]
    return text.split(" (this error", 1)[0].strip()


def _first_line(error: BaseException) -> str:
    text = getattr(error, "errmsg", "") or str(error)
    return str(text).split("\n")[0]
