"""Where the pixels of one raster lie on the Earth: by a transform or by ground control points."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from pyproj import CRS
from pyproj.exceptions import CRSError
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine, GCPTransformer

from cvgl_ray.errors import InputError
from cvgl_ray.maps.frame import LocalFrame, Window, transformer

POINTS = 9  # points per side of the net that stands for a window where a CRS bends it


@dataclass(frozen=True)
class Grid:
    """A raster's size and georeference. Pixel coordinates are (column, row), (0, 0) the outer corner."""

    width: int  # px
    height: int
    crs: str  # WKT or such as "EPSG:32633"; of the transform, or of the ground control points
    transform: tuple[float, float, float, float, float, float] | None  # (column, row) -> (x, y), as Affine's
    gcps: tuple[tuple[float, float, float, float], ...] = ()  # (column, row, x, y); without a transform

    def to_pixel(
        self, frame: LocalFrame, east: np.ndarray, north: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(column, row) of points in the frame's metres; not finite where the raster's CRS ends."""
        x, y = transformer(frame.crs, self.crs).transform(east, north)
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        if _is_geographic(self.crs):
            x = self._middle_x + (x - self._middle_x + 180) % 360 - 180  # on the raster's side of 180 degrees
        if self.transform is not None:
            a, b, c, d, e, f = tuple(~Affine(*self.transform))[:6]
            return a * x + b * y + c, d * x + e * y + f
        column, row = np.full(x.shape, np.nan), np.full(x.shape, np.nan)
        known = np.isfinite(x) & np.isfinite(y)
        if known.any():
            with GCPTransformer(_points(self.gcps)) as by_points:
                row[known], column[known] = by_points.rowcol(x[known], y[known], op=_same)
        return column, row

    @property
    def _middle_x(self) -> float:
        if self.transform is None:
            return float(np.mean([x for _, _, x, _ in self.gcps]))
        a, b, c, *_ = self.transform
        return a * self.width / 2 + b * self.height / 2 + c

    def to_wgs84(self, column: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(latitude, longitude) in degrees of points in pixel coordinates; not finite where the CRS ends."""
        if self.transform is not None:
            a, b, c, d, e, f = self.transform
            x, y = a * column + b * row + c, d * column + e * row + f
        else:
            with GCPTransformer(_points(self.gcps)) as by_points:
                # Pixel coordinates as they are: rasterio's default adds half a pixel.
                flat = by_points.xy(row.ravel(), column.ravel(), offset="ul")
            x, y = (np.asarray(part).reshape(row.shape) for part in flat)
        longitude, latitude = transformer(self.crs, "EPSG:4326").transform(x, y)
        return np.asarray(latitude), np.asarray(longitude)

    def net(self, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
        """(column, row) [points, points] spread over the raster, its edges included."""
        column, row = np.meshgrid(np.linspace(0, self.width, points), np.linspace(0, self.height, points))
        return column, row

    def bounds(self, frame: LocalFrame) -> Window:
        """The rectangle of the frame that holds the raster, in metres. Raises InputError if there is none."""
        east, north = frame.to_local(*self.to_wgs84(*self.net(33)))
        if not (np.isfinite(east).all() and np.isfinite(north).all()):
            raise InputError("its corners lie outside of what its CRS can tell: check its CRS and transform")
        return Window(float(east.min()), float(north.min()), float(east.max()), float(north.max()))

    def metres_per_pixel(self, frame: LocalFrame) -> float:
        """True metres per pixel at the raster's middle: the root of the ground that one pixel covers."""
        column, row = self.width / 2, self.height / 2
        columns, rows = np.array([column, column + 1, column]), np.array([row, row, row + 1])
        east, north = frame.to_local(*self.to_wgs84(columns, rows))
        (ax, ay), (bx, by) = ((east[i] - east[0], north[i] - north[0]) for i in (1, 2))
        return float(np.sqrt(abs(ax * by - ay * bx)))


def check_crs(crs: str) -> str:
    """The same CRS. Raises InputError if it is unknown or none of the Earth's surface."""
    try:
        known = CRS.from_user_input(crs)
        if not (known.is_geographic or known.is_projected or known.is_bound or known.is_compound):
            raise CRSError("it is no CRS of the Earth's surface")
        transformer(crs, "EPSG:4326")
    except CRSError as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"the CRS {crs[:60]!r} is unknown ({reason}): give one such as EPSG:32633 or a PROJ string by"
            " --crs"
        ) from error
    return crs


def _points(gcps: tuple[tuple[float, float, float, float], ...]) -> list[GroundControlPoint]:
    return [GroundControlPoint(row=row, col=column, x=x, y=y) for column, row, x, y in gcps]


@lru_cache(maxsize=64)
def _is_geographic(crs: str) -> bool:
    return bool(CRS.from_user_input(crs).is_geographic)


def _same(value: np.ndarray) -> np.ndarray:
    return value
