"""Part files of a store: some images' rows, as one Parquet file whose name says what it holds.

A part is `part-<digest of its bytes>.parquet`. Whoever reads all of it checks it against its name. Whoever
wants a few rows reads their row groups alone, whose pages carry checksums of their own.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cvgl_ray.errors import InputError
from cvgl_ray.storage.files import file_digest, write_atomically

GROUP_BYTES = 2**20  # of a row group: what is read at least for one row
WHOLE_FRACTION = 0.5  # of a part's row groups: if more are wanted, the whole part is read and checked


def write_part(
    folder: Path,
    view: str,
    digests: Sequence[str],
    image_ids: Sequence[str],
    arrays: Mapping[str, np.ndarray],
) -> Path:
    """Write n rows (digest, image_id, view, and one column per array) as a part that appears whole.

    arrays: by name [n, ...], float16 or bool; a row is stored flat, its shape beside the column.
    """
    count = len(digests)
    columns: dict[str, pa.Array] = {
        "digest": pa.array(digests, pa.string()),
        "image_id": pa.array(image_ids, pa.string()),
        "view": pa.array([view] * count, pa.string()),
    }
    fields = [pa.field(name, pa.string()) for name in columns]
    for name, array in arrays.items():
        assert len(array) == count
        assert array.dtype in (np.float16, np.bool_)
        size = math.prod(array.shape[1:])
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), size)
        shape = {"shape": json.dumps(array.shape[1:])}
        fields.append(pa.field(name, columns[name].type, metadata=shape))
    row_bytes = sum(array.nbytes for array in arrays.values()) // max(1, count)
    stream = pa.BufferOutputStream()
    pq.write_table(
        pa.table(list(columns.values()), schema=pa.schema(fields)),
        stream,
        row_group_size=max(1, GROUP_BYTES // max(1, row_bytes)),
        use_dictionary=["view"],
        compression={"digest": "zstd", "image_id": "zstd", "view": "zstd"} | dict.fromkeys(arrays, "none"),
        write_page_checksum=True,
        write_statistics=False,
    )
    content = stream.getvalue()
    path = folder / f"part-{file_digest(content)}.parquet"
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
    return path


def read_digests(path: Path) -> list[str]:
    """The digests of a part's rows, in their order. Raises InputError for a part that is damaged."""
    digests: list[str] = _columns(path, ["digest"], None)["digest"].to_pylist()
    return digests


def read_rows(path: Path, name: str, rows: Sequence[int]) -> np.ndarray:
    """Some rows of one array, [n, ...] in the order asked. Raises InputError for a part that is damaged."""
    with _opened(path) as part:
        ends = np.cumsum([part.metadata.row_group(group).num_rows for group in range(part.num_row_groups)])
    groups = np.searchsorted(ends, rows, side="right")
    wanted = np.unique(groups)
    if len(wanted) > WHOLE_FRACTION * len(ends):
        array = _array(_columns(path, [name], None), name)
        return array if list(rows) == list(range(len(array))) else array[list(rows)]
    starts = np.concatenate([[0], ends[:-1]])
    lengths = ends[wanted] - starts[wanted]
    offset = dict(zip(wanted.tolist(), (np.cumsum(lengths) - lengths - starts[wanted]).tolist(), strict=True))
    array = _array(_columns(path, [name], wanted.tolist()), name)
    return array[[row + offset[group] for row, group in zip(rows, groups.tolist(), strict=True)]]


def _array(table: pa.Table, name: str) -> np.ndarray:
    shape = json.loads((table.schema.field(name).metadata or {}).get(b"shape", b"[-1]"))
    flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(table), *shape)


def _columns(path: Path, names: list[str], groups: list[int] | None) -> pa.Table:
    """Columns of some row groups, whose pages are checked; or of all, and then all bytes are checked.

    A part of one row group is checked whole: such parts were written before pages had checksums.
    """
    try:
        with _opened(path) as part:
            if groups is None and (part.num_row_groups <= 1 or names != ["digest"]):
                return pq.read_table(pa.BufferReader(_checked(path)), columns=names)
            return part.read_row_groups(groups or range(part.num_row_groups), columns=names)
    except (OSError, pa.ArrowException, KeyError, UnicodeDecodeError) as error:
        raise _damaged(path) from error


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except PermissionError as error:
        raise _unreadable(path, error) from error
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise _damaged(path) from error


def _checked(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    if path.stem != f"part-{file_digest(content)}":
        raise _damaged(path)
    return content


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"feature file {path} cannot be read ({error.strerror}); make it readable")


def _damaged(path: Path) -> InputError:
    return InputError(
        f"feature file {path} is damaged: its content is not what its name was made of; remove it, and "
        "the next run extracts its images again"
    )
