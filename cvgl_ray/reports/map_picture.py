"""The map behind a report: all of it on one picture, and the piece under a photo."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cvgl_ray.maps.frame import Window
from cvgl_ray.maps.geomap import GeoMap
from cvgl_ray.reports.location import Location

OVERVIEW_PX = 1600  # of the picture's longer side
OFF_MAP = (233, 236, 239)  # colour of what no map covers

Floats = np.ndarray


@dataclass(frozen=True)
class MapPicture:
    """A picture of the map, north up, and where coordinates lie on it."""

    image: Image.Image
    place: Callable[[Floats, Floats], tuple[Floats, Floats]]  # latitudes, longitudes -> columns, rows in px
    metres_per_pixel: float


def map_picture(geomap: GeoMap, longest_px: int = OVERVIEW_PX) -> MapPicture:
    """All of a map, read at the coarseness that its longer side asks for."""
    bounds = geomap.bounds
    scale = max(bounds.width_m, bounds.height_m) / longest_px
    pixels = geomap.read(bounds, scale)

    def place(latitude: Floats, longitude: Floats) -> tuple[Floats, Floats]:
        row, column = bounds.to_pixel(*geomap.frame.to_local(latitude, longitude), scale)
        return np.asarray(column), np.asarray(row)

    return MapPicture(_shown(pixels.rgb, pixels.valid), place, scale)


def map_under(geomap: GeoMap, location: Location, size: tuple[int, int]) -> Image.Image | None:
    """What lies under a photo, turned to its heading: a picture of `size` (width, height) px.

    It shows the rectangle that the photo is taken to show. None without a place, a heading or a width.
    """
    if location.place is None or location.heading_deg is None or not location.ground_width_m:
        return None
    scale = location.ground_width_m / size[0]
    reach = scale * float(np.hypot(*size)) / 2 + 2 * scale
    east, north = (float(value) for value in geomap.frame.to_local(*map(np.asarray, location.place)))
    window = Window(east - reach, north - reach, east + reach, north + reach)
    pixels = geomap.read(window, scale)
    heading = np.radians(location.heading_deg)
    cos, sin = float(np.cos(heading)), float(np.sin(heading))
    # A pixel (x, y) of the picture, from its middle, lies at (x cos - y sin, x sin + y cos) of the window's.
    middle = reach / scale
    left, top = size[0] / 2, size[1] / 2
    turn = (cos, -sin, middle - cos * left + sin * top, sin, cos, middle - sin * left - cos * top)
    shown = _shown(pixels.rgb, pixels.valid)
    return shown.transform(size, Image.Transform.AFFINE, turn, Image.Resampling.BILINEAR, fillcolor=OFF_MAP)


def _shown(rgb: np.ndarray, valid: np.ndarray) -> Image.Image:
    return Image.fromarray(np.where(valid[..., None], rgb, np.array(OFF_MAP, np.uint8)))
