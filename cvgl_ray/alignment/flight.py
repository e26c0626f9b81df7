"""A flight on a map: search, learn from the photos that are sure, search again. One shard or many.

`Photos` are the flight, `Levels` a map or a shard of one. `shard_peaks` and `shard_pairs` run where a shard's
cells lie; all else takes what they return.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from cvgl_ray.alignment import confidence
from cvgl_ray.alignment.map_cells import MapCells
from cvgl_ray.alignment.photo_adapter import CellAdapter, cells_of_map, cells_of_photo, taught, with_principal
from cvgl_ray.alignment.photo_search import Near, Peaks, merged, search
from cvgl_ray.alignment.scales import Scale
from cvgl_ray.alignment.turned import PhotoCells
from cvgl_ray.maps.frame import Window

Photos = dict[int, list[PhotoCells]]  # by side in px (scales.photo_sides), one per photo
Levels = dict[float, MapCells]  # by metres per pixel (scales.resolutions)

APART_SIDES = 0.5  # peaks less than so many of the photo's sides apart are one place
SURE = 0.8  # confidence from which on a photo teaches


class Found(NamedTuple):
    """Where N photos lie: their best peaks, sorted.

    lead, confidence: [N], see the module confidence. chance: the lead that a wrong peak has on average.
    """

    peaks: Peaks
    lead: torch.Tensor
    confidence: torch.Tensor
    chance: float


def mean_name(kind: str, size: float) -> str:
    """The adapter's name of a view's mean: "photo" and a side in px, or "map" and metres per pixel."""
    return f"{kind}/{size}"


def shard_peaks(
    photos: Photos,
    levels: Levels,
    scales: Sequence[Scale],
    adapter: CellAdapter,
    core: Window | None = None,
    near: Near | None = None,
    most: int = 0,
) -> list[Peaks]:
    """The peaks of all photos on one shard, by scale; only photos whose middle lies in `core` count.

    near: see photo_search.search; most: `full_cells` of the flight where these are some of its photos.
    """
    most = most or full_cells(photos)
    prepared: dict[int, list[PhotoCells]] = {}
    maps: dict[float, MapCells] = {}
    found = []
    for number, (resolution, side) in enumerate(scales):
        if side not in prepared:
            prepared[side] = [adapter.of_photo(photo, mean_name("photo", side)) for photo in photos[side]]
        if resolution not in maps:
            maps[resolution] = adapter.of_map(levels[resolution], mean_name("map", resolution))
        found.append(search(prepared[side], maps[resolution], number, core, most, near))
    return found


def full_cells(photos: Photos) -> int:
    """Cells that a photo of the flight has at its largest size: the median over photos."""
    return int(torch.tensor([int(photo.masks.sum((1, 2)).max()) for photo in photos[max(photos)]]).median())


def decide(by_scale: Sequence[Peaks], scales: Sequence[Scale]) -> Found:
    """The best pose of each photo among its peaks, by scale and merged over shards, and how sure it is."""
    peaks = merged(by_scale, sum(part.score.shape[1] for part in by_scale))
    scores = confidence.apart(peaks, apart_m(peaks, scales))
    lead, chance = confidence.leads(scores), confidence.chance_lead(scores)
    return Found(peaks, lead, confidence.confidence(lead, chance), chance)


def apart_m(peaks: Peaks, scales: Sequence[Scale]) -> torch.Tensor:
    """How far from each other two peaks of a photo are two places, in metres: [N]."""
    sides = torch.tensor([scale.side_m for scale in scales])
    return APART_SIDES * sides[peaks.scale[:, 0]]


def shard_pairs(
    photos: Photos,
    levels: Levels,
    scales: Sequence[Scale],
    adapter: CellAdapter,
    found: Found,
    core: Window | None = None,
) -> torch.Tensor:
    """Differences photo - map [n, C] of centred cells that lie on each other, of a shard's sure photos."""
    parts = [torch.zeros(0, len(adapter.attenuation))]
    for number in torch.nonzero(found.confidence >= SURE).flatten().tolist():
        east, north = float(found.peaks.east[number, 0]), float(found.peaks.north[number, 0])
        if core is not None and not (core.west <= east < core.east and core.south < north <= core.north):
            continue
        resolution, side = scales[int(found.peaks.scale[number, 0])]
        photo, level = photos[side][number], levels[resolution]
        heading = int(found.peaks.heading[number, 0])
        cells, under = _laid(photo.cells[heading], photo.masks[heading], level, east, north)
        parts.append(
            adapter.centred(cells, mean_name("photo", side))
            - adapter.centred(under, mean_name("map", resolution))
        )
    return torch.cat(parts)


def _laid(
    cells: torch.Tensor, mask: torch.Tensor, level: MapCells, east: float, north: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cells of a photo and of the map under it, [n, C] each, where both are valid."""
    half = mask.shape[-1] / 2
    top = math.floor((level.north - north) / level.metres_per_cell - half + 0.5)
    left = math.floor((east - level.west) / level.metres_per_cell - half + 0.5)
    rows, columns = torch.nonzero(mask, as_tuple=True)
    y, x = rows + top, columns + left
    height, width = level.valid.shape
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    inside[inside.clone()] &= level.valid[y[inside], x[inside]]
    return cells[:, rows[inside], columns[inside]].T, level.cells[:, y[inside], x[inside]].T


def learn(
    adapter: CellAdapter,
    differences: torch.Tensor,
    samples: Sequence[tuple[str, torch.Tensor]],
    channels: int,
) -> CellAdapter:
    """The adapter after one M-step. samples: see `cell_samples`."""
    return with_principal(taught(adapter, differences), samples, channels)


def cell_samples(photos: Photos, levels: Levels) -> list[tuple[str, torch.Tensor]]:
    """Cells [n, C] of each size of photo and each resolution of the map, with the names of their means."""
    of_photos = [
        (
            mean_name("photo", side),
            torch.cat([cells_of_photo(photo, max(64, 20_000 // len(held))) for photo in held]),
        )
        for side, held in photos.items()
    ]
    return of_photos + [(mean_name("map", key), cells_of_map(level)) for key, level in levels.items()]
