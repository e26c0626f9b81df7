"""A data set's cells as a training asks for them: in the object store, or read from disk row by row."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
import torch

from cvgl_ray.alignment.cell_source import Source, first_of
from cvgl_ray.distributed.cell_server import asked, start_server
from cvgl_ray.features.cell_stores import CellStores
from cvgl_ray.features.cells import Cells

# Maps and masks of cells as NumPy's arrays, which processes share unread; bfloat16, which it lacks, as int16.
Plain = tuple[np.ndarray, np.ndarray]


def plain(cells: Cells) -> Plain:
    """Cells as arrays, for the object store."""
    maps = cells.maps.view(torch.int16) if cells.maps.dtype == torch.bfloat16 else cells.maps
    return maps.numpy(), cells.masks.numpy()


def cells_of(arrays: Plain) -> Cells:
    """Cells that look at arrays, which may be another process's too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of arrays that cannot be written, which nobody does
        maps, masks = (torch.from_numpy(array) for array in arrays)
    return Cells(maps.view(torch.bfloat16) if maps.dtype == torch.int16 else maps, masks)


@dataclass(frozen=True)
class PutCells:
    """A source's cells in the object store, once per node; count: of images."""

    there: ray.ObjectRef
    count: int

    @classmethod
    def of_all(cls, source: Source) -> "PutCells":
        """All that a source has."""
        return cls(ray.put([plain(cells) for cells in source.of(np.arange(len(source)))]), len(source))

    @property
    def held(self) -> list[Cells]:
        """See Source."""
        return [cells_of(arrays) for arrays in ray.get(self.there)]

    def __len__(self) -> int:
        return self.count

    def of(self, rows: np.ndarray) -> list[Cells]:
        """See Source."""
        return [cells.of(rows) for cells in self.held]


@dataclass(frozen=True)
class StoredCells:
    """Cells on disk; server: who reads them where this node does not see the disk, see cell_server."""

    stores: CellStores
    view: str
    digests: Sequence[str]
    server: Any = None

    @property
    def held(self) -> None:
        """See Source: what is read does not lie in memory."""
        return None

    def __len__(self) -> int:
        return len(self.digests)

    def of(self, rows: np.ndarray) -> list[Cells]:
        """See Source."""
        wanted = [self.digests[row] for row in rows]
        if self.server is None or self.stores.stored(self.view, wanted):
            return self.stores.cells(self.view, self.stores.read(self.view, wanted))
        read = asked(self.server.call.remote("read", self.view, wanted))
        return self.stores.cells(self.view, read)


def sources_of(stores: CellStores, ids_by_view: Mapping[str, Sequence[str]], memory: float) -> list[Source]:
    """The cells of some images of each view, in the order of the views.

    In the object store where those of all views take no more than `memory` bytes, as stored and in float;
    else processes read them where they lie. Raises InputError for an image that has none.
    """
    reader, found = CellStores(stores.stores, {}), []  # without names, since it travels
    for view, ids in ids_by_view.items():
        stores.check(view, ids)
        found.append(StoredCells(reader, view, [stores.digests[view][name] for name in ids]))
    numbers = sum(len(one) * sum(cells.maps.numel() for cells in first_of(one)) for one in found)
    if numbers * (2 + 4) <= memory:
        return [PutCells.of_all(one) for one in found]
    server = start_server(reader)
    return [replace(one, server=server) for one in found]
