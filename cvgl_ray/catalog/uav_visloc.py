"""UAV-VisLoc's layout (Xu et al., 2024): eleven flights of fixed-wing drones, each over a satellite map.

    root/satellite_coordinates_range.csv    mapname, LT_lat_map, LT_lon_map, RB_lat_map, RB_lon_map, region
    root/<flight>/<flight>.csv              num, filename, date, lat, lon, height, Omega, Kappa, Phi1, Phi2
    root/<flight>/drone/*.JPG
    root/<flight>/satellite<flight>.tif     flight: 01 to 11

The data lies at https://github.com/IntelliSensing/UAV-VisLoc. There are no pairs: layout "uav-visloc" takes
all flights, "uav-visloc-03" one of them, and one adapts to the area and localises in it. The references are
windows of the maps, WINDOW_M wide, about what a photo shows at the published 0.1 to 0.2 m per pixel; they
overlap by half and cover the map. Of a photo, the window whose middle is nearest to the ground at the photo's
centre is right; others that show that ground are semi-positives, which the hit rate passes over. A photo
whose centre lies on no map has no right window.

From that repository: folders (README). The columns and the list's name, which some copies have with a space
("satellite_ coordinates_range.csv"), are from several loaders of others, and so is that the map of flight 09
comes in four files that are no rows of the list: these, and any other file of a flight, are laid where their
own georeference says. Not verified on the data itself, which was not at hand.
"""

import csv
import io
import logging
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import rasterio
from pyproj import Geod
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds

from cvgl_ray.catalog.folders import check_views
from cvgl_ray.catalog.images import list_images
from cvgl_ray.catalog.listed import listed_images, read_content
from cvgl_ray.catalog.relevance import Relevance, pair_table, position_table
from cvgl_ray.catalog.table import Catalog, Labels, concat
from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import exists, is_uri, join
from cvgl_ray.storage.windows import PixelBox, split_window, window_uri

log = logging.getLogger(__name__)

FLIGHTS = tuple(f"{number:02d}" for number in range(1, 12))
LISTS = ("satellite_coordinates_range.csv", "satellite_ coordinates_range.csv")
CORNERS = ("LT_lat_map", "LT_lon_map", "RB_lat_map", "RB_lon_map")
WINDOW_M = 400.0
OVERLAP = 0.5


class Map(NamedTuple):
    """A map's file, its size in px, and its edges in degrees: north, west, south, east."""

    uri: str
    width: int
    height: int
    edges: tuple[float, float, float, float]

    def at(self, column: float, row: float) -> tuple[float, float]:
        """Latitude and longitude of a point in px: both are linear, as the list has it."""
        north, west, south, east = self.edges
        return north + (south - north) * row / self.height, west + (east - west) * column / self.width

    def pixels(self, latitude: float, longitude: float) -> tuple[float, float]:
        """The column and row of a point."""
        north, west, south, east = self.edges
        return (
            (longitude - west) / (east - west) * self.width,
            (latitude - north) / (south - north) * self.height,
        )


def scan(root: str, query_view: str, reference_view: str, flights: Sequence[str] = FLIGHTS) -> Catalog:
    """The photos as the query view, windows of the maps as the reference view, with their coordinates.

    Flights whose folder is not there are passed over. Raises InputError where none is, for a list of another
    form, and where a flight has no photo or no map.
    """
    check_views(query_view, reference_view)
    if is_uri(root):
        raise InputError(
            f"{root!r} is a URI: windows are cut from UAV-VisLoc's maps on a local disk, copy it"
        )
    present = [flight for flight in flights if exists(join(root, flight))]
    if not present:
        raise InputError(
            f"{root!r} has none of the folders {', '.join(flights)}: give UAV-VisLoc's root, which holds a "
            "folder per flight"
        )
    parts = []
    for flight in present:
        splits = {f"{flight}/drone/{name}": "train" for name, _, _ in _photos(root, flight)}
        parts += [listed_images(root, query_view, splits), _windows(root, flight, reference_view)]
    return concat(parts)


def labels(root: str, catalog: Catalog) -> Labels:
    """Which windows show the ground at each photo's centre, and where that is."""
    windows: dict[str, list[tuple[str, PixelBox]]] = {}
    known = set(catalog.image_ids)
    for image_id, uri in zip(catalog.image_ids, catalog.uris, strict=True):
        file, box = split_window(uri)
        if box is not None:
            windows.setdefault(file, []).append((image_id, box))
    flights = sorted({image_id.split("/")[0] for image_id in known})
    maps = {flight: _maps(root, flight) for flight in flights}
    taken = [
        (f"{flight}/drone/{name}", latitude, longitude)
        for flight in flights
        for name, latitude, longitude in _photos(root, flight)
        if f"{flight}/drone/{name}" in known
    ]
    pairs = (
        (image_id, *found)
        for image_id, latitude, longitude in taken
        for found in _shown(maps[image_id.split("/")[0]], windows, latitude, longitude)
    )
    return Labels.from_places({}, Relevance(pair_table(pairs), position_table(taken)))


