"""Digests of files that were read before, known by size and times: a file is not read again to be known.

The index is written where the features lie. Whoever doubts it removes it, or hashes every file again.
"""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cvgl_ray.storage.files import stream_digest, write_atomically
from cvgl_ray.storage.filesystem import resolve
from cvgl_ray.storage.tree import File, stat_all
from cvgl_ray.storage.windows import image_digest, split_window

log = logging.getLogger(__name__)

INDEX = "files.index"  # Parquet, by another name: *.parquet below a feature folder holds features
SETTLED_NS = 2 * 10**9  # a file that has just changed may change again within one tick of its time
READERS = 4

State = tuple[int, int, int]  # size, times of the last change of content and of status
_SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("modified_ns", pa.int64()),
        ("changed_ns", pa.int64()),
        ("digest", pa.string()),
    ]
)


class KnownFiles:
    """The index of one folder: which digest a file had when it was last read."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / INDEX
        self._digests = _read(self._path)
        self._states: dict[str, State] = {}
        self._asked_ns = 0

    def digests(self, uris: Sequence[str]) -> list[str | None]:
        """By image, its digest; None for one whose file is not known, or has changed since.

        uris: of files, and of windows of files.
        """
        self._asked_ns = time.time_ns()
        of = [split_window(uri)[0] for uri in uris]
        files = list(dict.fromkeys(of))
        stats = zip(files, stat_all(files), strict=True)
        self._states = {file: _state(found) for file, found in stats if found is not None}
        known = {file: self._digests.get((file, *state)) for file, state in self._states.items()}
        found = [known.get(file) for file in of]
        return [digest and image_digest(digest, uri) for digest, uri in zip(found, uris, strict=True)]

    def learn(self, uris: Sequence[str], digests: Sequence[str]) -> None:
        """Keep digests of whole files that were asked for and have been read since; "!..." is none."""
        for uri, digest in zip(uris, digests, strict=True):
            state = self._states.get(uri)
            if state and not digest.startswith("!") and max(state[1:]) < self._asked_ns - SETTLED_NS:
                self._digests[uri, *state] = digest
        kept = {}  # the latest state of each file
        for (uri, *rest), digest in self._digests.items():
            kept[uri] = (*rest, digest)
        columns = zip(*((uri, *rest) for uri, rest in kept.items()), strict=True)
        table = pa.table([pa.array(column) for column in columns] or [[]] * len(_SCHEMA), schema=_SCHEMA)
        write_atomically(
            self._path, lambda temporary: pq.write_table(table, temporary, write_page_checksum=True)
        )


def hash_files(uris: Sequence[str]) -> list[str]:
    """A digest of each file's bytes; of a file that cannot be read, "!" and the reason."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(_hash, uris))


def _hash(uri: str) -> str:
    try:
        filesystem, path = resolve(uri)
        with filesystem.open_input_file(path) as source:
            return stream_digest(source)
    except OSError as error:
        return f"!the file cannot be read ({error})"


def _state(file: File) -> State:
    return file.size, file.modified_ns, file.changed_ns


def _read(path: Path) -> dict[tuple[str, int, int, int], str]:
    """The index by uri and state; empty where there is none or it is damaged: then files are read again."""
    if not path.exists():
        return {}
    try:
        # The name says nothing about the kind, so the file is opened here.
        with path.open("rb") as source:
            table = pq.ParquetFile(source, page_checksum_verification=True).read().cast(_SCHEMA)
    except (OSError, pa.ArrowException, ValueError) as error:
        log.warning("%s cannot be read (%s); the images are read again", path, str(error).splitlines()[0])
        return {}
    *keys, digests = (column.to_pylist() for column in table.columns)
    return dict(zip(zip(*keys, strict=True), digests, strict=True))
