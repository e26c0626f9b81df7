"""A flight over a map whose cells lie on disk: searched shard by shard and some photos at a time.

Whatever the sizes are, memory holds the cells of one shard and of one batch of photos. A small map is one
shard, and is read once.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import torch

from cvgl_ray.alignment import flight
from cvgl_ray.alignment.flight import Found, Levels, Photos
from cvgl_ray.alignment.photo_adapter import CellAdapter
from cvgl_ray.alignment.photo_search import PEAKS, Peaks, merged, nothing
from cvgl_ray.alignment.scales import Scale
from cvgl_ray.localization.cell_files import MapCellFiles, PhotoCellFiles
from cvgl_ray.localization.priors import Allowed
from cvgl_ray.maps.frame import Window

Value = TypeVar("Value")

SHARD_CELLS = 512  # of the finest resolution, per side of a shard
SAMPLED_PHOTOS = 48  # that means and principal directions are taken from
SAMPLED_CELLS = 20_000  # of each size of photo, and of each resolution of the map
BATCH_BYTES = 512 * 2**20  # of photos' cells that are held at a time


class Shard(NamedTuple):
    """A part of the map. core: photos whose middle lies in it are its own; window: with a photo around."""

    core: Window
    window: Window


class _Last(Generic[Value]):
    """The last thing that was made; it does not travel to other processes."""

    def __init__(self) -> None:
        self._held: tuple[Hashable, Value] | None = None

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """What was made for this key, or is made now, after the last one is let go: both may not fit."""
        if self._held is None or self._held[0] != key:
            self._held = None
            self._held = key, make()
        return self._held[1]

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Last, ()


@dataclass(frozen=True)
class Survey:
    """What is searched: photos by the digests of their files, on a map."""

    digests: tuple[str, ...]
    photo_files: PhotoCellFiles
    map_files: MapCellFiles
    scales: tuple[Scale, ...]
    allowed: Allowed
    shards: tuple[Shard, ...]
    most: int  # cells of a photo, see flight.full_cells
    batch: int  # photos held at a time
    _photos_held: "_Last[Photos]" = field(default_factory=lambda: _Last())
    _levels_held: "_Last[Levels]" = field(default_factory=lambda: _Last())

    def of(self, rows: slice) -> "Survey":
        """Of some of the photos."""
        allowed = self.allowed.of(rows)
        return replace(self, digests=self.digests[rows], allowed=allowed, _photos_held=_Last())

    def photos(self, rows: slice) -> Photos:
        """The cells of some photos, in the headings that are allowed; the last ones are kept."""
        return self._photos_held.get((rows.start, rows.stop), partial(self._photos, rows))

    def _photos(self, rows: slice) -> Photos:
        allowed = self.allowed.of(rows)
        read = self.photo_files.read(self.digests[rows])
        return {side: allowed.turned(photos) for side, photos in read.items()}

    def levels(self, shard: Shard) -> Levels:
        """The cells of a shard's window; the last shard's are kept."""
        return self._levels_held.get(shard, partial(self._levels, shard))

    def _levels(self, shard: Shard) -> Levels:
        sizes = sorted({scale.metres_per_pixel for scale in self.scales})
        return {size: self.map_files.level(size, shard.window) for size in sizes}

    @property
    def batches(self) -> list[slice]:
        """The photos, so many at a time."""
        starts = range(0, len(self.digests), self.batch)
        return [slice(start, min(start + self.batch, len(self.digests))) for start in starts]


def shard_peaks(survey: Survey, shard: Shard, adapter: CellAdapter) -> list[Peaks]:
    """The peaks of all photos on one shard, by scale."""
    levels = survey.levels(shard)
    parts = []
    for rows in survey.batches:
        allowed = survey.allowed.of(rows)
        found = flight.shard_peaks(
            survey.photos(rows), levels, survey.scales, adapter, shard.core, allowed.near, survey.most
        )
        parts.append(allowed.scaled(found))
    return [stacked(batches) for batches in zip(*parts, strict=True)]


def shard_pairs(survey: Survey, shard: Shard, adapter: CellAdapter, found: Found) -> torch.Tensor:
    """Differences [n, C] of cells that lie on each other, of the sure photos of a shard."""
    levels = survey.levels(shard)
    return torch.cat(
        [
            flight.shard_pairs(
                survey.photos(rows), levels, survey.scales, adapter, rows_of(found, rows), shard.core
            )
            for rows in survey.batches
        ]
    )


def together(parts: Sequence[Sequence[Peaks]]) -> list[Peaks]:
    """The peaks of several shards by scale."""
    return [merged(by_shard, PEAKS) for by_shard in zip(*parts, strict=True)]


def samples(survey: Survey) -> list[tuple[str, torch.Tensor]]:
    """Cells [n, C] of each size of photo and each resolution of the map, with the names of their means.

    They are the same however the map is cut into shards.
    """
    step = -(-len(survey.digests) // SAMPLED_PHOTOS)
    found = flight.cell_samples(survey.photo_files.read(survey.digests[::step]), {})
    sizes = sorted({scale.metres_per_pixel for scale in survey.scales})
    return found + [
        (flight.mean_name("map", size), survey.map_files.sample(size, SAMPLED_CELLS)) for size in sizes
    ]


def cut(bounds: Window, finest_cell_m: float, reach_m: float, side_cells: int = SHARD_CELLS) -> list[Shard]:
    """Shards of a map, row by row from the north-west; one where the map is little larger than one.

    reach_m: from a photo's middle to its farthest corner, at its largest scale.
    """
    side = max(side_cells * finest_cell_m, 2 * reach_m)
    rows, columns = (max(1, round(length / side)) for length in (bounds.height_m, bounds.width_m))
    # A photo's middle may lie beyond the map: the outer shards take what is there.
    outer = bounds.grown(reach_m)
    east = _edges(outer.west, bounds.width_m, bounds.west, columns, outer.east)
    north = _edges(outer.south, bounds.height_m, bounds.south, rows, outer.north)
    cores = [
        Window(east[column], north[row], east[column + 1], north[row + 1])
        for row in reversed(range(rows))
        for column in range(columns)
    ]
    return [Shard(core, core.grown(reach_m)) for core in cores]


def _edges(first: float, length: float, start: float, count: int, last: float) -> list[float]:
    return [first, *(start + length * step / count for step in range(1, count)), last]


def photos_per_batch(cells: Photos) -> int:
    """How many photos like these are held at a time."""
    held = list(cells.values())
    size = sum(photo.cells.nbytes for photos in held for photo in photos) / max(1, len(held[0]))
    return max(1, math.floor(BATCH_BYTES / size))


def rows_of(found: Found, rows: slice) -> Found:
    """What was found of some of the photos."""
    peaks = Peaks(*(column[rows] for column in found.peaks))
    return Found(peaks, found.lead[rows], found.confidence[rows], found.chance)


def stacked(batches: Sequence[Peaks]) -> Peaks:
    """The peaks of all photos from those of some; where little fits on a shard, each may have fewer."""
    wide = [merged([peaks, nothing(len(peaks.score), PEAKS)], PEAKS) for peaks in batches]
    return Peaks(*(torch.cat(columns) for columns in zip(*wide, strict=True)))
