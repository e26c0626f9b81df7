"""Cells: a frozen model's map of a picture, [C, n, n], at chosen sizes and headings.

One vector an image throws away where things lie. Its cells keep it: two of them can be laid on each other.
Cells do not turn with the picture, so each heading costs a forward; so does each size (cells a side).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from cvgl_ray.features.cell_model import CellModel

WHOLE = 0.95  # share of a cell that must lie on the picture; turning blurs the border, so not quite all
CPU_PIXELS = 4 * 224 * 224  # taken at a time, see features.backbone
GPU_PICTURES = 64


@dataclass(frozen=True)
class Cells:
    """Cells of N images in V variants (headings, or one).

    maps [N, V, C, h, w] of any float type; masks [N, V, h, w] or [1, V, h, w] bool: which cells lie wholly on
    the picture, the same for all images where its first dimension is 1.
    """

    maps: torch.Tensor
    masks: torch.Tensor

    def __len__(self) -> int:
        return len(self.maps)

    @property
    def strip(self) -> bool:
        """Whether they are a strip's, one row of azimuth sectors, which turning the camera rolls."""
        return self.maps.shape[-2] == 1 < self.maps.shape[-1]

    @property
    def headings(self) -> int:
        """Into which they can be turned."""
        return self.maps.shape[-1] if self.strip else self.maps.shape[1]

    def of(self, rows: np.ndarray | slice) -> "Cells":
        """The cells of some images."""
        return Cells(self.maps[rows], self.masks if len(self.masks) == 1 else self.masks[rows])


@torch.inference_mode()
def cells_of(
    model: CellModel,
    pictures: torch.Tensor,
    side: int,
    headings: Sequence[float] = (0.0,),
    valid: torch.Tensor | None = None,
) -> Cells:
    """Cells of side x side of square pictures [N, 3, S, S] uint8, turned counter-clockwise by `headings`.

    headings: degrees; valid [N, S, S] bool: which pixels count, all where None. The maps are float16 on the
    CPU. Raises InputError for cells that are not finite.
    """
    px = side * model.stride
    step = max(1, CPU_PIXELS // px**2) if model.device.type == "cpu" else GPU_PICTURES
    maps = torch.empty(len(pictures), len(headings), model.channels, side, side, dtype=torch.float16)
    for start in range(0, len(pictures), step):
        part = resized(pictures[start : start + step].to(model.device), px)
        for number, heading in enumerate(headings):
            maps[start : start + step, number] = model(turn(part, heading)).half()
    pixels = torch.ones(1, 1, px, px) if valid is None else resized(valid[:, None].float(), px)
    masks = torch.stack([cell_mask(turn(pixels, heading, "zeros"), side) for heading in headings], dim=1)
    return Cells(maps, masks)


def resized(images: torch.Tensor, px: int) -> torch.Tensor:
    """Pictures [N, C, S, S] in [0, 255] as float of px a side, antialiased where they shrink."""
    if images.shape[-1] == px == images.shape[-2]:
        return images.float()
    grown = F.interpolate(images.float(), size=(px, px), mode="bicubic", antialias=True, align_corners=False)
    return grown.clamp(0, 255)


def turn(images: torch.Tensor, degrees: float, beyond: str = "reflection") -> torch.Tensor:
    """Square pictures [N, C, S, S], their content turned counter-clockwise; beyond: padding of the border."""
    if degrees % 90 == 0:
        return torch.rot90(images, int(degrees // 90) % 4, dims=(-2, -1))
    angle = torch.tensor(degrees).deg2rad()
    cos, sin = float(angle.cos()), float(angle.sin())
    matrix = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]], device=images.device, dtype=images.dtype)
    grid = F.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode=beyond, align_corners=False)


def cell_mask(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """Which cells are covered by valid pixels [N, 1, S, S] in [0, 1]: [N, side, side] bool."""
    return F.adaptive_avg_pool2d(pixels, side)[:, 0] >= WHOLE
