"""Folders of web map tiles: z/x/y.png|jpg|webp or z_x_y.png|jpg|webp, in EPSG:3857."""

import io
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cvgl_ray.errors import InputError
from cvgl_ray.maps.files import FileStamp
from cvgl_ray.maps.grid import Grid
from cvgl_ray.maps.raster import Block
from cvgl_ray.storage.filesystem import join, read_bytes

HALF_EQUATOR_M = math.pi * 6_378_137  # of EPSG:3857: x and y run from minus to plus this
TILE = re.compile(r"(?:^|/)(\d{1,2})[/_](\d+)[/_](\d+)\.(?:png|jpe?g|webp)$", re.IGNORECASE)

Level = dict[tuple[int, int], tuple[str, FileStamp]]  # (x, y) -> path below the folder, stamp


@dataclass(frozen=True)
class TileFolder:
    """The tiles of one folder as one raster; those of lower zooms serve as its overviews."""

    address: str
    levels: dict[int, Level]  # the zoom that is read, and lower ones that cover as much
    zoom: int
    side: int  # px of a tile
    grid: Grid
    first: tuple[int, int]  # (x, y) of the tile at the grid's origin
    dtype: str = "uint8"
    bands: tuple[int, ...] = (1, 2, 3)
    bare: bool = True

    @property
    def name(self) -> str:
        return self.address

    @property
    def max_step(self) -> int:
        return self.side & -self.side  # tiles are reduced one by one: by a power of two that divides them

    def read_block(self, column: int, row: int, width: int, height: int, step: int) -> Block:
        """As `Raster.read_block`, `step` a power of two; tiles that are missing or broken are not valid."""
        zoom = min(z for z in self.levels if 1 << (self.zoom - z) <= step)
        reduce = step >> (self.zoom - zoom)
        side = self.side // reduce  # of a tile in the block
        # The block's first px, counted from the world's corner at this zoom and reduction.
        left, top = (self.first[0] * self.side + column) // step, (self.first[1] * self.side + row) // step
        h, w = -(-height // step), -(-width // step)
        canvas = np.zeros((h, w, 4), np.uint8)
        damaged = []
        for (x, y), (path, _) in _under(self.levels[zoom], left, top, left + w, top + h, side):
            try:
                tile = _decode(read_bytes(join(self.address, path)), self.side, reduce)
            except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
                damaged.append(f"{path} ({error})")
                continue
            r0, c0 = y * side - top, x * side - left
            rows, columns = slice(max(0, r0), min(h, r0 + side)), slice(max(0, c0), min(w, c0 + side))
            part = tile[rows.start - r0 : rows.stop - r0, columns.start - c0 : columns.stop - c0]
            canvas[rows, columns] = part
        return Block(canvas[:, :, :3].transpose(2, 0, 1), canvas[:, :, 3] > 127, tuple(damaged))

    def check(self) -> None:
        """Nothing: tiles that cannot be read are named one by one."""

    def sample(self) -> np.ndarray:
        """Nothing: tiles have 8 bits and are not stretched."""
        return np.zeros((3, 0), np.uint8)

    def holds(self, column: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Which points, in px, lie on a tile."""
        inside = (column >= 0) & (column <= self.grid.width) & (row >= 0) & (row <= self.grid.height)
        found = np.zeros(column.shape, bool)
        level = self.levels[self.zoom]
        for place in np.argwhere(inside):
            at = tuple(place)
            x = self.first[0] + min(int(column[at]), self.grid.width - 1) // self.side
            y = self.first[1] + min(int(row[at]), self.grid.height - 1) // self.side
            found[at] = (x, y) in level
        return found

    def identity(self, column: int, row: int, width: int, height: int) -> str:
        """The stamps of the tiles under a block of px, as text."""
        left, top = self.first[0] * self.side + column, self.first[1] * self.side + row
        tiles = _under(self.levels[self.zoom], left, top, left + width, top + height, self.side)
        return repr((self.zoom, self.side, [(place, known) for place, (_, known) in tiles]))


def open_tiles(
    address: str, names: Iterable[tuple[str, FileStamp]], flipped: bool
) -> tuple[TileFolder, tuple[str, ...]] | None:
    """The tile folder among a folder's files, at its highest complete zoom, and notes; None if it is none.

    flipped: rows are counted from the south (TMS). Raises InputError if no tile can be decoded.
    """
    levels = _levels(names, flipped)
    if not levels:
        return None
    zoom, notes = _highest_complete(levels)
    side = _side(address, levels[zoom])
    xs, ys = zip(*levels[zoom], strict=True)
    first = min(xs), min(ys)
    pixel = 2 * HALF_EQUATOR_M / (side << zoom)
    west, north = first[0] * side * pixel - HALF_EQUATOR_M, HALF_EQUATOR_M - first[1] * side * pixel
    columns, rows = max(xs) - first[0] + 1, max(ys) - first[1] + 1
    grid = Grid(columns * side, rows * side, "EPSG:3857", (pixel, 0.0, west, 0.0, -pixel, north))
    lower = {
        z: levels[z] for z in levels if z == zoom or (z < zoom and _covers(levels[z], levels[zoom], zoom - z))
    }
    return TileFolder(address, lower, zoom, side, grid, first), notes


def _levels(names: Iterable[tuple[str, FileStamp]], flipped: bool) -> dict[int, Level]:
    levels: dict[int, Level] = {}
    for path, known in names:
        match = TILE.search(path)
        if match:
            zoom, x, y = (int(part) for part in match.groups())
            if zoom < 31 and x < 1 << zoom and y < 1 << zoom:
                levels.setdefault(zoom, {})[x, (1 << zoom) - 1 - y if flipped else y] = path, known
    return levels


def _highest_complete(levels: dict[int, Level]) -> tuple[int, tuple[str, ...]]:
    """The highest zoom with a tile under each tile of the next lower one, and what is said of higher ones."""
    zooms = sorted(levels, reverse=True)
    notes = []
    for zoom, lower in zip(zooms, [*zooms[1:], None], strict=True):
        if lower is None or not (missing := _without_child(levels[lower], levels[zoom], zoom - lower)):
            break
        notes.append(
            f"zoom {zoom} is left out: it lacks {missing} of the {len(levels[lower])} tiles of zoom {lower}"
        )
    return zoom, tuple(notes)


def _without_child(lower: Level, higher: Level, apart: int) -> int:
    parents = {(x >> apart, y >> apart) for x, y in higher}
    return sum(tile not in parents for tile in lower)


def _covers(lower: Level, higher: Level, apart: int) -> bool:
    return all((x >> apart, y >> apart) in lower for x, y in higher)


def _under(
    level: Level, left: int, top: int, right: int, bottom: int, side: int
) -> Iterator[tuple[tuple[int, int], tuple[str, FileStamp]]]:
    """The level's tiles of `side` px that touch a rectangle of px, counted from the world's corner."""
    for y in range(top // side, -(-bottom // side)):
        for x in range(left // side, -(-right // side)):
            if (x, y) in level:
                yield (x, y), level[x, y]


def _decode(content: bytes, side: int, reduce: int) -> np.ndarray:
    """A tile as RGBA [side / reduce, side / reduce, 4] uint8."""
    with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as image:
        tile = image.convert("RGBA")
    if tile.size != (side, side):
        tile = tile.resize((side, side))
    return np.asarray(tile.reduce(reduce) if reduce > 1 else tile)


def _side(address: str, level: Level) -> int:
    """The tiles' side in px, by the first one that can be decoded."""
    for path, _ in level.values():
        try:
            with Image.open(
                io.BytesIO(read_bytes(join(address, path))), formats=("PNG", "JPEG", "WEBP")
            ) as image:
                return image.width
        except Exception:  # as above
            continue
    raise InputError(
        f"none of the {len(level)} tiles in {address!r} can be decoded: give PNG, JPEG or WebP tiles"
    )
