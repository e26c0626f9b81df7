"""Small rasters with a bright spot at a known pixel, and where that spot truly lies."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from pyproj import Geod, Transformer
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine

from cvgl_ray.maps.frame import LocalFrame, Window
from cvgl_ray.maps.geomap import GeoMap

SPOT = (131.0, 84.0)  # (column, row) of the spot's centre, counted from the outer corner
SIZE = (240, 180)  # (width, height) in px


def spot_picture(width: int = SIZE[0], height: int = SIZE[1], spot: tuple[float, float] = SPOT) -> np.ndarray:
    """[3, height, width] uint8: grey 40 with a round spot of up to 240."""
    row, column = np.mgrid[:height, :width] + 0.5
    square = (column - spot[0]) ** 2 + (row - spot[1]) ** 2
    grey = 40 + 200 * np.exp(-square / (2 * 3.0**2))
    return np.broadcast_to(grey.round().astype(np.uint8), (3, height, width))


def write(path: Path, pixels: np.ndarray, crs: str | None, transform: Affine | None, **options: Any) -> Path:
    """A GeoTIFF, or what the path's suffix says, of [bands, height, width]."""
    bands, height, width = pixels.shape
    driver = {".png": "PNG", ".jpg": "JPEG"}.get(path.suffix, "GTiff")
    place = {} if transform is None else {"transform": transform}
    profile = {"width": width, "height": height, "count": bands, "dtype": pixels.dtype, "crs": crs}
    with rasterio.open(path, "w", driver=driver, **profile, **place, **options) as file:
        file.write(pixels)
    return path


def gcps_of(transform: Affine, width: int = SIZE[0], height: int = SIZE[1]) -> list[GroundControlPoint]:
    """Ground control points at the corners and the middle."""
    at = [(0, 0), (width, 0), (width, height), (0, height), (width / 2, height / 2)]
    points = [(column, row, *(transform @ (column, row))) for column, row in at]
    return [GroundControlPoint(row=row, col=column, x=x, y=y) for column, row, x, y in points]


def truth_of(crs: str, transform: Affine, spot: tuple[float, float] = SPOT) -> tuple[float, float]:
    """(latitude, longitude) of the spot, by pyproj alone."""
    longitude, latitude = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(
        *(transform @ spot)
    )
    return latitude, longitude


def local_of(frame: LocalFrame, latitude: float, longitude: float) -> tuple[float, float]:
    """(east, north) in metres by a geodesic from the frame's origin, which defines the projection."""
    azimuth, _, distance = Geod(ellps="WGS84").inv(frame.longitude, frame.latitude, longitude, latitude)
    return distance * np.sin(np.radians(azimuth)), distance * np.cos(np.radians(azimuth))


def seen_spot(geomap: GeoMap, near: tuple[float, float], metres_per_pixel: float) -> tuple[float, float]:
    """(east, north) in metres of the spot in the map's picture around a point: the centre of its light."""
    radius = 20 * geomap.metres_per_pixel
    window = Window(near[0] - radius, near[1] - radius, near[0] + radius, near[1] + radius)
    light = geomap.read(window, metres_per_pixel).rgb[:, :, 0].astype(float) - 45
    light = np.maximum(light, 0)
    row, column = np.mgrid[: light.shape[0], : light.shape[1]] + 0.5
    total = light.sum()
    return window.from_pixel((row * light).sum() / total, (column * light).sum() / total, metres_per_pixel)
