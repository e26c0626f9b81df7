"""Smooth random fields as worlds, whose cells at any heading, width and position are known."""

import math

import torch
import torch.nn.functional as F


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
