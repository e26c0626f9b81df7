"""Where on a map photos may lie: their cells slide over the map's, in every heading and at every scale."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from cvgl_ray.alignment.map_cells import MapCells
from cvgl_ray.alignment.turned import PhotoCells
from cvgl_ray.maps.frame import Window

PEAKS = 8  # kept per photo and scale
OVERLAP = 0.5  # share of a photo's cells that must lie on the map
ROUNDING_M = 1e-4
KERNELS = 96  # photos times headings that are convolved at a time: few use a CPU badly, many take memory


class Peaks(NamedTuple):
    """The best poses of N photos, the best first, all [N, K]; a score of -inf where there is none.

    score: the sum of the cosines of photo cells and the map cells under them, over the root of their number
    and of the number of cells that a photo has at most. So it is the mean cosine where a photo lies wholly on
    the map, and a small photo or a part of one, that agrees with some place by chance, has less.
    east, north: metres, the photo's middle; heading: index; scale: index.
    """

    score: torch.Tensor
    east: torch.Tensor
    north: torch.Tensor
    heading: torch.Tensor
    scale: torch.Tensor


class Near(NamedTuple):
    """Where N photos may lie: their middles within radius_m of points [N] in metres; NaN: anywhere."""

    east: torch.Tensor
    north: torch.Tensor
    radius_m: float

    def of(self, rows: Sequence[int] | slice) -> "Near":
        """Of some photos."""
        return Near(self.east[rows], self.north[rows], self.radius_m)


def search(
    photos: Sequence[PhotoCells],
    level: MapCells,
    scale: int,
    core: Window | None = None,
    most: int = 0,
    near: Near | None = None,
) -> Peaks:
    """The peaks of photos at one scale on one rectangle of a map's cells.

    photos, level: prepared cells of this scale (see photo_adapter): unit length, zero where not valid.
    core: only poses with the photo's middle in it count; so shards of a map that overlap by a photo's radius
    give together what the whole map gives. most: cells that a photo has at its largest scale; 0: at this one.
    near: where each photo may lie; None: anywhere.
    """
    # Photos of an odd and of an even number of cells differ by half a cell in their middle.
    order = sorted(range(len(photos)), key=lambda number: photos[number].masks.shape[-1] % 2)
    even = sum(photo.masks.shape[-1] % 2 == 0 for photo in photos)
    per_call = max(1, KERNELS // len(photos[0].masks))
    groups = [
        group[start : start + per_call]
        for group in (order[:even], order[even:])
        for start in range(0, len(group), per_call)
    ]
    parts = [
        _search(
            [photos[n] for n in group], level, scale, core, most, near.of(group) if near is not None else None
        )
        for group in groups
    ]
    back = torch.argsort(torch.tensor(order))
    return Peaks(*(torch.cat(columns)[back] for columns in zip(*parts, strict=True)))


def _search(
    photos: Sequence[PhotoCells],
    level: MapCells,
    scale: int,
    core: Window | None,
    most: int,
    near: Near | None,
) -> Peaks:
    kernels, masks, middle = _stacked(photos)
    headings = len(photos[0].masks)
    count = masks.sum((1, 2)).clamp(min=1).view(len(photos), headings, 1, 1)
    # A photo may hang over the map's edge; padding by its half lets it.
    pad_y, pad_x = kernels.shape[2] // 2, kernels.shape[3] // 2
    if (
        level.cells.shape[1] + 2 * pad_y < kernels.shape[2]
        or level.cells.shape[2] + 2 * pad_x < kernels.shape[3]
    ):
        return nothing(len(photos), PEAKS)
    total = F.conv2d(level.cells[None], kernels, padding=(pad_y, pad_x))[0]
    under = F.conv2d(level.valid[None, None].float(), masks[:, None], padding=(pad_y, pad_x))[0]
    total, under = (part.view(len(photos), headings, *part.shape[1:]) for part in (total, under))
    reach = count if not most else torch.full_like(count, most)
    score = torch.where(under >= OVERLAP * count, total / (under.clamp(min=1) * reach).sqrt(), -torch.inf)
    rows = torch.arange(score.shape[2]) - pad_y + middle[0]
    columns = torch.arange(score.shape[3]) - pad_x + middle[1]
    north = level.north - rows.double() * level.metres_per_cell
    east = level.west + columns.double() * level.metres_per_cell
    best, heading = score.max(dim=1)
    inside = torch.ones(best.shape, dtype=torch.bool)
    if core is not None:
        # Middles lie on corners of cells, and cores' edges too: rounding must not put one in two, or in none.
        by_row = (north > core.south + ROUNDING_M) & (north <= core.north + ROUNDING_M)
        by_column = (east >= core.west - ROUNDING_M) & (east < core.east - ROUNDING_M)
        inside &= by_row[:, None] & by_column[None]
    if near is not None:
        away = torch.hypot(
            east[None, None] - near.east[:, None, None], north[None, :, None] - near.north[:, None, None]
        )
        best = torch.where(away > near.radius_m, -torch.inf, best)  # NaN is not further
    return _peaks(best, heading, inside, east, north, scale, max(1, round(float(count.max()) ** 0.5 / 4)))


def _peaks(
    best: torch.Tensor,
    heading: torch.Tensor,
    inside: torch.Tensor,
    east: torch.Tensor,
    north: torch.Tensor,
    scale: int,
    radius: int,
) -> Peaks:
    """The largest of the local maxima, within `radius` cells, of best [N, h, w]."""
    around = F.max_pool2d(best[:, None], 2 * radius + 1, stride=1, padding=radius)[:, 0]
    peaks = torch.where((best == around) & inside, best, -torch.inf).flatten(1)
    score, index = peaks.topk(min(PEAKS, peaks.shape[1]), dim=1)
    row, column = index // best.shape[2], index % best.shape[2]
    turn = heading.flatten(1).gather(1, index)
    return Peaks(score, east[column], north[row], turn, torch.full_like(turn, scale))


def _stacked(photos: Sequence[PhotoCells]) -> tuple[torch.Tensor, torch.Tensor, tuple[float, float]]:
    """Kernels [n, C, a, b] and masks [n, a, b], cut to what any holds; their middle in them, in cells."""
    side = max(photo.masks.shape[-1] for photo in photos)
    kernels, masks = [], []
    for photo in photos:
        pad = ((side - photo.masks.shape[-1]) // 2,) * 4
        kernels.append(F.pad(photo.cells, pad))
        masks.append(F.pad(photo.masks, pad))
    mask = torch.cat(masks)
    rows, columns = mask.any(dim=0).any(dim=1).nonzero(), mask.any(dim=0).any(dim=0).nonzero()
    if not len(rows):
        rows = columns = torch.zeros(1, 1, dtype=torch.long)
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    kernel = torch.cat(kernels)[:, :, top:bottom, left:right].contiguous()
    return kernel, mask[:, top:bottom, left:right].float(), (side / 2 - top, side / 2 - left)


def nothing(photos: int, count: int) -> Peaks:
    """Peaks of photos that lie nowhere."""
    empty = torch.zeros(photos, count)
    index = torch.zeros(photos, count, dtype=torch.long)
    return Peaks(torch.full_like(empty, -math.inf), empty.double(), empty.double(), index, index)


def distinct(peaks: Peaks, distance_m: torch.Tensor, count: int) -> list[list[int]]:
    """Which of each photo's peaks lie each more than distance_m [N] from all before it, at most `count`.

    peaks: sorted, the best first; what is no peak is left out.
    """
    finite, places = peaks.score.isfinite().tolist(), torch.stack([peaks.east, peaks.north], dim=2).tolist()
    chosen = []
    for here, places_here, distance in zip(finite, places, distance_m.tolist(), strict=True):
        kept: list[int] = []
        for k, place in enumerate(places_here):
            if len(kept) == count or not here[k]:
                break
            if all(math.dist(place, places_here[other]) > distance for other in kept):
                kept.append(k)
        chosen.append(kept)
    return chosen


def brought_first(peaks: Peaks, chosen: Sequence[int]) -> Peaks:
    """The peaks with each photo's chosen one [N] in the first place, and the first one in its place."""
    index, rows = torch.arange(peaks.score.shape[1]).repeat(len(chosen), 1), torch.arange(len(chosen))
    other = torch.tensor(chosen, dtype=torch.long)
    index[:, 0], index[rows, other] = other, 0
    return Peaks(*(column.gather(1, index) for column in peaks))


def merged(parts: Sequence[Peaks], count: int) -> Peaks:
    """The best of peaks of the same photos on several shards, or at several scales."""
    joined = Peaks(*(torch.cat(columns, dim=1) for columns in zip(*parts, strict=True)))
    order = joined.score.argsort(dim=1, descending=True, stable=True)[:, :count]
    return Peaks(*(column.gather(1, order) for column in joined))
