"""On a large map coarse cells propose places, and finer cells look at each proposal again.

What they give is what a search of the whole map in fine cells would give near the proposals: peaks and scores
that leads, candidates and confidences are told from in the same way.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from cvgl_ray.alignment.flight import APART_SIDES
from cvgl_ray.alignment.map_cells import MARGIN, Forward, MapCells, Read, block_cells
from cvgl_ray.alignment.photo_adapter import CellAdapter
from cvgl_ray.alignment.photo_search import Peaks, merged, nothing, search
from cvgl_ray.alignment.scales import Scale
from cvgl_ray.alignment.turned import PhotoCells, photo_cells
from cvgl_ray.maps.frame import Window

PROPOSALS = 32  # of a photo, each apart from the others
SLACK = 3  # fine cells around a proposal in which its peak may lie: one and a half coarse ones
TURNS = (-1, 0, 1)  # headings that are looked at again, in steps from the proposal's


def proposals(peaks: Peaks, number: int, scales: Sequence[Scale]) -> list[int]:
    """Indices of a photo's best peaks, none of them within reach of a better one of about its size."""
    kept: list[int] = []
    for k in range(peaks.score.shape[1]):
        if len(kept) == PROPOSALS or not math.isfinite(float(peaks.score[number, k])):
            break
        if not any(_close(peaks, number, k, other, scales) for other in kept):
            kept.append(k)
    return kept


def _close(peaks: Peaks, number: int, one: int, other: int, scales: Sequence[Scale]) -> bool:
    east, north = (column[number, one] - column[number, other] for column in (peaks.east, peaks.north))
    sides = [scales[int(peaks.scale[number, k])].side_m for k in (one, other)]
    same = peaks.scale[number, one] == peaks.scale[number, other]
    return bool(same) and math.hypot(float(east), float(north)) < APART_SIDES * min(sides) / 2


def fine_scale(scale: Scale, side_px: int, finest: float) -> Scale:
    """The same ground in more pixels, as far as the map's own resolution `finest` lets."""
    resolution = max(finest, scale.side_m / side_px)
    return Scale(resolution, round(scale.side_m / resolution))


class Look(NamedTuple):
    """What a second look is taken with: scales of the search, and the same ones in fine cells; headings.

    most: flight.full_cells at the fine scales.
    """

    coarse: Sequence[Scale]
    fine: Sequence[Scale]
    headings: Sequence[float]
    adapter: CellAdapter
    most: int


def looked_at_again(
    rgb: np.ndarray,
    valid: np.ndarray,
    peaks: Peaks,
    look: Look,
    read: Read,
    forward: Forward,
    stride: int,
) -> Peaks:
    """The peaks [1, PROPOSALS] of one photo in fine cells, one near each of its coarse peaks [1, K].

    rgb [H, W, 3] uint8, valid [H, W] bool: the photo.
    """
    adapter, headings = look.adapter, look.headings
    cells: dict[int, PhotoCells] = {}
    found = []
    for k in proposals(peaks, 0, look.coarse):
        number = int(peaks.scale[0, k])
        scale = look.fine[number]
        if scale.side_px not in cells:
            made = photo_cells(rgb, valid, scale.side_px, headings, forward, stride)
            cells[scale.side_px] = adapter.of_photo(made, _nearest(adapter, "photo", scale.side_px))
        photo = cells[scale.side_px]
        turns = [(int(peaks.heading[0, k]) + turn) % len(headings) for turn in TURNS]
        few = PhotoCells(photo.cells[turns], photo.masks[turns])
        middle = float(peaks.east[0, k]), float(peaks.north[0, k])
        metres = scale.metres_per_pixel * stride
        core = Window(*middle, *middle).grown(SLACK * metres)
        area = core.grown((photo.masks.shape[-1] / 2 + 1) * metres)
        level = _level(read, area, scale.metres_per_pixel, forward, stride)
        level = adapter.of_map(level, _nearest(adapter, "map", scale.metres_per_pixel))
        best = Peaks(*(column[:, :1] for column in search([few], level, number, core, look.most)))
        found.append(best._replace(heading=torch.tensor(turns)[best.heading]))
    return merged([*found, nothing(1, PROPOSALS)], PROPOSALS)


def _level(read: Read, area: Window, resolution: float, forward: Forward, stride: int) -> MapCells:
    """Cells of one window of the map, whole cells around it."""
    metres = resolution * stride
    rows, columns = (math.ceil(length / metres) for length in (area.height_m, area.width_m))
    inner = Window(area.west, area.north - rows * metres, area.west + columns * metres, area.north)
    cells, valid = block_cells(read(inner.grown(MARGIN * metres), resolution), forward, stride)
    return MapCells(cells, valid, metres, inner.west, inner.north)


def _nearest(adapter: CellAdapter, kind: str, size: float) -> str:
    """The name of the mean that was learned at the size nearest to `size`."""
    names = [name for name in adapter.means if name.startswith(f"{kind}/")]
    return min(names, key=lambda name: abs(math.log(float(name.split("/")[1]) / size)))
