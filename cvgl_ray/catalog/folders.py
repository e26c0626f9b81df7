"""Plain folders of images: one alone (`scan_images`), or two to adapt to an area and localise in it (`scan`).

    root/<query_view>/**.jpg
    root/<reference_view>/**.jpg
    root/coordinates.csv    optional, in every layout: image_id,latitude,longitude (degrees WGS84)
    root/labels.csv         optional, for evaluation alone: image_id,place_id (an empty one: no place)

The image ids in both files are paths relative to `root`; rows of other images are ignored.
"""

import logging

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from cvgl_ray.catalog.images import describe_left_out, formats, list_images
from cvgl_ray.catalog.table import LABEL_SCHEMA, SCHEMA, Catalog, Labels, concat, repeated
from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import exists, join, resolve

log = logging.getLogger(__name__)


def scan(root: str, query_view: str = "drone", reference_view: str = "satellite") -> Catalog:
    """The images of both views' folders, all of split "train": unlabelled images to adapt to and localise in.

    Raises InputError if a view's folder is missing or empty, or coordinates.csv is at fault.
    """
    check_views(query_view, reference_view)
    views = [list_view(join(root, view), view, "train", prefix=view) for view in (query_view, reference_view)]
    return with_coordinates(concat(views), root)


def labels(root: str, catalog: Catalog) -> Labels | None:
    """The labels in root/labels.csv of the catalog's images, None without such a file.

    Images that the file lacks are found when their place is asked for. Raises InputError for a faulty file.
    """
    rows = _read_csv(join(root, "labels.csv"), LABEL_SCHEMA)
    if rows is None:
        return None
    return Labels(rows.filter(pc.is_in(rows["image_id"], value_set=catalog.rows["image_id"])))


def scan_images(root: str, view: str, split: str, prefix: str = "") -> Catalog:
    """The images below one folder, as one view and split, with coordinates from root/coordinates.csv.

    An image id is the path relative to `root`, after `prefix` and a '/' if one is given: catalogs of
    different prefixes can be joined. Raises InputError if the folder is missing or empty, or coordinates.csv
    at fault.
    """
    return with_coordinates(list_view(root, view, split, prefix), root, prefix)


def list_view(folder: str, view: str, split: str, prefix: str) -> Catalog:
    """As `scan_images`, without coordinates: one folder of a larger layout."""
    images, left_out = list_images(folder)
    others = describe_left_out(left_out)
    if not images:
        raise InputError(
            f"empty view {view!r}: {folder!r} holds no image ({', '.join(formats())}; found: "
            f"{others or 'nothing'}), put images there"
        )
    if left_out:
        log.warning("view %r: %d images in %s; left out: %s", view, len(images), folder, others)
    return Catalog.from_rows(
        {"image_id": _prefixed(prefix, relative), "uri": uri, "view": view, "split": split}
        for relative, uri in images
    )


def with_coordinates(catalog: Catalog, root: str, prefix: str = "") -> Catalog:
    """The catalog with the coordinates in root/coordinates.csv, where there is one; others stay null.

    `prefix` is what the catalog's ids have before the path relative to `root`. Raises InputError for a faulty
    file, one that names none of the images, and a coordinate out of range.
    """
    path = join(root, "coordinates.csv")
    table = _read_csv(path, pa.schema([SCHEMA.field(name) for name in ("image_id", "latitude", "longitude")]))
    if table is None:
        return catalog
    listed = pa.array(
        [_prefixed(prefix, image_id) for image_id in table["image_id"].to_pylist()], pa.string()
    )
    position = pc.index_in(catalog.rows["image_id"], value_set=listed)
    if position.null_count == len(catalog):
        raise InputError(
            f"{path!r} names none of the images: its image_id is the path relative to its folder,"
            f" such as {catalog.image_ids[0].removeprefix(_prefixed(prefix, ''))!r}"
        )
    rows = catalog.rows
    for name in ("latitude", "longitude"):
        rows = rows.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), table[name].take(position))
    return Catalog(rows)


def check_views(query_view: str, reference_view: str) -> None:
    """Raise InputError unless both are names of folders, and different ones."""
    for view in (query_view, reference_view):
        if not view or "/" in view or view.startswith("."):
            raise InputError(f"the view {view!r} is no name of a folder: give one such as 'drone'")
    if query_view == reference_view:
        raise InputError(f"the query view and the reference view are both {query_view!r}: give two views")


def _prefixed(prefix: str, relative: str) -> str:
    return f"{prefix}/{relative}" if prefix else relative


def _read_csv(uri: str, schema: pa.Schema) -> pa.Table | None:
    """The columns of `schema` in a CSV file with a header, others ignored; None without a file."""
    if not exists(uri):
        return None
    options = csv.ConvertOptions(
        column_types={field.name: field.type for field in schema}, include_columns=schema.names
    )
    filesystem, path = resolve(uri)
    try:
        with filesystem.open_input_file(path) as source:
            table = csv.read_csv(source, convert_options=options)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"{uri!r} cannot be read ({reason}): give a UTF-8 CSV file"
            f" with the header {','.join(schema.names)}"
        ) from error
    twice = repeated(table["image_id"])
    if twice is not None:
        raise InputError(f"{uri!r} has two rows for the image {twice!r}: keep one of them")
    return table
