"""The pixels of one source, turned and scaled onto a window of the local frame."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.warp import reproject

from cvgl_ray.maps.files import DamagedError
from cvgl_ray.maps.frame import LocalFrame, Window
from cvgl_ray.maps.grid import POINTS, Grid
from cvgl_ray.maps.masks import black_surround, zero_surround
from cvgl_ray.maps.raster import Block
from cvgl_ray.maps.sources import Source
from cvgl_ray.maps.stretch import Stretch

SMALLEST_PX = 16  # a damaged part is narrowed down to windows of this side
TOLERANCE_PX = 0.02  # by which GDAL may approximate the projection
AFFINE_PX = 0.05  # by which an affine transform may depart from it
SHRUNK = 1.1  # px of a block per px of a window, up to which its neighbours alone are looked at


class Pixels(NamedTuple):
    """A window's picture, north up."""

    rgb: np.ndarray  # [H, W, 3] uint8, 0 where not valid
    valid: np.ndarray  # [H, W] bool
    damaged: tuple[str, ...]  # files, or parts of files, that could not be decoded and were left out


class Box(NamedTuple):
    """A block of a source: px from its corner, and by how much it is reduced when read."""

    column: int
    row: int
    width: int
    height: int
    step: int


def read_source(
    source: Source, stretch: Stretch | None, frame: LocalFrame, window: Window, metres_per_pixel: float
) -> Pixels:
    """A window of one source, resampled bilinearly; parts that cannot be decoded are left out and named."""
    height, width = window.size(metres_per_pixel)
    box = source_box(source.grid, source.max_step, frame, window, metres_per_pixel)
    nothing = Pixels(np.zeros((height, width, 3), np.uint8), np.zeros((height, width), bool), ())
    if box is None:
        return nothing
    try:
        block = source.read_block(*box)
    except DamagedError as error:
        if max(height, width) <= SMALLEST_PX:
            source.check()
            return nothing._replace(damaged=(str(error),))
        return _read_quarters(source, stretch, frame, window, metres_per_pixel)
    rgba = _prepared(block, stretch, source.bare)
    if len(rgba) == 4 and rgba[3].all():
        rgb = _turned(rgba[:3], source.grid, box, frame, window, metres_per_pixel)
        if rgb is not None:
            return Pixels(rgb, np.ones((height, width), bool), block.damaged)
    out = np.zeros((len(rgba), height, width), np.uint8)
    georeference = _georeference(source.grid, box, rgba.shape[1], rgba.shape[2])
    reproject(
        rgba,
        out,
        src_crs=source.grid.crs,
        dst_crs=frame.crs,
        dst_transform=Affine(metres_per_pixel, 0, window.west, 0, -metres_per_pixel, window.north),
        src_alpha=len(rgba),
        dst_alpha=len(rgba),
        resampling=Resampling.bilinear,
        tolerance=TOLERANCE_PX,
        **georeference,
    )
    valid = out[-1] > 127
    rgb = np.broadcast_to(out[:-1], (3, height, width)).transpose(1, 2, 0) * valid[:, :, None]
    return Pixels(rgb, valid, block.damaged)


def _turned(
    rgb: np.ndarray, grid: Grid, box: Box, frame: LocalFrame, window: Window, metres_per_pixel: float
) -> np.ndarray | None:
    """[H, W, 3] uint8 from a block [3, h, w] that is valid throughout, by one affine transform.

    Several times as quick as GDAL's. None where the window reaches over the block's edge, where the
    projection is curved by more than AFFINE_PX of the window's pixels, and where so many of the block's
    pixels lie on one of the window's that GDAL takes a mean of them.
    """
    if metres_per_pixel > SHRUNK * grid.metres_per_pixel(frame) * box.step:
        return None
    height, width = window.size(metres_per_pixel)
    rows, columns = (np.linspace(0, length, POINTS) for length in (height, width))
    y, x = (part.ravel() for part in np.meshgrid(rows, columns, indexing="ij"))
    column, row = grid.to_pixel(frame, *window.from_pixel(y, x, metres_per_pixel))
    scale = rgb.shape[2] / box.width, rgb.shape[1] / box.height
    there = np.stack([(column - box.column) * scale[0], (row - box.row) * scale[1]], axis=1)
    here = np.stack([x, y, np.ones_like(x)], axis=1)
    inside = (there >= 0.5) & (there <= np.array([rgb.shape[2], rgb.shape[1]]) - 0.5)
    if not inside.all():  # NaN is not
        return None
    fitted, *_ = np.linalg.lstsq(here, there, rcond=None)
    if np.abs(here @ fitted - there).max() > AFFINE_PX:
        return None
    picture = Image.fromarray(np.ascontiguousarray(rgb.transpose(1, 2, 0)))
    turn = tuple(fitted.T.ravel().tolist())
    turned = picture.transform((width, height), Image.Transform.AFFINE, turn, Image.Resampling.BILINEAR)
    return np.asarray(turned)


