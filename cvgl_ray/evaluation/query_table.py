"""Results query by query, `ranks.parquet` beside metrics.json: what a paired test of two runs needs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.metrics import QueryResults
from cvgl_ray.evaluation.paired import Difference, paired
from cvgl_ray.evaluation.protocols import Direction
from cvgl_ray.storage.files import write_atomically
from cvgl_ray.storage.filesystem import join, resolve
from cvgl_ray.storage.parquet import tables_below

RANKS = "ranks.parquet"
SCHEMA = pa.schema(
    [
        ("direction", pa.string()),  # as in metrics.json
        ("model", pa.string()),  # "frozen", "adapted", "aligned"
        ("image_id", pa.string()),  # of the query
        ("rank", pa.int64()),  # of the best relevant reference, from 1; null: the gallery has none
        ("ap", pa.float64()),  # 0 to 1, University-1652's; see `metrics.average_precision`
        ("ap_standard", pa.float64()),
        ("spot", pa.string()),  # the first relevant reference: queries of one spot are drawn together
        ("gallery", pa.int64()),  # references searched
    ]
)
DEPTHS = (1, 5, 10)  # of the recalls that are compared


def query_table(model: str, direction: Direction, results: QueryResults) -> pa.Table:
    """A direction's results by one model, with SCHEMA's columns."""
    ids, gallery = direction.queries.image_ids, direction.gallery.image_ids
    known = results.first_rank >= 0
    columns = [
        pa.repeat(direction.name, len(ids)),
        pa.repeat(model, len(ids)),
        ids,
        pa.array(results.first_rank + 1, mask=~known),
        results.ap,
        results.ap_standard,
        [gallery[row] if row >= 0 else None for row in results.spot.tolist()],
        pa.repeat(len(gallery), len(ids)),
    ]
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


def read_query_table(address: str | Path) -> pa.Table:
    """What an evaluation into a folder left, or into the folder of a metrics.json, or in a ranks.parquet.

    Raises InputError where there is none, and for a file of another kind.
    """
    path = str(address)
    if path.endswith(".json"):
        path = path.rsplit("/", 1)[0] if "/" in path else "."
    if not path.endswith(".parquet"):
        path = join(path, RANKS)
    filesystem, inner = resolve(path)
    try:
        found = filesystem.get_file_info(inner).is_file
        if not found:
            raise InputError(
                f"{path} does not exist: give the folders of two runs that were evaluated with labels, "
                "or evaluate them again (cvgl-ray evaluate)"
            )
        [(_, table)] = tables_below(path, SCHEMA.names)
        return table.cast(SCHEMA)
    except pa.ArrowException as error:
        raise InputError(f"{path} is not what an evaluation leaves ({error}): evaluate again") from error


def compared(first: pa.Table, second: pa.Table) -> dict[str, dict[str, dict[str, Difference]]]:
    """{direction: {model: {figure: Difference}}} of the models that both have, figures in percent.

    Raises InputError where they share none, and where they asked other queries, or searched other galleries,
    which are known by their size alone.
    """
    keys = [dict.fromkeys(_keys(table)) for table in (first, second)]
    both = [key for key in keys[0] if key in keys[1]]
    if not both:
        has = ["; ".join(" ".join(key) for key in side) for side in keys]
        raise InputError(f"the two runs have no direction and model in common: {has[0]} against {has[1]}")
    found: dict[str, dict[str, dict[str, Difference]]] = {}
    for direction, model in both:
        sides = [_of(table, direction, model) for table in (first, second)]
        _check_same(direction, sides[0], sides[1])
        found.setdefault(direction, {})[model] = _differences(sides[0], sides[1])
    return found


def _differences(first: pa.Table, second: pa.Table) -> dict[str, Difference]:
    asked = first["rank"].is_valid().to_numpy()
    gallery = first["gallery"][0].as_py()
    depths = [k for k in DEPTHS if k <= gallery]
    sides = []
    for table in (first, second):
        rank = table["rank"].fill_null(0).to_numpy()[asked]
        columns = [rank <= k for k in depths] + [
            table[name].to_numpy()[asked] for name in ("ap", "ap_standard")
        ]
        sides.append(np.stack(columns, axis=1).astype(np.float64))
    names = [*(f"R@{k}" for k in depths), "AP", "AP_standard"]
    spots = np.array(first["spot"].to_pylist(), dtype=object)[asked].astype(str)
    found = paired(sides[0], sides[1], spots)
    in_percent = [Difference._make([*(100 * value for value in one[:-1]), one.p]) for one in found]
    return dict(zip(names, in_percent, strict=True))


def _check_same(direction: str, first: pa.Table, second: pa.Table) -> None:
    ids = [set(table["image_id"].to_pylist()) for table in (first, second)]
    if ids[0] != ids[1]:
        only = sorted(ids[0] ^ ids[1])
        raise InputError(
            f"the two runs asked other queries in {direction}: {len(ids[0] - ids[1])} of the first's "
            f"{len(ids[0])} and {len(ids[1] - ids[0])} of the second's {len(ids[1])} are not the other's, "
            f"such as {only[0]!r}; evaluate both on the same data set"
        )
    galleries = [table["gallery"][0].as_py() for table in (first, second)]
    if galleries[0] != galleries[1] or first["rank"].is_valid() != second["rank"].is_valid():
        raise InputError(
            f"the two runs searched other galleries in {direction}, of {galleries[0]} and {galleries[1]} "
            "references; evaluate both on the same data set"
        )
    if not first["rank"].is_valid().to_numpy().any():
        raise InputError(f"no query of {direction} has a relevant reference, so nothing can be compared")


def _keys(table: pa.Table) -> list[tuple[str, str]]:
    return list(zip(table["direction"].to_pylist(), table["model"].to_pylist(), strict=True))


def _of(table: pa.Table, direction: str, model: str) -> pa.Table:
    here = np.array([key == (direction, model) for key in _keys(table)])
    return table.filter(here).sort_by("image_id")


def write_query_table(path: Path, parts: list[pa.Table]) -> None:
    """Write the results of several models and directions as one file, whole or not at all."""
    write_atomically(path, lambda temporary: pq.write_table(pa.concat_tables(parts), temporary))
