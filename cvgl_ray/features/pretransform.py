"""What is done to an image of a view before the backbone: central crops, headings, mirror images.

A satellite tile and a drone picture share no heading and no footprint; averaging the feature over several
of both makes it insensitive to either. Each variant costs one forward of the backbone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image


@dataclass(frozen=True)
class Pretransform:
    """Central crops (share of each side, in (0, 1]), 1, 2, 4 or 8 orientations, mirror images or not."""

    orientations: int = 1
    crops: Sequence[float] = (1.0,)
    flip: bool = False

    @property
    def forwards(self) -> int:
        """Backbone forwards an image."""
        return self.orientations * len(self.crops) * (2 if self.flip else 1)


def central_crop(image: Image.Image, share: float) -> Image.Image:
    """The middle `share` of each side, in (0, 1], at least one pixel."""
    if share == 1.0:
        return image
    width, height = (max(1, round(side * share)) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def orient(images: torch.Tensor, orientations: int, flip: bool) -> Iterator[torch.Tensor]:
    """Yield [B, C, H, W] once for each heading, then the same mirrored where `flip` is set.

    Two orientations are 0 and 90 degrees: with rings, half a turn adds little (experiments/LOG.md).
    Multiples of 90 degrees are exact; the others are resampled with reflected borders.
    """
    for mirrored in (images, images.flip(-1)) if flip else (images,):
        for turn in range(orientations):
            yield _rotate(mirrored, turn * 360 / max(4, orientations))


def _rotate(images: torch.Tensor, degrees: float) -> torch.Tensor:
    if degrees % 90 == 0 and (degrees % 180 == 0 or images.shape[-1] == images.shape[-2]):
        return torch.rot90(images, int(degrees // 90), dims=(-2, -1))
    radians = math.radians(degrees)
    cos, sin = math.cos(radians), math.sin(radians)
    aspect = images.shape[-1] / images.shape[-2]
    matrix = torch.tensor([[cos, -sin / aspect, 0.0], [sin * aspect, cos, 0.0]], device=images.device)
    grid = F.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    grid = grid.to(images.dtype)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
