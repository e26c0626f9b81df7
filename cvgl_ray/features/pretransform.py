"""What is done to an image of a view before the backbone: projection, central crops, headings, mirror images.

A satellite tile and a drone picture have neither heading nor footprint in common. The mean of the features
of several headings and crops depends on neither. Each variant of a picture, one crop at one heading, mirrored
or not, costs one forward of the backbone. Its vector depends on no other variant.

A street panorama is a strip: its columns are azimuths, and turning it rolls it. A satellite tile unrolled
about its centre is such a strip too.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image


@dataclass(frozen=True)
class Projection:
    """An RGB picture -> the model's input [3, *shape] uint8, whose shorter side is brought to `side` px."""

    apply: Callable[[Image.Image], torch.Tensor]
    shape: tuple[int, int]
    side: int


@dataclass(frozen=True)
class Variant:
    """A picture as the backbone sees it once: a central crop, mirrored or not, then turned by `degrees`.

    crop: share of each side, in (0, 1]; degrees: in [0, 360), counter-clockwise, or of a strip the azimuth by
    which it is rolled; projection, field_of_view: as in Pretransform.
    """

    crop: float = 1.0
    degrees: float = 0.0
    mirrored: bool = False
    projection: str = "plane"
    field_of_view: float = 360.0


@dataclass(frozen=True)
class Pretransform:
    """Central crops (fraction of each side, in (0, 1]), 1, 2, 4 or 8 orientations, mirror images or not.

    projection: one of those that `projections` makes; heading: degrees by which plane pictures are turned
    counter-clockwise before they are turned into the orientations; field_of_view: degrees that a panorama
    shows.
    """

    orientations: int = 1
    crops: Sequence[float] = (1.0,)
    flip: bool = False
    projection: str = "plane"
    heading: float = 0.0
    field_of_view: float = 360.0

    @property
    def variants(self) -> list[Variant]:
        """Crop by crop, as taken and then mirrored, each at all headings; one forward per image each.

        Two orientations of a plane picture are 0 and 90 degrees: with rings, half a turn adds little
        (experiments/LOG.md). A strip is rolled by equal parts of the circle: each puts the seam elsewhere.
        """
        plane = self.projection == "plane"
        step = 360 / (max(4, self.orientations) if plane else self.orientations)
        first = self.heading if plane else 0.0
        turns = [round((first + turn * step) % 360, 6) % 360 for turn in range(self.orientations)]
        return [
            Variant(crop, degrees, mirrored, self.projection, self.field_of_view)
            for crop in self.crops
            for mirrored in ((False, True) if self.flip else (False,))
            for degrees in turns
        ]


def by_crop(variants: Iterable[Variant]) -> dict[float, list[Variant]]:
    """A view's variants by their crop, each of which is prepared once."""
    found: dict[float, list[Variant]] = {}
    for variant in variants:
        found.setdefault(variant.crop, []).append(variant)
    return found


def projections(
    data: dict[str, Any], image_size: int | tuple[int, int], crop_fraction: float, interpolation: str
) -> dict[str, Projection]:
    """How an RGB picture becomes the model's input, by the projection's name.

    data: the model's own preprocessing, as timm resolves it. image_size: px of a square input (0: the model's
    own), which makes "plane": the picture resized and cut as the model's data was; or height and width of a
    strip, which make "panorama": the whole picture resized, nothing cut; and "polar": the tile unrolled.
    """
    import timm  # here, as torchvision: they take seconds, which whoever makes no model need not wait
    from torchvision.transforms import Compose

    make = partial(
        timm.data.create_transform, interpolation=interpolation or data["interpolation"], normalize=False
    )
    if isinstance(image_size, tuple):
        # A tile of twice the strip's height has one pixel of radius per row, so that unrolling skips none.
        square = make((3, 2 * image_size[0], 2 * image_size[0]), crop_pct=1.0, crop_mode="center")
        whole = make((3, *image_size), crop_pct=1.0, crop_mode="squash")
        return {
            "panorama": Projection(whole, image_size, max(image_size)),
            "polar": Projection(
                Compose([square, partial(unroll, shape=image_size)]), image_size, 2 * image_size[0]
            ),
        }
    size = image_size or data["input_size"][-1]
    crop = crop_fraction or data["crop_pct"]
    plane = make((3, size, size), crop_pct=crop, crop_mode=data["crop_mode"])
    return {"plane": Projection(plane, (size, size), math.ceil(size / crop))}


def unroll(tile: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """A satellite tile [3, S, S] uint8, north up, as the strip [3, *shape] that a panorama at its centre is.

    The polar transform of Shi et al., NeurIPS 2019 (Spatial-Aware Feature Aggregation), at pixel centres:
    rows are radii, the tile's inscribed circle on top and its centre at the bottom; columns are azimuths,
    clockwise from the seam in the south, since north-aligned panoramas have north in the middle.
    """
    height, width = shape
    radius = 1 - (torch.arange(height)[:, None] + 0.5) / height  # in half-sides
    azimuth = (torch.arange(width)[None, :] + 0.5) * (2 * math.pi / width) - math.pi  # from north
    grid = torch.stack([radius * azimuth.sin(), -radius * azimuth.cos()], dim=-1)[None]
    strip = F.grid_sample(tile[None].float(), grid, padding_mode="border", align_corners=False)
    return strip[0].round().to(torch.uint8)


def around(image: Image.Image, field_of_view: float) -> Image.Image:
    """A panorama that shows part of the circle, in degrees, as a whole strip: in its middle, and repeated.

    A network that pools over the strip then sees nothing but what is there.
    """
    if field_of_view >= 360:
        return image
    whole = max(image.width, round(image.width * 360 / field_of_view))
    columns = (np.arange(whole) - (whole - image.width) // 2) % image.width
    return Image.fromarray(np.asarray(image)[:, columns])


def central_crop(image: Image.Image, fraction: float) -> Image.Image:
    """The middle `fraction` of each side, in (0, 1], at least one pixel."""
    if fraction == 1.0:
        return image
    width, height = (max(1, round(side * fraction)) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def turned(images: torch.Tensor, variant: Variant) -> torch.Tensor:
    """Prepared pictures [B, C, H, W] of the variant's crop, mirrored where it is, at its heading.

    A plane picture is rotated, exactly by multiples of 90 degrees; by others it is resampled with reflected
    borders. A strip is rolled.
    """
    if variant.mirrored:
        images = images.flip(-1)
    if variant.projection == "plane":
        return _rotate(images, variant.degrees)
    return images.roll(int(images.shape[-1] * variant.degrees // 360), dims=-1)


def _rotate(images: torch.Tensor, degrees: float) -> torch.Tensor:
    if degrees % 90 == 0 and (degrees % 180 == 0 or images.shape[-1] == images.shape[-2]):
        return torch.rot90(images, int(degrees // 90) % 4, dims=(-2, -1))
    radians = math.radians(degrees)
    cos, sin = math.cos(radians), math.sin(radians)
    aspect = images.shape[-1] / images.shape[-2]
    matrix = torch.tensor([[cos, -sin / aspect, 0.0], [sin * aspect, cos, 0.0]], device=images.device)
    grid = F.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    grid = grid.to(images.dtype)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
