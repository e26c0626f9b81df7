"""Parquet files that somebody else wrote: found, read by columns, and their faults in one sentence."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import file_type, resolve
from cvgl_ray.storage.tree import files_below

BATCH_ROWS = 16_384
BUFFER_BYTES = 2**20


def tables_below(
    address: str | Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[str, pa.Table]]:
    """Each Parquet file's path and its columns, some rows at a time: one file's, or of all below a folder.

    address: a path or URI; optional: columns that are read where a file has them. A file's rows come in its
    order, in tables of BATCH_ROWS at most, in one empty table where it has none. Hidden files are passed
    over. Raises InputError for an address without anything, an unreadable file and a missing column.
    """
    kind = file_type(str(address))
    if kind == fs.FileType.NotFound:
        raise InputError(f"feature table {address} does not exist; give a Parquet file or a folder of them")
    filesystem, top = resolve(str(address))
    paths = [top]
    if kind == fs.FileType.Directory:
        found = [file for file in files_below(filesystem, top) if file.name.endswith(".parquet")]
        paths = [file.path for file in found if not any(p.startswith(".") for p in file.name.split("/"))]
    for path in paths:
        for table in _read(filesystem, path, columns, optional):
            yield path, table


def strings(table: pa.Table, name: str, path: str) -> pa.ChunkedArray:
    """A column as strings. Raises InputError for one that holds something else."""
    try:
        return table[name].cast(pa.string())
    except pa.ArrowException as error:
        raise InputError(
            f"feature file {path} has a column {name} of {table[name].type}; it must hold strings"
        ) from error


def _read(
    filesystem: fs.FileSystem, path: str, columns: Sequence[str], optional: Sequence[str]
) -> Iterator[pa.Table]:
    try:
        # Opened as a single file: read as a data set, a folder named "view=drone" would become a column.
        with filesystem.open_input_file(path) as source:
            # Else all that the columns hold is read ahead, and a table may be larger than memory.
            file = pq.ParquetFile(
                source, page_checksum_verification=True, pre_buffer=False, buffer_size=BUFFER_BYTES
            )
            present = file.schema_arrow.names
            lacking = [name for name in columns if name not in present]
            if lacking:
                raise KeyError(f"it has no column {', '.join(lacking)}")
            wanted = [*columns, *(name for name in optional if name in present)]
            if not file.metadata.num_rows:
                yield file.read(columns=wanted)
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=wanted):
                    yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowException, KeyError, UnicodeDecodeError) as error:
        reason = str(error.args[0] if error.args else error).splitlines()[0]
        raise InputError(
            f"feature file {path} cannot be read with columns {list(columns)} ({reason}); "
            "remove it, or write it again with them"
        ) from error
