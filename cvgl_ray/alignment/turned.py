"""A photo at one size, turned to several headings: what its cells are computed of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from cvgl_ray.alignment.map_cells import Forward, filled

WHOLE = 0.9  # share of a cell's pixels that must be valid
BATCH_PX = 4 * 224 * 224  # taken at a time; more outgrow a CPU's cache, see features.backbone


@dataclass(frozen=True)
class PhotoCells:
    """One photo's cells at one size in several headings.

    cells [headings, C, S, S] float16; masks [headings, S, S] bool: which cells lie on the photo. The middle
    of the S x S cells is the photo's middle.
    """

    cells: torch.Tensor
    masks: torch.Tensor


def photo_cells(
    rgb: np.ndarray,
    valid: np.ndarray,
    side_px: int,
    headings: Sequence[float],
    forward: Forward,
    stride: int,
) -> PhotoCells:
    """Cells of a photo, [H, W, 3] uint8, whose valid pixels [H, W] bool are brought to side_px^2.

    headings: degrees clockwise from north that the photo's top looks to; in the turned picture north is up.
    """
    pictures, masks = turned(rgb, valid, side_px, headings, stride)
    step = max(1, BATCH_PX // pictures.shape[-1] ** 2)
    cells = torch.cat([forward(part).half() for part in pictures.split(step)])
    return PhotoCells(cells, F.avg_pool2d(masks.float()[:, None], stride)[:, 0] >= WHOLE)


def turned(
    rgb: np.ndarray, valid: np.ndarray, side_px: int, headings: Sequence[float], stride: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures [headings, 3, P, P] uint8 and masks [headings, P, P] bool, P the least multiple of the stride.

    Beyond the photo they have its mean colour.
    """
    scale = side_px / math.sqrt(max(1, int(valid.sum())))
    height, width = (max(1, round(length * scale)) for length in valid.shape)
    picture = Image.fromarray(filled(rgb, valid)).resize((width, height), Image.Resampling.BICUBIC)
    mask = Image.fromarray(valid).convert("L").resize((width, height), Image.Resampling.BILINEAR)
    small = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
    inside = torch.from_numpy(np.array(mask)) > 127
    side = _canvas(inside, stride)
    mean = small[:, inside].mean(dim=1).view(3, 1, 1) if inside.any() else torch.full((3, 1, 1), 128.0)
    layers = torch.cat([(small - mean) * inside, inside[None].float()])
    angles = torch.tensor(headings, dtype=torch.float32).deg2rad()
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    # Each row takes a point of the turned picture, in halves of it, to halves of the photo.
    matrix = torch.stack(
        [
            torch.stack([cos * side / width, sin * side / width, zero], dim=1),
            torch.stack([-sin * side / height, cos * side / height, zero], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(matrix, [len(angles), 4, side, side], align_corners=False)
    out = F.grid_sample(layers.expand(len(angles), -1, -1, -1), grid, align_corners=False)
    return (out[:, :3] + mean).round().clamp(0, 255).to(torch.uint8), out[:, 3] > 0.5


def _canvas(inside: torch.Tensor, stride: int) -> int:
    """Px of the square that holds the valid pixels in every heading, about the picture's middle."""
    rows, columns = torch.nonzero(inside, as_tuple=True)
    if not len(rows):
        return stride
    height, width = inside.shape
    radius = torch.hypot(rows + 0.5 - height / 2, columns + 0.5 - width / 2).max()
    return max(1, math.ceil(2 * float(radius) / stride)) * stride
