"""Names that hold the coordinates: the form of visual place recognition (Berton et al., CVPR 2022).

    root[/images]/{train,val,test}/{database,queries}/**/
        @<UTM east>@<UTM north>@<zone>@<zone letter>@<latitude>@<longitude>@<...>@.jpg

Layout "utm": queries as the query view, the database as the reference view. With a folder train, one trains
on it and is evaluated on the folder test (or val, where there is no test). Without one, as with data sets for
testing alone, one adapts to the area and localises in it. A database image within 25 m of a query, in the UTM
plane, is right.

Layout "utm-spots": the same, and database images of one position count once, like the views that are cut out
of one panorama. NetVLAD (Arandjelovic et al., CVPR 2016) tests so on Tokyo 24/7, by suppressing what is near;
that this comes to equal positions was not verified.

From https://github.com/gmberton/VPR-datasets-downloader (README, `util.py`): folders and names; all fields
but the first two may be empty. The 25 m are the default of gmberton/deep-visual-geo-localization-benchmark,
where a query without any right image counts as a failure: here it is left out and counted apart. Zones are
taken as WGS84's; that the names of every data set of this form are so was not verified.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
from pyproj import Transformer
from scipy.spatial import cKDTree

from cvgl_ray.catalog.folders import check_views, list_view
from cvgl_ray.catalog.relevance import Relevance, pair_table, position_table, spot_table
from cvgl_ray.catalog.table import Catalog, Labels, concat
from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import exists, join

WITHIN_M = 25.0
QUERIES, DATABASE = "queries", "database"


def scan(root: str, query_view: str, reference_view: str) -> Catalog:
    """The images of both views; the references have coordinates where their names tell them.

    Raises InputError where no part holds both folders, an empty folder, and a name of another form.
    """
    check_views(query_view, reference_view)
    parts = [part for part in ("train", "val", "test") if exists(join(root, _images(root) + part))]
    tested = next((part for part in ("test", "val") if part in parts), None)
    trained = "train" if "train" in parts else None
    if not parts:
        raise InputError(f"{root!r} has no folder train, val or test, nor images/ with one: give their root")
    found = []
    for part in filter(None, (trained, tested)):
        splits = ("query", "gallery") if trained and part == tested else ("train", "train")
        for split, view, folder in zip(
            splits, (query_view, reference_view), (QUERIES, DATABASE), strict=True
        ):
            inside = f"{_images(root)}{part}/{folder}"
            found.append(list_view(join(root, inside), view, split, prefix=inside))
    return _with_coordinates(concat(found), reference_view)


def labels(catalog: Catalog) -> Labels:
    """The database images within WITHIN_M of each query of the same part, and where queries were taken."""
    known = [name for name in catalog.image_ids if _degrees(name) is not None and _folder(name) == QUERIES]
    taken = position_table((name, *(_degrees(name) or (0.0, 0.0))) for name in known)
    return Labels.from_places({}, Relevance(pair_table(_near_pairs(catalog.image_ids)), taken))


def labels_of_spots(catalog: Catalog) -> Labels:
    """As `labels`, and the spot of each database image: its position within its part."""
    found = labels(catalog)
    database = [name for name in catalog.image_ids if _folder(name) == DATABASE]
    spots = spot_table((name, f"{name.split(DATABASE)[0]}{_east_north(name)}") for name in database)
    assert found.relevance is not None
    return replace(found, relevance=replace(found.relevance, spots=spots))


def _near_pairs(names: list[str]) -> Iterator[tuple[str, str, bool]]:
    parts = sorted({name.rsplit(f"/{_folder(name)}/", 1)[0] for name in names})
    for part in parts:
        queries, database = (
            [name for name in names if name.startswith(f"{part}/{folder}/")] for folder in (QUERIES, DATABASE)
        )
        if not queries or not database:
            continue
        tree = cKDTree(np.array([_east_north(name) for name in database]))
        near = tree.query_ball_point(np.array([_east_north(name) for name in queries]), WITHIN_M)
        for query, rows in zip(queries, near, strict=True):
            yield from ((query, database[row], False) for row in sorted(rows))


def _with_coordinates(catalog: Catalog, reference_view: str) -> Catalog:
    for name in catalog.image_ids:
        _east_north(name)
    known = {name: _degrees(name) for name in catalog.select(view=reference_view).image_ids}
    return catalog.located({name: where for name, where in known.items() if where is not None})


def _images(root: str) -> str:
    return "images/" if exists(join(root, "images")) else ""


def _folder(name: str) -> str:
    """Which of the two folders an image lies in."""
    return next(part for part in name.split("/") if part in (QUERIES, DATABASE))


def _fields(name: str) -> list[str]:
    """The fields between the '@' of a file's name, after the first '@'."""
    return name.rsplit("/", 1)[-1].split("@")[1:]


def _east_north(name: str) -> tuple[float, float]:
    """Metres east and north in the image's UTM zone."""
    try:
        east, north = (float(field) for field in _fields(name)[:2])
    except ValueError as error:
        raise InputError(
            f"the name of {name!r} has no coordinates: give it the form @<UTM east>@<UTM north>@...@.jpg"
        ) from error
    return east, north


def _degrees(name: str) -> tuple[float, float] | None:
    """Latitude and longitude, from a name's own or from its UTM zone; None where it has neither."""
    fields = [*_fields(name), *[""] * 6][:6]
    if fields[4] and fields[5]:
        return float(fields[4]), float(fields[5])
    if not fields[2].isdigit() or not fields[3].isalpha():
        return None
    zone = f"EPSG:{326 if fields[3].upper() >= 'N' else 327}{int(fields[2]):02d}"
    longitude, latitude = _to_degrees(zone).transform(*_east_north(name))
    return latitude, longitude


@cache
def _to_degrees(zone: str) -> Transformer:
    return Transformer.from_crs(zone, "EPSG:4326", always_xy=True)