def _shown(
    maps: Sequence[Map], windows: dict[str, list[tuple[str, PixelBox]]], latitude: float, longitude: float
) -> Iterator[tuple[str, bool]]:
    """The windows that show a point, and whether each is a semi-positive: all but the nearest middle's."""
    found = []
    for laid in maps:
        column, row = laid.pixels(latitude, longitude)
        for image_id, box in windows.get(laid.uri, ()):
            across = (column - box.column) / box.width - 0.5, (row - box.row) / box.height - 0.5
            if max(map(abs, across)) <= 0.5:
                found.append((math.hypot(*across), image_id))
    for place, (_, image_id) in enumerate(sorted(found)):
        yield image_id, place > 0


def _windows(root: str, flight: str, view: str) -> Catalog:
    """Squares of WINDOW_M that overlap by OVERLAP and cover the flight's maps."""
    rows = []
    for laid in _maps(root, flight):
        north, west, south, east = laid.edges
        middle = (north + south) / 2
        across = Geod(ellps="WGS84").inv([west, west], [middle, north], [east, west], [middle, south])[2]
        width, height = (
            min(size, max(1, round(WINDOW_M * size / metres)))
            for size, metres in zip((laid.width, laid.height), across, strict=True)
        )
        for top in _starts(laid.height, height):
            for left in _starts(laid.width, width):
                latitude, longitude = laid.at(left + width / 2, top + height / 2)
                name = laid.uri.rsplit("/", 1)[1].rsplit(".", 1)[0]
                rows.append({
                    "image_id": f"{flight}/{name}/{left}_{top}",
                    "uri": window_uri(laid.uri, PixelBox(left, top, width, height)),
                    "view": view, "split": "train", "latitude": latitude, "longitude": longitude,
                })  # fmt: skip
    if not rows:
        raise InputError(
            f"{root!r}, flight {flight} has no map that can be laid: give satellite{flight}.tif, and its "
            f"corners in {LISTS[0]}"
        )
    return Catalog.from_rows(rows)


def _starts(length: int, size: int) -> list[int]:
    """Where windows begin along a side, evenly: the first at its beginning, the last at its end."""
    steps = math.ceil((length - size) / (size * (1 - OVERLAP)))
    return [round(start) for start in np.linspace(0, length - size, steps + 1)]


def _maps(root: str, flight: str) -> list[Map]:
    """The flight's maps, laid as the list says, else as they say themselves."""
    listed, found = _corners(root), []
    for uri in _files(root, flight):
        name = uri.rsplit("/", 1)[1]
        try:
            with rasterio.open(uri) as source:
                size, edges = (source.width, source.height), listed.get(name)
                if edges is None and source.crs is not None:
                    west, south, east, north = transform_bounds(source.crs, "EPSG:4326", *source.bounds)
                    edges = north, west, south, east
        except RasterioError as error:
            raise InputError(f"the map {uri!r} cannot be opened ({error}): copy it again") from error
        if edges is None:
            log.warning("map %s is left out: it is not in %s and has no georeference", uri, LISTS[0])
        else:
            found.append(Map(uri, *size, edges))
    return found


def _files(root: str, flight: str) -> list[str]:
    found = list_images(join(root, flight)).images
    return [uri for name, uri in found if "/" not in name and name.lower().endswith((".tif", ".tiff"))]


def _corners(root: str) -> dict[str, tuple[float, float, float, float]]:
    """By map, its edges: north, west, south, east."""
    name = next((name for name in LISTS if exists(join(root, name))), LISTS[0])
    rows = _rows(join(root, name), ("mapname", *CORNERS))
    return {row[0]: (row[1], row[2], row[3], row[4]) for row in rows}


def _photos(root: str, flight: str) -> Iterator[tuple[str, float, float]]:
    """Name, latitude and longitude of each photo: of the ground at its centre."""
    yield from _rows(join(root, f"{flight}/{flight}.csv"), ("filename", "lat", "lon"))


def _rows(uri: str, columns: Sequence[str]) -> Iterator[tuple]:
    """Some columns of a list: the first as text, the others as numbers."""
    text = read_content(uri, "UAV-VisLoc's layout has coordinates there").decode("utf-8-sig")
    for number, row in enumerate(csv.DictReader(io.StringIO(text), skipinitialspace=True), start=2):
        try:
            yield row[columns[0]].strip(), *(float(row[name]) for name in columns[1:])
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise InputError(
                f"{uri!r}, line {number} is not UAV-VisLoc's ({error!r}): it has the columns "
                f"{', '.join(columns)}, all but the first numbers"
            ) from error
