"""One map of many files: windows in true metres, whatever CRS, kind and size the files are of."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from cvgl_ray.errors import InputError
from cvgl_ray.maps.frame import LocalFrame, Window, frame_about
from cvgl_ray.maps.sources import Source, open_sources
from cvgl_ray.maps.stretch import Stretch, measure
from cvgl_ray.maps.warp import Pixels, read_source, source_box

AREA_POINTS = 400  # per side of the net that the area is counted on
TILE_POINTS = 9  # per side of a tile, to tell whether it touches the map
SAMPLED = 32  # files of a mosaic that the stretch is measured on


class MapTile(NamedTuple):
    """One of the windows that tile a map."""

    row: int  # counted northwards from the frame's origin
    column: int
    core: Window  # tiles of one call do not overlap in these
    window: Window  # the core and the margin


@dataclass(frozen=True)
class GeoMap:
    """A georeferenced map. It holds no open files, so it can be sent to other processes."""

    frame: LocalFrame
    sources: tuple[Source, ...]  # the finest first: where files overlap, the first of these is seen
    extents: tuple[Window, ...]  # of the sources, in the frame
    stretches: dict[tuple[str, int], Stretch]  # by type and number of bands; 8-bit files need none
    notes: tuple[str, ...]  # what was left out or assumed when the map was opened

    @property
    def bounds(self) -> Window:
        """The rectangle that holds the map, in metres."""
        west, south, east, north = np.array(self.extents).T
        return Window(float(west.min()), float(south.min()), float(east.max()), float(north.max()))

    @cached_property
    def metres_per_pixel(self) -> float:
        """True metres per pixel of the finest source, at its middle."""
        return min(source.grid.metres_per_pixel(self.frame) for source in self.sources)

    @cached_property
    def area_m2(self) -> float:
        """The ground that the files cover, counted once where they overlap; to about one percent."""
        bounds = self.bounds
        steps = (np.arange(AREA_POINTS) + 0.5) / AREA_POINTS
        east, north = np.meshgrid(
            bounds.west + steps * bounds.width_m, bounds.south + steps * bounds.height_m
        )
        return float(self.covers(east, north).mean()) * bounds.width_m * bounds.height_m

    def read(self, window: Window, metres_per_pixel: float) -> Pixels:
        """The map's picture of a window, north up, at any scale.

        The outer corner of its first pixel is (window.west, window.north); see `Window.size` for its size.
        Outside of the map, on nodata and where a file is damaged, rgb is 0 and valid False.
        """
        height, width = window.size(metres_per_pixel)
        rgb, valid = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), bool)
        damaged: tuple[str, ...] = ()
        for source, extent in self._under(window):
            rows, columns = _part(window, extent, metres_per_pixel, height, width)
            if rows.start >= rows.stop or columns.start >= columns.stop or valid[rows, columns].all():
                continue
            west, north = window.from_pixel(rows.start, columns.start, metres_per_pixel)
            east, south = window.from_pixel(rows.stop, columns.stop, metres_per_pixel)
            stretch = self.stretches.get(_kind(source))
            part = read_source(
                source, stretch, self.frame, Window(west, south, east, north), metres_per_pixel
            )
            new = part.valid & ~valid[rows, columns]
            np.copyto(rgb[rows, columns], part.rgb, where=new[:, :, None])
            valid[rows, columns] |= new
            damaged += part.damaged
        return Pixels(rgb, valid, damaged)

    def covers(self, east: np.ndarray, north: np.ndarray) -> np.ndarray:
        """Which points, in metres, lie on one of the files, bool; nodata within a file is not asked."""
        east, north = np.asarray(east, np.float64), np.asarray(north, np.float64)
        found = np.zeros(np.broadcast(east, north).shape, bool)
        east, north = np.broadcast_to(east, found.shape), np.broadcast_to(north, found.shape)
        if not found.size:
            return found
        around = Window(float(east.min()), float(north.min()), float(east.max()), float(north.max()))
        for source, (west, south, right, top) in self._under(around.grown(0.001)):
            ask = ~found & (east >= west) & (east <= right) & (north >= south) & (north <= top)
            if ask.any():
                found[ask] = source.holds(*source.grid.to_pixel(self.frame, east[ask], north[ask]))
        return found

    def tiles(self, side_m: float, margin_m: float = 0.0) -> list[MapTile]:
        """Windows that tile the map, each with a margin on all sides; those off every file are left out.

        Their cores lie on multiples of `side_m` from the frame's origin: a map that grows keeps its tiles.
        They are listed row by row from the north-west, the order in which untiled files are quick to read.
        """
        steps = np.linspace(0, side_m, TILE_POINTS)
        holding = {self._tile_of(extent.centre, side_m) for extent in self.extents}
        bounds = self.bounds
        columns = range(int(bounds.west // side_m), int(bounds.east // side_m) + 1)
        tiles = []
        for row in range(int(bounds.north // side_m), int(bounds.south // side_m) - 1, -1):
            for column in columns:
                west, south = column * side_m, row * side_m
                east, north = np.meshgrid(west + steps, south + steps)
                if (row, column) in holding or self.covers(east, north).any():
                    core = Window(west, south, west + side_m, south + side_m)
                    tiles.append(MapTile(row, column, core, core.grown(margin_m)))
        return tiles

    def identity(self, window: Window) -> str:
        """Hex digest of all that a window's pixels follow from, without reading them.

        That is the window in its frame, the stretch, and the georeference and stamp (name, bytes, time) of
        each file that the window touches: what was computed of it may be used again while this is the same.
        """
        parts = [repr(self.frame), repr(tuple(float(edge) for edge in window))]
        for source, extent in self._under(window):
            inner = Window(*np.maximum(window[:2], extent[:2]), *np.minimum(window[2:], extent[2:]))
            box = source_box(source.grid, 1, self.frame, inner, source.grid.metres_per_pixel(self.frame))
            if box is not None:
                parts += [source.identity(*box[:4]), repr(self.stretches.get(_kind(source)))]
        return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()

    def _under(self, window: Window) -> list[tuple[Source, Window]]:
        west, south, east, north = self._edges
        touch = (west < window.east) & (east > window.west) & (south < window.north) & (north > window.south)
        return [(self.sources[index], self.extents[index]) for index in np.flatnonzero(touch)]

    @cached_property
    def _edges(self) -> np.ndarray:
        return np.array(self.extents).T

    @staticmethod
    def _tile_of(point: tuple[float, float], side_m: float) -> tuple[int, int]:
        return int(point[1] // side_m), int(point[0] // side_m)


def open_map(paths: str | Sequence[str], crs: str = "") -> GeoMap:
    """One map of raster files and folders of rasters, of XYZ tiles or of images with a table of corners.

    paths: local paths or URIs.
    crs: of files that have a transform and name no CRS, and in which images with a table are straight.

    Pixels are read only for the stretch of files of more than 8 bits. Raises InputError for what cannot be a
    map, see `sources.open_sources`.
    """
    sources, notes = open_sources([paths] if isinstance(paths, str) else paths, crs)
    places = [source.grid.to_wgs84(*source.grid.net()) for source in sources]
    latitude, longitude = (np.concatenate([place[i].ravel() for place in places]) for i in (0, 1))
    known = np.isfinite(latitude) & np.isfinite(longitude)
    if not known.any():
        raise InputError(
            f"the map {sources[0].name!r} lies nowhere on the Earth: check its CRS and transform"
        )
    frame = frame_about(latitude[known], longitude[known])
    extents = [_extent(source, frame) for source in sources]
    # Files that differ by some percent are alike: of those the first that was named is on top.
    order = sorted(
        range(len(sources)), key=lambda i: round(math.log(sources[i].grid.metres_per_pixel(frame)), 1)
    )
    sources = [sources[index] for index in order]
    return GeoMap(frame, tuple(sources), tuple(extents[i] for i in order), _stretches(sources), notes)


def _extent(source: Source, frame: LocalFrame) -> Window:
    try:
        return source.grid.bounds(frame)
    except InputError as error:
        raise InputError(f"the map {source.name!r}: {error}") from error


def _kind(source: Source) -> tuple[str, int]:
    return source.dtype, len(source.bands)


def _stretches(sources: Sequence[Source]) -> dict[tuple[str, int], Stretch]:
    kinds: dict[tuple[str, int], list[Source]] = {}
    for source in sources:
        if source.dtype != "uint8":
            kinds.setdefault(_kind(source), []).append(source)
    return {
        kind: measure(source.sample() for source in alike[:: -(-len(alike) // SAMPLED)])
        for kind, alike in kinds.items()
    }


def _part(
    window: Window, extent: Window, metres_per_pixel: float, height: int, width: int
) -> tuple[slice, slice]:
    """Rows and columns of the window's picture that a source may touch."""
    top, left = window.to_pixel(extent.west, extent.north, metres_per_pixel)
    bottom, right = window.to_pixel(extent.east, extent.south, metres_per_pixel)
    rows = slice(max(0, int(np.floor(top)) - 1), min(height, int(np.ceil(bottom)) + 1))
    return rows, slice(max(0, int(np.floor(left)) - 1), min(width, int(np.ceil(right)) + 1))
