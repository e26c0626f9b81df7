"""Located photos for other programs: world files, GeoTIFFs, and OpenDroneMap's ground control points."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from pyproj import CRS, Transformer
from rasterio import Affine

from cvgl_ray.errors import InputError
from cvgl_ray.reports.location import WGS84, Location
from cvgl_ray.storage.files import write_atomically, write_text

LEAST_VIEWS = 3  # photos that must show a control point; OpenDroneMap asks for as many
MARGIN = 0.05  # of a photo's sides, where no control point is marked

Size = tuple[int, int]  # px: width, height


@dataclass(frozen=True)
class Georeference:
    """A photo on the ground, taken to look straight down."""

    epsg: int  # of the UTM zone of its centre
    transform: Affine  # (column, row) from the photo's upper left corner, in px -> (easting, northing)


def georeference(location: Location, size: Size) -> Georeference | None:
    """Where a photo's pixels lie. None for one without a place, a heading or a width."""
    if location.place is None or location.heading_deg is None or not location.ground_width_m:
        return None
    latitude, longitude = location.place
    epsg = utm_epsg(latitude, longitude)
    to_grid = Transformer.from_crs(4326, epsg, always_xy=True)
    east, north = to_grid.transform(longitude, latitude)
    half = location.ground_width_m / 2
    ahead = WGS84.fwd(longitude, latitude, location.heading_deg, half)
    step = np.array(to_grid.transform(ahead[0], ahead[1])) - (east, north)  # toward the image's top
    up = step / (size[0] / 2)  # in metres of the grid per px, which is true to the grid's scale and north
    right, down = (float(up[1]), float(-up[0])), (float(-up[0]), float(-up[1]))
    corner = np.array((east, north)) - np.array(right) * size[0] / 2 - np.array(down) * size[1] / 2
    return Georeference(
        epsg, Affine(right[0], down[0], float(corner[0]), right[1], down[1], float(corner[1]))
    )


def utm_epsg(latitude: float, longitude: float) -> int:
    """EPSG code of WGS84's UTM zone at a point in degrees."""
    zone = int((longitude + 180) // 6) % 60 + 1
    return (32600 if latitude >= 0 else 32700) + zone


def write_world_files(folder: Path, locations: Sequence[Location], sizes: Mapping[str, Size]) -> int:
    """Write NAME.wld and NAME.prj for each located photo, to be laid beside it; returns their number.

    sizes: (width, height) in px, upright, by image_id.
    """
    count = 0
    for location in locations:
        placed = georeference(location, sizes[location.image_id])
        if placed is None:
            continue
        t = placed.transform
        middle = (t.c + (t.a + t.b) / 2, t.f + (t.d + t.e) / 2)  # a world file names the first pixel's middle
        base = folder / location.image_id
        lines = "".join(f"{value:.10f}\n" for value in (t.a, t.d, t.b, t.e, *middle))
        write_text(base.with_suffix(".wld"), lines)
        write_text(base.with_suffix(".prj"), CRS.from_epsg(placed.epsg).to_wkt("WKT1_ESRI") + "\n")
        count += 1
    return count


def write_geotiffs(folder: Path, locations: Sequence[Location], photo: Callable[[str], Image.Image]) -> int:
    """Write NAME.tif for each located photo: its pixels as they are, on a grid turned to its heading."""
    count = 0
    for location in locations:
        if location.place is None:
            continue
        pixels = np.asarray(photo(location.image_id).convert("RGB"))
        placed = georeference(location, (pixels.shape[1], pixels.shape[0]))
        if placed is None:
            continue
        target = (folder / location.image_id).with_suffix(".tif")
        write_atomically(target, partial(_write_geotiff, pixels, placed))
        count += 1
    return count


def _write_geotiff(pixels: np.ndarray, placed: Georeference, path: Path) -> None:
    profile = {
        "driver": "GTiff", "width": pixels.shape[1], "height": pixels.shape[0], "count": 3, "dtype": "uint8",
        "crs": f"EPSG:{placed.epsg}", "transform": placed.transform, "compress": "JPEG",
        "photometric": "YCBCR", "interleave": "pixel", "tiled": True,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(np.moveaxis(pixels, -1, 0))


def write_gcp_list(path: Path, locations: Sequence[Location], sizes: Mapping[str, Size]) -> int:
    """Write OpenDroneMap's `gcp_list.txt`; returns the number of control points.

    A control point is the ground under a photo's centre, marked in every located photo that shows it by its
    own place, heading and width. Those that fewer than three photos show are left out. The altitude is 0 for
    all, since a map tells none.

    Raises InputError for a photo whose name holds a space, which the format cannot hold.
    """
    placed: list[tuple[str, Georeference]] = []
    places: list[tuple[float, float]] = []
    for location in locations:
        found = georeference(location, sizes[location.image_id])
        if found is None or location.place is None:
            continue
        if any(character.isspace() for character in location.image_id):
            raise InputError(
                f"photo {location.image_id!r} has a space in its name, which gcp_list.txt cannot hold; rename"
                " the photo"
            )
        placed.append((location.image_id, found))
        places.append(location.place)
    latitude, longitude = np.array(places, float).reshape(-1, 2).T
    marks: list[list[str]] = [[] for _ in placed]
    for name, found in placed:
        columns, rows = pixels_of(found, latitude, longitude)
        width, height = sizes[name]
        inside = np.maximum(abs(columns / width - 0.5), abs(rows / height - 0.5)) < 0.5 - MARGIN
        for point in np.flatnonzero(inside).tolist():
            where = f"{longitude[point]:.8f} {latitude[point]:.8f} 0.00"
            marks[point].append(f"{where} {columns[point]:.1f} {rows[point]:.1f} {name} {placed[point][0]}")
    kept = [lines for lines in marks if len(lines) >= LEAST_VIEWS]
    write_text(path, "\n".join(["EPSG:4326", *(line for lines in kept for line in lines)]) + "\n")
    return len(kept)


def pixels_of(
    placed: Georeference, latitude: np.ndarray, longitude: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(columns, rows) in px of a photo for points on the ground in degrees."""
    to_grid = Transformer.from_crs(4326, placed.epsg, always_xy=True)
    east, north = (np.asarray(value) for value in to_grid.transform(longitude, latitude))
    t = placed.transform
    east, north, determinant = east - t.c, north - t.f, t.a * t.e - t.b * t.d
    return (t.e * east - t.b * north) / determinant, (t.a * north - t.d * east) / determinant
