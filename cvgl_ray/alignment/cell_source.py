"""Where cells come from: rows are asked for, so that the cells of a set need not fit into memory."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from cvgl_ray.features.cells import Cells


class Source(Protocol):
    """Cells of one view's images."""

    @property
    def held(self) -> Sequence[Cells] | None:
        """All of them, as `of` gives them, where they lie in memory anyway."""
        ...

    def __len__(self) -> int: ...

    def of(self, rows: np.ndarray) -> list[Cells]:
        """Those of some images [n], in the order asked: of references one per width, of queries one."""
        ...


@dataclass(frozen=True)
class Held:
    """Cells in memory, one per width."""

    held: Sequence[Cells]

    def __len__(self) -> int:
        return len(self.held[0])

    def of(self, rows: np.ndarray) -> list[Cells]:
        """See Source."""
        return [cells.of(rows) for cells in self.held]


@dataclass(frozen=True)
class Picked:
    """Some images [n] of a source."""

    source: Source
    rows: np.ndarray

    @property
    def held(self) -> None:
        """See Source: what is read does not lie in memory."""
        return None

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, rows: np.ndarray) -> list[Cells]:
        """See Source."""
        return self.source.of(self.rows[rows])


def first_of(source: Source) -> list[Cells]:
    """The first image's cells, which tell the shapes of all."""
    return source.of(np.arange(1))


def row_bytes(source: Source) -> int:
    """Of one image's cells."""
    return sum(cells.maps.numel() * cells.maps.element_size() for cells in first_of(source))


def joined(parts: Iterable[list[Cells]], count: int) -> list[Cells]:
    """Cells of `count` images, part after part; besides the whole only one part is held at a time."""
    maps: list[torch.Tensor] = []
    masks: list[list[torch.Tensor]] = []
    start = 0
    for part in parts:
        if not maps:
            maps = [cells.maps.new_empty((count, *cells.maps.shape[1:])) for cells in part]
        for whole, cells in zip(maps, part, strict=True):
            whole[start : start + len(cells)] = cells.maps
        masks.append([cells.masks for cells in part])
        start += len(part[0])
    return [Cells(whole, _one_or_each(same)) for whole, *same in zip(maps, *masks, strict=True)]


def _one_or_each(masks: Sequence[torch.Tensor]) -> torch.Tensor:
    """One mask where all images share it, else a mask per image."""
    shared = all(len(mask) == 1 and torch.equal(mask, masks[0]) for mask in masks)
    return masks[0] if shared else torch.cat(list(masks))
