"""Smooth random fields as worlds, whose cells at any heading, width and position are known."""

import math
from functools import cache

import torch
import torch.nn.functional as F

from cvgl_ray.features.cells import Cells

PLACES, SIDE, SIDES, HEADINGS = 15, 8, (10, 8, 6, 5), [0.0, 90.0, 180.0, 270.0]


class Field:
    """A smooth random field over the plane; a picture of it is a square, turned and moved."""

    def __init__(self, seed, channels=12):
        generator = torch.Generator().manual_seed(seed)
        self.channels = channels
        self.waves = torch.randn(2, channels * 16, generator=generator) * 9.0  # for a reference of side 1
        self.phases = torch.rand(channels * 16, generator=generator) * 2 * math.pi

    def cells(self, side, width, angle=0.0, row=0.0, column=0.0):
        """Unit cells [channels, side, side] of the square of this width about (row, column).

        Its top points `angle` degrees counter-clockwise from up.
        """
        steps = ((torch.arange(side) + 0.5) / side - 0.5) * width
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        ground = torch.stack([column + cos * x + sin * y, row - sin * x + cos * y], dim=-1)
        values = (ground @ self.waves + self.phases).cos().view(side, side, self.channels, 16).sum(-1)
        return F.normalize(values.permute(2, 0, 1), dim=0)


def whole(variants, side):
    return torch.ones(1, variants, side, side, dtype=torch.bool)


@cache
def scene(noise, turned=90.0, ratio=1.33, channels=12, places=PLACES):
    """Cells of places seen twice, the queries turned and wider, each view with strong noise of its own.

    The noise lies in three directions, the same everywhere, as what a network says of light and sensor.
    """
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(channels, 3, generator=generator))[0]

    def seen(cells):
        strength = noise * torch.randn(*cells.shape[:-3], 3, *cells.shape[-2:], generator=generator)
        return F.normalize(cells + torch.einsum("cd,...dyx->...cyx", directions, strength), dim=-3)

    fields = [Field(seed, channels) for seed in range(places)]
    query = torch.stack([torch.stack([f.cells(SIDE, ratio, turned - h) for h in HEADINGS]) for f in fields])
    references = [torch.stack([f.cells(side, 1.0) for f in fields])[:, None] for side in SIDES]
    return Cells(seen(query), whole(4, SIDE)), [
        Cells(seen(x), whole(1, s)) for x, s in zip(references, SIDES, strict=True)
    ]
