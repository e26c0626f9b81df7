"""Tables of feature rows: in memory, or in files that somebody else wrote; `store` has one of its own.

Ids are at hand and rows are read where they are needed, so that a process that needs none holds none.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import is_uri
from cvgl_ray.storage.parquet import strings, tables_below


class Table(Protocol):
    """Feature rows of one view, wherever they lie: `dimension` numbers per image."""

    @property
    def image_ids(self) -> Sequence[str]: ...

    @property
    def dimension(self) -> int: ...

    def __len__(self) -> int: ...

    def rows(self, image_ids: Iterable[str]) -> np.ndarray:
        """The rows of some images, [n, D] float16 in their order. Raises InputError where some lack."""

    def blocks(self) -> Iterator[tuple[Sequence[str], np.ndarray]]:
        """All of it, some ids and their rows at a time, in any order."""

    def only(self, image_ids: Sequence[str]) -> "Table":
        """The table of some of its images, in their order."""


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

    def rows(self, image_ids: Iterable[str]) -> np.ndarray:
        """See Table."""
        rows: np.ndarray = self.features[places_of(self.image_ids, list(image_ids))]
        return rows

    def blocks(self) -> Iterator[tuple[Sequence[str], np.ndarray]]:
        """See Table."""
        yield self.image_ids, self.features

    def only(self, image_ids: Sequence[str]) -> "FeatureTable":
        """See Table."""
        return select(self, image_ids)


@dataclass(frozen=True)
class ForeignTable:
    """One view of a feature table that somebody else wrote, as `read_table` found it: rows stay in `path`."""

    path: str
    view: str
    image_ids: list[str]
    dimension: int

    def __len__(self) -> int:
        return len(self.image_ids)

    def rows(self, image_ids: Iterable[str]) -> np.ndarray:
        """See Table; reads the whole file, some rows at a time."""
        wanted = self.only(list(image_ids))
        rows = np.empty((len(wanted), self.dimension), np.float16)
        places = {name: place for place, name in enumerate(wanted.image_ids)}
        for names, block in wanted.blocks():
            rows[[places[name] for name in names]] = block
        return rows

    def blocks(self) -> Iterator[tuple[Sequence[str], np.ndarray]]:
        """See Table; in the file's order."""
        left = set(self.image_ids)
        for names, block in _blocks(self.path, self.view):
            kept = [row for row, name in enumerate(names) if name in left]
            left -= set(names)
            yield [names[row] for row in kept], block[kept]
        if left:
            raise InputError(f"feature table {self.path} changed while it was read; run the command again")

    def only(self, image_ids: Sequence[str]) -> "ForeignTable":
        """See Table."""
        places_of(self.image_ids, image_ids)
        return replace(self, image_ids=list(image_ids))


def read_table(path: str | Path, view: str) -> ForeignTable:
    """One view of somebody else's feature table, all of it checked: a Parquet file or a folder of them.

    path: also a URI. Columns image_id (string), view (string), feature (list of D floats); rows in file
    order. Raises InputError for a missing column or one of another type, rows of unequal length, a value that
    is not finite in float16, a missing or repeated id, or a view without rows.
    """
    ids: list[str] = []
    dimensions: set[int] = set()
    for names, block in _blocks(path, view):
        ids += names
        dimensions.add(block.shape[1])
    if not dimensions:
        raise InputError(f"feature table {path} has no row of view {view!r}; its column `view` must name it")
    if len(dimensions) > 1:
        raise InputError(f"feature table {path} mixes dimensions {sorted(dimensions)}")
    if None in ids:
        raise InputError(f"feature table {path} has a row without image_id; every row needs one")
    if len(set(ids)) < len(ids):
        [(twice, _)] = Counter(ids).most_common(1)
        raise InputError(f"feature table {path} has image_id {twice!r} more than once; ids must be unique")
    # Absolute, for a process with another working directory.
    address = str(path) if is_uri(str(path)) else str(Path(path).absolute())
    return ForeignTable(address, view, ids, *dimensions)


def select(table: Table, image_ids: Iterable[str] | None = None) -> FeatureTable:
    """The rows of `image_ids` in memory, in their order; None: all. Raises InputError where some lack."""
    wanted = list(table.image_ids if image_ids is None else image_ids)
    return FeatureTable(wanted, table.rows(wanted))


def places_of(image_ids: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Where each wanted id stands among a table's `image_ids`. Raises InputError where some do not."""
    places = {name: place for place, name in enumerate(image_ids)}
    lacking = [name for name in wanted if name not in places]
    if lacking:
        raise InputError(
            f"the feature table lacks {len(lacking)} of {len(wanted)} images (first: {lacking[0]!r}); "
            "its image_id must be the path below dataset.root"
        )
    return [places[name] for name in wanted]


def check_same_dimension(query: Table, reference: Table) -> None:
    """Raise InputError where the two views' features cannot be compared."""
    if query.dimension != reference.dimension:
        raise InputError(
            f"query features have {query.dimension} dimensions and reference features {reference.dimension}; "
            "both views must come from the same backbone, layers and pooling"
        )


def _blocks(path: str | Path, view: str) -> Iterator[tuple[list[str], np.ndarray]]:
    """Ids and rows [n, D] float16 of one view, as they stand in the files, some at a time."""
    for file, whole in tables_below(path, ["image_id", "view", "feature"]):
        table = whole.filter(pc.equal(strings(whole, "view", file), view))
        if len(table):
            names = strings(table, "image_id", file).to_pylist()
            yield names, _matrix(table["feature"], names, file)


def _matrix(column: pa.ChunkedArray, image_ids: list[str], path: str) -> np.ndarray:
    """A column of float lists, one per image, as [N, D] float16."""
    if not _is_list_of_numbers(column.type):
        raise InputError(
            f"feature file {path} has a column feature of {column.type}; it must hold float lists"
        )
    lists = column.combine_chunks()
    lengths = set(pc.list_value_length(lists).to_pylist())
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
