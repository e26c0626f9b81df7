"""Where photos were taken, as rows; and as the table and the GeoJSON that other programs read."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pyproj import Geod

from cvgl_ray.storage.files import write_text

COLUMNS = (
    "image_id", "latitude", "longitude", "heading_deg", "ground_width_m", "error_m", "confidence", "found",
)  # fmt: skip
DIGITS = {"latitude": 7, "longitude": 7, "heading_deg": 1, "ground_width_m": 1, "error_m": 1, "confidence": 3}
ASPECT = 3 / 4  # height over width of a photo whose size is not told
WGS84 = Geod(ellps="WGS84")


@dataclass(frozen=True)
class Location:
    """One photo's answer; where it was not found, all but `confidence` and `reason` may be None."""

    image_id: str
    found: bool
    latitude: float | None = None  # degrees WGS84, of the ground under the image's centre
    longitude: float | None = None
    heading_deg: float | None = None  # of the image's top, clockwise from true north
    ground_width_m: float | None = None  # of the ground across the image
    error_m: float | None = None  # 80 % of the found lie within it
    confidence: float | None = None  # in [0, 1]
    reason: str = ""  # why it was not found, or what is odd about it
    # (latitude, longitude) under the image's corners, clockwise from its upper left
    corners: tuple[tuple[float, float], ...] | None = None

    @property
    def place(self) -> tuple[float, float] | None:
        """(latitude, longitude) of a photo that was found."""
        if not self.found or self.latitude is None or self.longitude is None:
            return None
        return self.latitude, self.longitude


def footprint(location: Location, aspect: float = ASPECT) -> list[tuple[float, float]] | None:
    """(latitude, longitude) of what the image's corners show, clockwise from its upper left one.

    Where the corners are not told, the image is taken to look straight down: a rectangle on the ground, of
    `aspect`, the image's height over its width. None without a place, a heading or a width.
    """
    if location.place is None or location.heading_deg is None or not location.ground_width_m:
        return None
    if location.corners is not None:
        return list(location.corners)
    right, up = location.ground_width_m / 2, location.ground_width_m * aspect / 2
    signs = np.array([(-1, 1), (1, 1), (1, -1), (-1, -1)])
    azimuth = location.heading_deg + np.degrees(np.arctan2(signs[:, 0] * right, signs[:, 1] * up))
    latitude, longitude = location.place
    distance = np.full(4, np.hypot(right, up))
    lon, lat, _ = WGS84.fwd(np.full(4, longitude), np.full(4, latitude), azimuth, distance)
    return [(float(a), float(b)) for a, b in zip(lat, lon, strict=True)]


def write_locations(
    folder: Path, locations: Sequence[Location], aspects: Mapping[str, float] | None = None
) -> None:
    """Write `locations.csv` and `locations.geojson`, one row for each photo in the order given.

    aspects: height over width by image_id.
    """
    write_text(folder / "locations.csv", table(locations))
    collection = json.dumps(geojson(locations, aspects or {}), indent=1, allow_nan=False)
    write_text(folder / "locations.geojson", collection + "\n")


def table(locations: Sequence[Location]) -> str:
    """`locations.csv`; a photo that was not found has an empty place, heading, width and error."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for location in locations:
        values = _values(location)
        cells = ["" if values[name] is None else f"{values[name]:.{DIGITS[name]}f}" for name in COLUMNS[1:-1]]
        writer.writerow([location.image_id, *cells, str(location.found).lower()])
    return buffer.getvalue()


def geojson(locations: Sequence[Location], aspects: Mapping[str, float]) -> dict[str, Any]:
    """A FeatureCollection (RFC 7946): a point, and where known a footprint's polygon, for each photo found.

    A photo that was not found is a feature without geometry.
    """
    features = []
    for location in locations:
        properties = {**_rounded(location), "image_id": location.image_id, "found": location.found}
        if location.reason:
            properties["reason"] = location.reason
        place = location.place
        point = None if place is None else {"type": "Point", "coordinates": _lon_lat(place)}
        features.append(_feature(point, {**properties, "shows": "centre"}))
        corners = footprint(location, aspects.get(location.image_id, ASPECT))
        if corners is not None:
            ring = [
                _lon_lat(corner) for corner in [corners[0], *corners[:0:-1], corners[0]]
            ]  # against the clock
            polygon = {"type": "Polygon", "coordinates": [ring]}
            features.append(_feature(polygon, {**properties, "shows": "footprint"}))
    return {"type": "FeatureCollection", "features": features}


def _feature(geometry: dict[str, Any] | None, properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _values(location: Location) -> dict[str, float | None]:
    """The numbers of a row; only those that mean something."""
    always = ("confidence",)
    return {
        name: getattr(location, name) if location.found or name in always else None for name in COLUMNS[1:-1]
    }


def _rounded(location: Location) -> dict[str, float | None]:
    return {
        name: None if value is None else round(float(value), DIGITS[name])
        for name, value in _values(location).items()
    }


def _lon_lat(place: tuple[float, float]) -> list[float]:
    return [round(place[1], DIGITS["longitude"]), round(place[0], DIGITS["latitude"])]
