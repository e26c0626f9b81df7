"""A map's cells on a grid of the local frame, computed block by block so that shards share them."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from cvgl_ray.maps.frame import Window
from cvgl_ray.maps.warp import Pixels

Forward = Callable[[torch.Tensor], torch.Tensor]  # pictures [B, 3, H, W] uint8 -> cells [B, C, h, w]
Read = Callable[[Window, float], Pixels]  # as maps.GeoMap.read

MARGIN = 4  # cells around a block that are computed and thrown away: a network sees its picture's edge
CORE = 24  # cells per side of a block that are kept
WHOLE = 0.9  # share of a cell's pixels that must be valid


class Block(NamedTuple):
    """A square of CORE x CORE cells; blocks of one resolution tile the frame from its origin."""

    row: int  # counted southwards
    column: int
    window: Window  # with the margin


@dataclass(frozen=True)
class MapCells:
    """Cells of one rectangle of a map: cells [C, h, w] of any float type, valid [h, w] bool.

    west, north: of the first cell's outer corner, in metres of the frame.
    """

    cells: torch.Tensor
    valid: torch.Tensor
    metres_per_cell: float
    west: float
    north: float

    def within(self, window: Window) -> "MapCells":
        """The cells that a window touches, as a view."""
        height, width = self.valid.shape
        top, bottom = self._range(self.north - window.north, self.north - window.south, height)
        left, right = self._range(window.west - self.west, window.east - self.west, width)
        return MapCells(
            self.cells[:, top:bottom, left:right],
            self.valid[top:bottom, left:right],
            self.metres_per_cell,
            self.west + left * self.metres_per_cell,
            self.north - top * self.metres_per_cell,
        )

    def _range(self, low: float, high: float, count: int) -> tuple[int, int]:
        first = math.floor(low / self.metres_per_cell + 1e-6)
        last = math.ceil(high / self.metres_per_cell - 1e-6)
        return min(max(first, 0), count), min(max(last, 0), count)


def blocks_of(area: Window, metres_per_cell: float) -> Iterator[Block]:
    """The blocks that cover an area, from the north-west, row by row."""
    side = CORE * metres_per_cell
    for row in range(math.floor(-area.north / side), math.ceil(-area.south / side)):
        for column in range(math.floor(area.west / side), math.ceil(area.east / side)):
            core = Window(column * side, -(row + 1) * side, (column + 1) * side, -row * side)
            yield Block(row, column, core.grown(MARGIN * metres_per_cell))


def block_cells(picture: Pixels, forward: Forward, stride: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cells [C, h, w] float16 of a window without its margin, and which are valid, [h, w] bool.

    A block's are CORE x CORE. Pixels that are not valid take the mean colour of the others, so that their
    edge stands out little.
    """
    rgb = torch.from_numpy(filled(picture.rgb, picture.valid)).permute(2, 0, 1)[None]
    shares = F.avg_pool2d(torch.from_numpy(picture.valid).float()[None, None], stride)[0, 0]
    inner = slice(MARGIN, -MARGIN)
    valid = shares[inner, inner] >= WHOLE
    return forward(rgb)[0, :, inner, inner].half(), valid


def filled(rgb: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """A copy of rgb [H, W, 3] uint8 with the mean colour of the valid pixels where it is not valid."""
    if valid.all():
        return np.array(rgb)
    colour = rgb[valid].mean(axis=0) if valid.any() else np.full(3, 128.0)
    return np.where(valid[:, :, None], rgb, colour.astype(np.uint8))


def extract(read: Read, area: Window, metres_per_pixel: float, forward: Forward, stride: int) -> MapCells:
    """Cells of the blocks that cover an area. Blocks without a valid pixel cost no forward."""
    metres_per_cell = metres_per_pixel * stride
    found, channels = [], 0
    for block in blocks_of(area, metres_per_cell):
        picture = read(block.window, metres_per_pixel)
        cells = block_cells(picture, forward, stride) if picture.valid.any() else None
        channels = len(cells[0]) if cells else channels
        found.append((block, cells))
    return join(found, channels, metres_per_cell)


def join(
    found: Iterable[tuple[Block, tuple[torch.Tensor, torch.Tensor] | None]],
    channels: int,
    metres_per_cell: float,
) -> MapCells:
    """One rectangle of blocks and their cells; None where a block has none."""
    held = list(found)
    top, left = min(block.row for block, _ in held), min(block.column for block, _ in held)
    rows = max(block.row for block, _ in held) - top + 1
    columns = max(block.column for block, _ in held) - left + 1
    cells = torch.zeros(channels, rows * CORE, columns * CORE, dtype=torch.float16)
    valid = torch.zeros(rows * CORE, columns * CORE, dtype=torch.bool)
    for block, content in held:
        if content is not None:
            y, x = (block.row - top) * CORE, (block.column - left) * CORE
            cells[:, y : y + CORE, x : x + CORE], valid[y : y + CORE, x : x + CORE] = content
    side = CORE * metres_per_cell
    return MapCells(cells, valid, metres_per_cell, left * side, -top * side)
