"""A table of features alone as a data set: its images are never opened, so their files need not be there.

Columns image_id and view; split ("train" for all rows without it), latitude and longitude (degrees WGS84),
and for evaluation alone place_id, where the table has them.
"""

import pyarrow as pa
import pyarrow.compute as pc

from cvgl_ray.catalog.folders import check_views
from cvgl_ray.catalog.table import LABEL_SCHEMA, SCHEMA, Catalog, Labels, repeated
from cvgl_ray.errors import InputError
from cvgl_ray.storage.parquet import strings, tables_below


def scan_table(path: str, query_view: str, reference_view: str) -> Catalog:
    """The images of two views in a Parquet file or a folder of them; their uri is "".

    Raises InputError for a table that cannot be read, a view without rows, and what a catalog refuses.
    """
    check_views(query_view, reference_view)
    found = []
    for file, rows in tables_below(path, ["image_id", "view"], ("split", "latitude", "longitude")):
        columns = {name: strings(rows, name, file) for name in ("image_id", "view")}
        columns["uri"] = pa.array([""] * len(rows), pa.string())
        split = strings(rows, "split", file) if "split" in rows.column_names else None
        columns["split"] = split if split is not None else pa.array(["train"] * len(rows), pa.string())
        for name in ("latitude", "longitude"):
            columns[name] = _degrees(rows, name, file)
        found.append(pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA))
    table = pa.concat_tables([SCHEMA.empty_table(), *found])
    views = pa.array([query_view, reference_view])
    for view in views.to_pylist():
        if not pc.any(pc.equal(table["view"], view)).as_py():
            raise InputError(
                f"feature table {path} has no row of view {view!r}; its column `view` must name it, or set "
                "dataset.query_view and dataset.reference_view to the names that it has"
            )
    kept = table.filter(pc.is_in(table["view"], value_set=views))
    if kept["image_id"].null_count:
        raise InputError(f"feature table {path} has a row without image_id; every row needs one")
    twice = repeated(kept["image_id"])
    if twice is not None:
        raise InputError(f"feature table {path} has image_id {twice!r} more than once; ids must be unique")
    return Catalog(kept)


def table_labels(path: str, catalog: Catalog) -> Labels | None:
    """The place of each of a catalog's images in the table's column place_id; None without that column.

    As `layouts.load_labels` this is for evaluation alone.
    """
    found = []
    for file, rows in tables_below(path, ["image_id"], ("place_id",)):
        if "place_id" not in rows.column_names:
            return None
        columns = [strings(rows, name, file) for name in LABEL_SCHEMA.names]
        found.append(pa.table(columns, schema=LABEL_SCHEMA))
    table = pa.concat_tables([LABEL_SCHEMA.empty_table(), *found])
    return Labels(table.filter(pc.is_in(table["image_id"], value_set=catalog.rows["image_id"])))


def _degrees(rows: pa.Table, name: str, path: str) -> pa.ChunkedArray | pa.Array:
    if name not in rows.column_names:
        return pa.nulls(len(rows), pa.float64())
    try:
        return rows[name].cast(pa.float64())
    except pa.ArrowException as error:
        raise InputError(
            f"feature file {path} has a column {name} of {rows[name].type}; it must hold degrees"
        ) from error
