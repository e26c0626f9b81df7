"""Feature rows in memory, and tables of features that somebody else wrote."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from cvgl_ray.errors import InputError
from cvgl_ray.storage.parquet import strings, tables_below


@dataclass(frozen=True)
class FeatureTable:
    """Feature rows of one view: `features` [N, D] float16 in the order of `image_ids` (N strings)."""

    image_ids: list[str]
    features: np.ndarray

    def __post_init__(self) -> None:
        assert self.features.ndim == 2
        assert len(self.image_ids) == len(self.features)

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def dimension(self) -> int:
        return int(self.features.shape[1])


def read_table(path: str | Path, view: str) -> FeatureTable:
    """Read one view of somebody else's feature table: a Parquet file or a folder of them (path or URI).

    Columns image_id (string), view (string), feature (list of D floats); rows in file order.
    Raises InputError for a missing column or one of another type, rows of unequal length, a value that is not
    finite in float16, a missing or repeated id, or a view without rows.
    """
    ids: list[str] = []
    blocks: list[np.ndarray] = []
    for file, whole in tables_below(path, ["image_id", "view", "feature"]):
        table = whole.filter(pa.compute.equal(strings(whole, "view", file), view))
        if len(table):
            names = strings(table, "image_id", file).to_pylist()
            ids += names
            blocks.append(_matrix(table["feature"], names, file))
    if not blocks:
        raise InputError(f"feature table {path} has no row of view {view!r}; its column `view` must name it")
    if len({block.shape[1] for block in blocks}) > 1:
        raise InputError(f"feature table {path} mixes dimensions {sorted({b.shape[1] for b in blocks})}")
    if None in ids:
        raise InputError(f"feature table {path} has a row without image_id; every row needs one")
    if len(set(ids)) < len(ids):
        [(twice, _)] = Counter(ids).most_common(1)
        raise InputError(f"feature table {path} has image_id {twice!r} more than once; ids must be unique")
    return FeatureTable(ids, np.concatenate(blocks))


def select(table: FeatureTable, image_ids: Iterable[str]) -> FeatureTable:
    """The rows of `image_ids`, in their order. Raises InputError where the table lacks some."""
    rows = {name: row for row, name in enumerate(table.image_ids)}
    wanted = list(image_ids)
    lacking = [name for name in wanted if name not in rows]
    if lacking:
        raise InputError(
            f"the feature table lacks {len(lacking)} of {len(wanted)} images (first: {lacking[0]!r}); "
            "its image_id must be the path below dataset.root"
        )
    return FeatureTable(wanted, table.features[[rows[name] for name in wanted]])


def check_same_dimension(query: FeatureTable, reference: FeatureTable) -> None:
    """Raise InputError where the two views' features cannot be compared."""
    if query.dimension != reference.dimension:
        raise InputError(
            f"query features have {query.dimension} dimensions and reference features {reference.dimension}; "
            "both views must come from the same backbone, layers and pooling"
        )


def _matrix(column: pa.ChunkedArray, image_ids: list[str], path: str) -> np.ndarray:
    """A column of float lists, one per image, as [N, D] float16."""
    if not _is_list_of_numbers(column.type):
        raise InputError(
            f"feature file {path} has a column feature of {column.type}; it must hold float lists"
        )
    lists = column.combine_chunks()
    lengths = set(pa.compute.list_value_length(lists).to_pylist())
    if len(lengths) != 1 or lengths & {None, 0}:
        raise InputError(
            f"feature file {path} has rows of lengths {', '.join(sorted(map(str, lengths)))}; "
            "all must have one length above 0"
        )
    matrix = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), lengths.pop())
    with np.errstate(over="ignore"):
        matrix = matrix.astype(np.float16)
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(bad):
        raise InputError(
            f"feature file {path} has {len(bad)} of {len(matrix)} rows with a value that is not finite in "
            f"float16 (NaN, infinite, beyond 65504; first: image_id {image_ids[bad[0]]!r}); mend or remove it"
        )
    return matrix


def _is_list_of_numbers(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    numbers = (pa.types.is_floating, pa.types.is_integer)
    return any(test(kind) for test in lists) and any(test(kind.value_type) for test in numbers)
