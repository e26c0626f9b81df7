"""Where on Earth a region lies: its metres are those of a UTM grid."""

from dataclasses import dataclass

import numpy as np
from pyproj import Geod, Transformer

# Latitude and longitude of plain country on four continents, and the UTM zone there.
PLACES = (
    (52.05, 11.35, 32632),
    (41.98, -93.45, 32615),
    (-43.62, 172.35, 32759),
    (43.52, 1.22, 32631),
    (-25.62, -49.42, 32722),
    (36.75, 139.72, 32654),
)
WGS84 = Geod(ellps="WGS84")


@dataclass(frozen=True)
class Site:
    """A region's middle on a UTM grid; the region's x runs along grid east, its y along grid south."""

    epsg: int
    east: float
    north: float
    altitude_m: float  # of the region's height 0 above the sea

    def to_wgs84(self, x: float, y: float) -> tuple[float, float]:
        """Latitude and longitude in degrees of a point of the region in metres."""
        transformer = Transformer.from_crs(self.epsg, 4326, always_xy=True)
        longitude, latitude = transformer.transform(self.east + x, self.north - y)
        return float(latitude), float(longitude)

    def grid_north(self, x: float, y: float) -> tuple[float, float]:
        """At a point: true azimuth of grid north in degrees, and true metres per metre of the grid."""
        here, there = self.to_wgs84(x, y), self.to_wgs84(x, y - 100.0)
        azimuth, _, distance = WGS84.inv(here[1], here[0], there[1], there[0])
        return float(azimuth), float(distance) / 100.0


def draw_site(rng: np.random.Generator) -> Site:
    """One of the places, some kilometres off."""
    latitude, longitude, epsg = PLACES[int(rng.integers(len(PLACES)))]
    transformer = Transformer.from_crs(4326, epsg, always_xy=True)
    east, north = transformer.transform(longitude, latitude)
    shift = rng.uniform(-4000, 4000, 2)
    altitude_m = float(np.round(rng.uniform(20, 400)))
    return Site(epsg, float(np.round(east + shift[0])), float(np.round(north + shift[1])), altitude_m)
