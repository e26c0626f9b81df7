"""The feature table on disk: Parquet parts and a manifest that says what produced them.

Layout: `ROOT/<view>/<fingerprint>/part-<checksum>.parquet` and `manifest.json`. A row is (digest, image_id,
view, feature). The fingerprint is a hash of the recipe, so another pre-transform or weight file never meets
old rows; the digest is a hash of the image file, so a picture is never extracted twice under two names; the
checksum is a hash of the part itself, so that a part which was damaged is not taken for features.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cvgl_ray.errors import InputError
from cvgl_ray.storage.files import file_digest, write_atomically, write_json

MANIFEST_VERSION = 1  # raise it when the meaning of a recipe's words changes


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


def fingerprint(recipe: dict[str, Any]) -> str:
    """Sixteen hex digits that name a recipe (JSON values only)."""
    text = json.dumps({"version": MANIFEST_VERSION, **recipe}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class FeatureStore:
    """The rows that one recipe produced for one view."""

    def __init__(self, root: Path, view: str, recipe: dict[str, Any]) -> None:
        self.view, self.recipe = view, recipe
        self.folder = root / view / fingerprint(recipe)

    def open(self) -> None:
        """Create the folder and its manifest."""
        write_json(self.folder / "manifest.json", {"view": self.view, **self.recipe})

    def digests(self) -> set[str]:
        """Digests of the images that already have a row."""
        parts = (_read_part(part, ["digest"]) for part in self._parts())
        return {digest for table in parts for digest in table["digest"].to_pylist()}

    def append(self, digests: Sequence[str], image_ids: Sequence[str], features: np.ndarray) -> None:
        """Add rows, [n, D] of any float type, as one part file that appears whole or not at all."""
        assert len(digests) == len(image_ids) == len(features)
        flat = pa.array(np.ascontiguousarray(features, dtype=np.float16).reshape(-1))
        columns = {
            "digest": pa.array(digests, pa.string()),
            "image_id": pa.array(image_ids, pa.string()),
            "view": pa.array([self.view] * len(digests), pa.string()),
            "feature": pa.FixedSizeListArray.from_arrays(flat, features.shape[1]),
        }
        stream = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), stream)
        content = stream.getvalue()
        write_atomically(
            self.folder / f"part-{file_digest(content)}.parquet",
            lambda temporary: temporary.write_bytes(content),
        )

    def load(self, image_ids: Sequence[str], digests: Sequence[str]) -> FeatureTable:
        """The rows of these images, found by digest; images without a row (rejected ones) are left out."""
        rows: dict[str, int] = {}
        blocks: list[np.ndarray] = []
        for part in self._parts():
            table = _read_part(part, ["digest", "feature"])
            first = sum(map(len, blocks))
            for row, digest in enumerate(table["digest"].to_pylist(), start=first):
                rows.setdefault(digest, row)  # two runs with one cache may both have extracted an image
            blocks.append(_matrix(table["feature"], part))
        if not blocks:
            raise InputError(f"{self.folder} holds no features; run `cvgl-ray extract` first")
        kept = [
            (name, rows[digest]) for name, digest in zip(image_ids, digests, strict=True) if digest in rows
        ]
        return FeatureTable([name for name, _ in kept], np.concatenate(blocks)[[row for _, row in kept]])

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.parquet"))


def read_table(path: str | Path, view: str) -> FeatureTable:
    """Read one view of somebody else's feature table: a Parquet file or a folder of them.

    Columns image_id (string), view (string), feature (list of D floats); rows in file order.
    Raises InputError for a missing column or one of another type, rows of unequal length, a value that is not
    finite in float16, a missing or repeated id, or a view without rows.
    """
    if not Path(path).exists():
        raise InputError(f"feature table {path} does not exist; give a Parquet file or a folder of them")
    files = sorted(Path(path).rglob("*.parquet")) if Path(path).is_dir() else [Path(path)]
    ids: list[str] = []
    blocks: list[np.ndarray] = []
    for file in files:
        table = _read(file, ["image_id", "view", "feature"])
        table = table.filter(pa.compute.equal(_strings(table, "view", file), view))
        if len(table):
            ids += _strings(table, "image_id", file).to_pylist()
            blocks.append(_matrix(table["feature"], file))
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


def _read_part(path: Path, columns: list[str]) -> pa.Table:
    """Columns of a part that the store wrote; nothing is parsed unless all bytes are what was written."""
    content = _content(path)
    if path.stem != f"part-{file_digest(content)}":
        raise InputError(
            f"feature file {path} is damaged: its content is not what its name was made of; remove it, and "
            "the next run extracts its images again"
        )
    return pq.read_table(pa.BufferReader(content), columns=columns)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"feature file {path} cannot be read ({error.strerror}); make it readable"
        ) from error


def _read(path: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns, partitioning=None, page_checksum_verification=True)
    except (OSError, pa.ArrowException, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"feature file {path} cannot be read with columns {columns} ({reason}); "
            "remove it, or write it again with them"
        ) from error


def _strings(table: pa.Table, name: str, path: Path) -> pa.ChunkedArray:
    try:
        return table[name].cast(pa.string())
    except pa.ArrowException as error:
        kind = table[name].type
        raise InputError(
            f"feature file {path} has a column {name} of {kind}; it must hold strings"
        ) from error


def _matrix(column: pa.ChunkedArray, path: Path) -> np.ndarray:
    """A column of float lists as [N, D] float16."""
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
    if not np.isfinite(matrix).all():
        raise InputError(f"feature file {path} holds values that are not finite in float16; extract it again")
    return matrix


def _is_list_of_numbers(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    numbers = (pa.types.is_floating, pa.types.is_integer)
    return any(test(kind) for test in lists) and any(test(kind.value_type) for test in numbers)