def source_box(
    grid: Grid, max_step: int, frame: LocalFrame, window: Window, metres_per_pixel: float
) -> Box | None:
    """The block of a source that a window needs, None if they do not touch.

    It is read reduced by a power of two, so that between one and two of its px lie on one of the window's.
    """
    east, north = np.meshgrid(
        np.linspace(window.west, window.east, POINTS), np.linspace(window.south, window.north, POINTS)
    )
    column, row = grid.to_pixel(frame, east, north)
    known = np.isfinite(column) & np.isfinite(row)
    if not known.any():
        return None
    ratio = metres_per_pixel / grid.metres_per_pixel(frame)
    step = min(1 << max(0, math.floor(math.log2(ratio) + 1e-6)), max_step)
    margin = 2 * step + 2 * ratio
    left, right = _span(column[known], margin, step, grid.width)
    top, bottom = _span(row[known], margin, step, grid.height)
    if left >= right or top >= bottom:
        return None
    return Box(left, top, right - left, bottom - top, step)


def _span(values: np.ndarray, margin: float, step: int, size: int) -> tuple[int, int]:
    """First and last px, multiples of `step` where the raster goes on."""
    low, high = float(values.min()) - margin, float(values.max()) + margin
    first = math.floor(min(max(low, 0), size) / step) * step
    last = math.ceil(min(max(high, 0), size) / step) * step
    return first, min(last, size)


def _prepared(block: Block, stretch: Stretch | None, bare: bool) -> np.ndarray:
    """[2 or 4, h, w] uint8: grey or RGB, and alpha."""
    values, valid = block.values, block.valid
    if stretch is not None:
        valid = valid & zero_surround(values) if bare else valid
        values = stretch.apply(values)
    elif bare:
        valid = valid & black_surround(np.broadcast_to(values, (3, *values.shape[1:])).transpose(1, 2, 0))
    return np.concatenate([values, 255 * valid[None].astype(np.uint8)])


def _georeference(grid: Grid, box: Box, height: int, width: int) -> dict[str, object]:
    """rasterio's arguments for a block that was reduced to height x width px."""
    x, y = box.width / width, box.height / height
    if grid.transform is not None:
        block = Affine(*grid.transform) @ Affine.translation(box.column, box.row) @ Affine.scale(x, y)
        return {"src_transform": block}
    return {
        "gcps": [
            GroundControlPoint(row=(r - box.row) / y, col=(c - box.column) / x, x=gx, y=gy)
            for c, r, gx, gy in grid.gcps
        ]
    }


def _read_quarters(
    source: Source, stretch: Stretch | None, frame: LocalFrame, window: Window, metres_per_pixel: float
) -> Pixels:
    height, width = window.size(metres_per_pixel)
    rgb, valid = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), bool)
    damaged: tuple[str, ...] = ()
    for rows in _halves(height):
        for columns in _halves(width):
            west, north = window.from_pixel(rows.start, columns.start, metres_per_pixel)
            east, south = window.from_pixel(rows.stop, columns.stop, metres_per_pixel)
            part = read_source(source, stretch, frame, Window(west, south, east, north), metres_per_pixel)
            rgb[rows, columns], valid[rows, columns] = part.rgb, part.valid
            damaged += part.damaged
    return Pixels(rgb, valid, tuple(dict.fromkeys(damaged)))


def _halves(size: int) -> Iterator[slice]:
    if size > 1:
        yield slice(0, size // 2)
    yield slice(size // 2, size)
