"""A strip's cells: one row of them, a cell for each azimuth sector.

What rings are to a tile, sectors are to a strip: a panorama and the tile unrolled about the same point show
the same things at the same azimuths, whatever their heights and radii. A sector's cell is the mean of the
frozen network's cells in it, each band of the strip's height by itself, and all bands one after the other.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from cvgl_ray.errors import InputError
from cvgl_ray.features.batches import Batch, decode_batch, embed_batch
from cvgl_ray.features.cell_model import CellModel
from cvgl_ray.features.cell_projection import projected
from cvgl_ray.features.cells import CPU_PIXELS, GPU_PICTURES, WHOLE, Cells
from cvgl_ray.features.preparing import Preparing
from cvgl_ray.features.pretransform import Variant

WRAPPED = 4  # cells of the strip's other end on either side, so that it has no seam


@dataclass(frozen=True)
class Sectors:
    """The cells of a strip of one view: `bands` of its height in each of `count` sectors of the circle.

    projection, field_of_view: as in Variant; sectors that the view does not hold wholly are masked.
    shape: px of the strip, height and width; interpolation: of resizing to it, the model's own where empty.
    """

    count: int
    bands: int
    projection: str
    shape: tuple[int, int]
    interpolation: str = ""
    field_of_view: float = 360.0

    def row_length(self, channels: int) -> int:
        """Numbers per image."""
        return channels * self.bands * self.count

    def parts(self, rows: np.ndarray) -> Cells:
        """Stored rows [N, L] -> cells [N, bands, C, 1, count], masks [1, bands, 1, count]."""
        maps = torch.from_numpy(rows).view(len(rows), self.bands, -1, 1, self.count)
        edges = (np.arange(self.count) + 0.5) * 360 / self.count - 180
        seen = torch.from_numpy(np.abs(edges) + WHOLE * 180 / self.count <= self.field_of_view / 2)
        return Cells(maps, seen.expand(1, self.bands, 1, self.count))

    def cells(self, rows: np.ndarray, stride: int) -> list[Cells]:
        """Stored rows [N, L] -> the cells [N, 1, bands * C, 1, count], in a list as `Variants.cells` has."""
        parts = self.parts(rows)
        return [Cells(parts.maps.flatten(1, 2)[:, None], parts.masks[:, :1])]

    def recipe(self) -> dict[str, Any]:
        """All that a row depends on besides image and model."""
        return {
            "sectors": self.count,
            "bands": self.bands,
            "projection": self.projection,
            "shape": list(self.shape),
            "interpolation": self.interpolation,
            "field_of_view": self.field_of_view,
        }

    @classmethod
    def of(cls, recipe: Mapping[str, Any]) -> "Sectors":
        """The sectors that `recipe` describes."""
        given = {**recipe, "count": recipe["sectors"], "shape": tuple(recipe["shape"])}
        del given["sectors"]
        return cls(**given)

    def variant(self) -> Variant:
        """What is done to an image before the model."""
        return Variant(projection=self.projection, field_of_view=self.field_of_view)


@dataclass(frozen=True)
class StripWork:
    """The cells of each view's strips; directions [c, C]: what they are projected on, None where narrow.

    Raises InputError on construction where the model has no whole number of cells to the strip's sides.
    """

    model: CellModel
    variants: Mapping[str, Sectors]
    preparing: Preparing
    directions: torch.Tensor | None = None

    def __post_init__(self) -> None:
        stride, shape = self.model.stride, self.preparing.shape
        if any(side % stride for side in shape):
            raise InputError(
                f"backbone.image_size is {list(shape)}, and this backbone's cells are {stride} px wide; "
                f"give multiples of {stride}"
            )

    def decoding(self) -> Callable[[Batch], Batch]:
        """See Work."""
        whole = {view: [made.variant()] for view, made in self.variants.items()}
        return partial(decode_batch, preparing=self.preparing, variants=whole)

    def to(self, device: str) -> None:
        """See Work."""
        self.model.to(device)

    def fold(self) -> None:
        """See Work."""
        self.model.fold()

    def __call__(self, batch: Batch, pool: ThreadPoolExecutor | None = None) -> Batch:
        """See Work."""
        return embed_batch(batch, partial(self.rows, sectors=self.variants[batch["view"]], pool=pool))

    def rows(
        self, pixels: np.ndarray, sectors: Sectors, pool: ThreadPoolExecutor | None = None
    ) -> np.ndarray:
        """Prepared strips [n, 1, 3, H, W] uint8 -> rows [n, L] float16, as `Sectors.parts` takes them."""
        strips = torch.from_numpy(pixels[:, 0])
        size = GPU_PICTURES
        if self.model.device.type == "cpu":
            size = max(1, CPU_PIXELS // (strips.shape[-2] * strips.shape[-1]))
        parts = strips.split(size)
        made = pool.map(partial(self._pooled, sectors=sectors), parts) if pool else None
        maps = torch.cat(list(made) if made else [self._pooled(part, sectors) for part in parts])
        whole = torch.ones(1, sectors.bands, 1, sectors.count, dtype=torch.bool)
        rows: np.ndarray = projected(Cells(maps, whole), self.directions).maps.flatten(1).numpy()
        return rows

    @torch.inference_mode()
    def _pooled(self, strips: torch.Tensor, sectors: Sectors) -> torch.Tensor:
        """Strips [n, 3, H, W] -> [n, bands, C, 1, count] float16."""
        edge = WRAPPED * self.model.stride
        around = torch.cat([strips[..., -edge:], strips, strips[..., :edge]], dim=-1)
        cells = F.normalize(self.model(around)[..., WRAPPED:-WRAPPED], dim=1)
        pooled = F.adaptive_avg_pool2d(cells, (sectors.bands, sectors.count))
        return pooled.permute(0, 2, 1, 3)[:, :, :, None].half()
