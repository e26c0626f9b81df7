"""What makes cells of photos and of a map comparable: a mean per view and an attenuation, both label-free."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from cvgl_ray.alignment.map_cells import MapCells
from cvgl_ray.alignment.turned import PhotoCells
from cvgl_ray.em.attenuation import pair_attenuation

CHANNELS = 32  # that a search compares
SAMPLE = 20_000  # cells that the principal directions are taken from


@dataclass(frozen=True)
class CellAdapter:
    """Frozen cell x [C] -> P A n(x - m), normalised: m its view's mean, n to unit length.

    means: by name, [C] each: "photo/160" of photos of 160 px, "map/0.8" of the map at 0.8 metres per pixel.
    attenuation A [C, C] is the identity until the flight has taught it; projection P [q, C] keeps the cells'
    principal directions.
    """

    means: dict[str, torch.Tensor]
    attenuation: torch.Tensor
    projection: torch.Tensor

    def of_map(self, level: MapCells, name: str) -> MapCells:
        """The map's cells as they are compared, [q, h, w] float32, zero where not valid."""
        cells = self._apply(level.cells[None], name)[0]
        return replace(level, cells=cells * level.valid)

    def of_photo(self, photo: PhotoCells, name: str) -> PhotoCells:
        """A photo's cells as they are compared, [headings, q, S, S] float32, zero where not valid."""
        return PhotoCells(self._apply(photo.cells, name) * photo.masks[:, None], photo.masks)

    def centred(self, rows: torch.Tensor, name: str) -> torch.Tensor:
        """n(x - m) of cells [n, C], float32: what the attenuation is fitted to."""
        return F.normalize(rows.float() - self.means[name], dim=1)

    def _apply(self, cells: torch.Tensor, name: str) -> torch.Tensor:
        rows = self.centred(cells.permute(0, 2, 3, 1).flatten(0, 2), name)
        rows = F.normalize(rows @ (self.projection @ self.attenuation).T, dim=1)
        return rows.view(len(cells), *cells.shape[2:], -1).permute(0, 3, 1, 2).contiguous()


def frozen_adapter(
    means: dict[str, torch.Tensor], samples: Iterable[tuple[str, torch.Tensor]], channels: int = CHANNELS
) -> CellAdapter:
    """The adapter before any adaptation. samples: names of `means`, and cells [n, C] of each."""
    width = len(next(iter(means.values())))
    adapter = CellAdapter(means, torch.eye(width), torch.eye(width))
    return with_principal(adapter, samples, channels)


def with_principal(
    adapter: CellAdapter, samples: Iterable[tuple[str, torch.Tensor]], channels: int = CHANNELS
) -> CellAdapter:
    """The adapter whose projection keeps the principal directions of attenuated cells."""
    rows = torch.cat([adapter.centred(cells, name) for name, cells in samples]) @ adapter.attenuation.T
    rows = F.normalize(rows, dim=1).double()
    vectors = torch.linalg.eigh(rows.T @ rows).eigenvectors.flip(1)[:, :channels]
    return replace(adapter, projection=vectors.T.float().contiguous())


def taught(adapter: CellAdapter, differences: torch.Tensor, shrinkage: float = 0.5) -> CellAdapter:
    """The adapter that attenuates how photos and map differ where they show the same ground.

    differences: photo - map, [n, C], of centred cells that lie on each other. See em.attenuation.
    """
    directions, factors = pair_attenuation(differences, shrinkage, differences.shape[1])
    weak = directions.T * (1 - factors) @ directions
    return replace(adapter, attenuation=torch.eye(differences.shape[1]) - weak)


def cells_of_map(level: MapCells, most: int = SAMPLE) -> torch.Tensor:
    """Up to `most` valid cells [n, C] of a map, evenly spaced."""
    return _spaced(level.cells[:, level.valid].T, most)


def cells_of_photo(photo: PhotoCells, most: int = SAMPLE) -> torch.Tensor:
    """Up to `most` valid cells [n, C] of a photo, evenly spaced over its headings."""
    return _spaced(photo.cells.permute(0, 2, 3, 1)[photo.masks], most)


def _spaced(rows: torch.Tensor, most: int) -> torch.Tensor:
    return rows[:: max(1, -(-len(rows) // most))].float()
