"""The plane that a map is searched in: east and north in true metres about one point."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from pyproj import Transformer

WGS84 = "EPSG:4326"


class Window(NamedTuple):
    """A rectangle of the local frame, in metres; as a picture its first row is its northern edge."""

    west: float
    south: float
    east: float
    north: float

    @property
    def width_m(self) -> float:
        return self.east - self.west

    @property
    def height_m(self) -> float:
        return self.north - self.south

    @property
    def centre(self) -> tuple[float, float]:
        """(east, north) in metres."""
        return (self.west + self.east) / 2, (self.south + self.north) / 2

    def grown(self, margin_m: float) -> "Window":
        """The window with this margin on each side, in metres; a negative one shrinks it."""
        return Window(
            self.west - margin_m, self.south - margin_m, self.east + margin_m, self.north + margin_m
        )

    def size(self, metres_per_pixel: float) -> tuple[int, int]:
        """(height, width) in px at this scale, rounded, at least 1."""
        height, width = self.height_m / metres_per_pixel, self.width_m / metres_per_pixel
        return max(1, round(height)), max(1, round(width))

    def to_pixel(self, east: Any, north: Any, metres_per_pixel: float) -> tuple[Any, Any]:
        """(row, column) of points in metres; (0, 0) is the outer corner of the picture's first pixel."""
        return (self.north - north) / metres_per_pixel, (east - self.west) / metres_per_pixel

    def from_pixel(self, row: Any, column: Any, metres_per_pixel: float) -> tuple[Any, Any]:
        """(east, north) in metres; the inverse of `to_pixel`."""
        return self.west + column * metres_per_pixel, self.north - row * metres_per_pixel


@dataclass(frozen=True)
class LocalFrame:
    """The azimuthal equidistant projection of the WGS84 ellipsoid about one point.

    Distances from the origin are exact. Those across are too long by a factor of at most 1 + r^2 / (6 R^2),
    with R the Earth's radius: 1 part in 100,000 at r = 50 km (Snyder, Map Projections, 1987, p. 191). "North
    up" holds along the origin's meridian; elsewhere it turns by the longitude's difference times
    sin(latitude).
    """

    latitude: float  # degrees WGS84
    longitude: float

    @property
    def crs(self) -> str:
        """The frame as a PROJ string, for rasterio and pyproj."""
        return f"+proj=aeqd +lat_0={self.latitude!r} +lon_0={self.longitude!r} +datum=WGS84 +units=m +no_defs"

    def to_local(self, latitude: ArrayLike, longitude: ArrayLike) -> tuple[Any, Any]:
        """(east, north) in metres of points in degrees WGS84; floats give floats, arrays give arrays."""
        east, north = transformer(WGS84, self.crs).transform(longitude, latitude)
        return east, north

    def to_wgs84(self, east: ArrayLike, north: ArrayLike) -> tuple[Any, Any]:
        """(latitude, longitude) in degrees WGS84 of points in metres; the inverse of `to_local`."""
        longitude, latitude = transformer(self.crs, WGS84).transform(east, north)
        return latitude, longitude


def frame_about(latitude: np.ndarray, longitude: np.ndarray) -> LocalFrame:
    """The frame about the middle of some points in degrees, also across the antimeridian.

    The origin is rounded to a tenth of a degree (5.6 km of latitude at most): a map that gains a tile keeps
    its frame, and with it all that was computed of its windows.
    """
    lat, lon = np.radians(latitude), np.radians(longitude)
    x, y, z = (
        float(part.mean()) for part in (np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat))
    )
    middle = math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x))
    return LocalFrame(round(middle[0], 1), round(middle[1], 1))


@lru_cache(maxsize=64)
def transformer(source: str, target: str) -> Transformer:
    """The pyproj transformer between two CRS, x (or longitude) first; kept, for building one takes a while.

    Raises pyproj.exceptions.CRSError for a CRS that PROJ does not know.
    """
    return Transformer.from_crs(source, target, always_xy=True)
