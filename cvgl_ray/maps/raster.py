"""One georeferenced raster file, of any bands and depth, read by blocks."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window as PixelWindow

from cvgl_ray.errors import InputError
from cvgl_ray.maps.files import DamagedError, FileStamp, check_complete, dataset, stamp
from cvgl_ray.maps.grid import Grid, check_crs

SAMPLE_PX = 512  # side of the picture that a stretch is measured on
STRIP_PX = 16_000_000  # px that are read at once, before they are reduced
WHOLE_PX = 16_000_000  # px up to which a file, or its coarsest overview, is read whole for it


class Block(NamedTuple):
    """A part of a raster, reduced."""

    values: np.ndarray  # [1 or 3, h, w] of the raster's type, h = ceil(height / step), w = ceil(width / step)
    valid: np.ndarray  # [h, w] bool
    damaged: tuple[str, ...] = ()  # what could not be decoded and was left out


@dataclass(frozen=True)
class Raster:
    """A raster file; holds no open handle, so it travels to other processes."""

    address: str  # path or URI
    stamp: FileStamp
    grid: Grid
    dtype: str
    bands: tuple[int, ...]  # one (grey or palette) or three (red, green, blue), counted from 1
    palette: bool
    bare: bool  # declares neither nodata nor alpha nor mask: fill has to be seen in the pixels

    @property
    def name(self) -> str:
        return self.stamp.name

    @property
    def max_step(self) -> int:
        return 1 << 20  # any

    def read_block(self, column: int, row: int, width: int, height: int, step: int) -> Block:
        """A block of px [row : row + height, column : column + width], reduced `step` times to means.

        step: a power of two; column and row are multiples of it. A palette's colours are expanded. Overviews
        are used where the file has them, else the block is read strip by strip.
        Raises DamagedError if a part of the block cannot be decoded.
        """
        with dataset(self.address, self.stamp) as source:
            overview = max(factor for factor in (1, *source.overviews(self.bands[0])) if step % factor == 0)
            rows = _strip_rows(source.block_shapes[0][0] * overview, width, step, STRIP_PX * overview**2)
            reduced = []
            for top in range(row, row + height, rows):
                window = PixelWindow(column, top, width, min(rows, row + height - top))
                reduced.append(_reduced(*self._read_strip(source, window, overview), step // overview))
        values, valid = zip(*reduced, strict=True)
        return Block(np.concatenate(values, axis=1), np.concatenate(valid))

    def _read_strip(self, source: Any, window: PixelWindow, overview: int) -> tuple[np.ndarray, np.ndarray]:
        """Values [1 or 3, h, w] and valid [h, w] of a window, from one of the file's overviews (1: none)."""
        shape = (-(-window.height // overview), -(-window.width // overview))
        values = source.read(list(self.bands), window=window, out_shape=(len(self.bands), *shape))
        mask = None if self.bare else source.dataset_mask(window=window, out_shape=shape)
        valid = np.ones(shape, bool) if mask is None else mask > 0
        if self.palette:
            colours = _colours(source)[values[0]]
            return colours[:, :, :3].transpose(2, 0, 1), valid & (colours[:, :, 3] > 0)
        if values.dtype.kind == "f":
            valid &= np.isfinite(values).all(axis=0)
        return values, valid

    def check(self) -> None:
        """Raise InputError if the file is gone, out of reach or another one by now: that is no damage."""
        if stamp(self.address) != self.stamp:
            raise InputError(f"the map {self.address!r} has changed while it was read: start again")

    def sample(self) -> np.ndarray:
        """Valid values from all over the file, [1 or 3, N]: an overview's, or those of 64 small windows."""
        width, height = self.grid.width, self.grid.height
        step = 1 << max(0, (max(width, height) // SAMPLE_PX).bit_length() - 1)
        with dataset(self.address, self.stamp) as source:
            coarsest = max((1, *source.overviews(self.bands[0])))
            cheap = width * height <= WHOLE_PX * coarsest**2
        found = self._samples([(0, 0, width, height, step)]) if cheap else []
        if not found:
            w, h = min(width, SAMPLE_PX // 8), min(height, SAMPLE_PX // 8)
            corners = [((width - w) * i // 7, (height - h) * j // 7) for j in range(8) for i in range(8)]
            found = self._samples([(column, row, w, h, 1) for column, row in corners])
        return np.concatenate(found or [np.zeros((len(self.bands), 0))], axis=1)

    def _samples(self, boxes: list[tuple[int, int, int, int, int]]) -> list[np.ndarray]:
        found = []
        for box in boxes:
            with suppress(DamagedError):  # named when the map is read
                values, valid, _ = self.read_block(*box)
                found.append(values[:, valid & (values != 0).any(axis=0)])
        return found

    def holds(self, column: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Which points, in px, lie on the raster; nodata is not asked."""
        return (column >= 0) & (column <= self.grid.width) & (row >= 0) & (row <= self.grid.height)

    def identity(self, column: int, row: int, width: int, height: int) -> str:
        """What the block's pixels follow from, as text: the file's stamp and its georeference."""
        return repr((self.stamp, self.grid, self.bands))


def open_raster(address: str, crs: str = "") -> Raster | None:
    """The raster of a file; None if it has no georeference.

    crs: of files that have a transform (a world file beside them) and name no CRS of their own.
    Raises InputError if the file cannot be opened or its CRS is unknown.
    """
    known = stamp(address)
    check_complete(address)
    with dataset(address, known) as source:
        grid = _grid(source, crs, address)
        return None if grid is None else of_dataset(source, address, known, grid)


def of_dataset(source: Any, address: str, known: FileStamp, grid: Grid) -> Raster:
    """The raster of an open dataset on this grid."""
    meaning = source.colorinterp
    rgb = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    palette = meaning[0] == ColorInterp.palette
    if all(colour in meaning for colour in rgb):
        bands = tuple(meaning.index(colour) + 1 for colour in rgb)
    else:
        colours = sum(part != ColorInterp.alpha for part in meaning)
        bands = (1, 2, 3) if colours >= 3 and not palette else (1,)
    bare = all(flags == [MaskFlags.all_valid] for flags in source.mask_flag_enums)
    dtype = "uint8" if palette else source.dtypes[bands[0] - 1]
    return Raster(address, known, grid, dtype, bands, palette, bare and not palette)


def _strip_rows(block_rows: int, width: int, step: int, strip_px: int) -> int:
    """Rows to read at once: about `strip_px` px, in whole steps and, where that fits, in whole blocks."""
    unit = -(-block_rows // step) * step
    if unit * width > 4 * strip_px:
        unit = step
    return max(1, strip_px // (width * unit)) * unit


def _reduced(values: np.ndarray, valid: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of the valid values [B, h, w] in squares of `factor` px, of the same type; valid where half are.

    Several times as quick as GDAL's "average" on files without overviews.
    """
    if factor == 1:
        return values, valid
    bands, height, width = values.shape
    h, w = -(-height // factor), -(-width // factor)
    if (h * factor, w * factor) != (height, width):
        padding = ((0, h * factor - height), (0, w * factor - width))
        values, valid = np.pad(values, ((0, 0), *padding)), np.pad(valid, padding)
    if not valid.all():
        values = np.where(valid, values, values.dtype.type(0))
    # Rows first, and as whole rows: the order in which they lie in memory.
    total = values.reshape(bands, h, factor, w * factor).sum(axis=2, dtype=np.float32)
    total = total.reshape(bands, h, w, factor).sum(axis=3)
    count = np.add.reduce(valid.reshape(h, factor, w * factor), axis=1, dtype=np.float32)
    count = count.reshape(h, w, factor).sum(axis=2)
    means = total / np.maximum(count, 1)
    if values.dtype.kind != "f":
        means = np.rint(means)
    return means.astype(values.dtype), count * 2 >= factor**2


def _grid(source: Any, crs: str, address: str) -> Grid | None:
    points, points_crs = source.gcps
    if not points and (source.transform.is_identity or source.transform.determinant == 0):
        return None
    if 0 < len(points) < 3:
        raise InputError(f"the map {address!r} has {len(points)} ground control points: give three or more")
    named = points_crs if points else source.crs
    own = named.to_wkt() if named else crs
    if not own:
        raise InputError(
            f"the map {address!r} has a georeference (perhaps a world file) but no CRS: name it, such as"
            " --crs EPSG:32633"
        )
    placed = tuple((point.col, point.row, point.x, point.y) for point in points)
    transform = None if points else tuple(source.transform)[:6]
    return Grid(source.width, source.height, _crs_of(own, crs, address), transform, placed)


def _crs_of(own: str, given: str, address: str) -> str:
    try:
        return check_crs(own)
    except InputError as error:
        if given and given != own:
            return check_crs(given)
        raise InputError(f"the map {address!r}: {error}") from error


def _colours(source: Any) -> np.ndarray:
    """The palette [256 or 65536, 4] uint8, red, green, blue, alpha; colours it lacks are transparent."""
    table = np.zeros((np.iinfo(source.dtypes[0]).max + 1, 4), np.uint8)
    for value, colour in source.colormap(1).items():
        table[value] = colour
    nodata = source.nodata
    if nodata is not None and 0 <= nodata < len(table):
        table[int(nodata), 3] = 0
    return table
