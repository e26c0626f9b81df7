"""A drone's photo: a pinhole camera with a heading and a tilt, over a world with bare ground below."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from cvgl_ray.synthetic.camera import hazy, shade
from cvgl_ray.synthetic.fields import FloatField
from cvgl_ray.synthetic.rays import march
from cvgl_ray.synthetic.sensor import Lit, Picture, develop
from cvgl_ray.synthetic.world import World

BLUR_PX = 0.5  # of the lens


@dataclass(frozen=True)
class View:
    """A camera that looks down, tilted toward where the image's top points."""

    position: tuple[float, float, float]  # metres: east, south, up
    heading: float  # radians, of the image's top, clockwise from north
    tilt: float  # radians between the camera's axis and straight down
    field_of_view: float  # radians, of the image's width
    size: tuple[int, int]  # px: width, height

    @property
    def focal_px(self) -> float:
        """Distance of the image plane, in pixels."""
        return self.size[0] / 2 / float(np.tan(self.field_of_view / 2))

    def directions(self, cols: FloatField, rows: FloatField) -> FloatField:
        """Rays [3, ...] (east, south, up) through points of the image, in pixels from its upper left corner.

        Their length is such that the component along the camera's axis is 1.
        """
        ahead = np.array([np.sin(self.heading), -np.cos(self.heading), 0.0])
        right = np.array([np.cos(self.heading), np.sin(self.heading), 0.0])
        down = np.array([0.0, 0.0, -1.0])
        axis = np.cos(self.tilt) * down + np.sin(self.tilt) * ahead
        top = np.cos(self.tilt) * ahead - np.sin(self.tilt) * down
        u = (np.asarray(cols, np.float64) - self.size[0] / 2) / self.focal_px
        v = (self.size[1] / 2 - np.asarray(rows, np.float64)) / self.focal_px
        return np.asarray(
            np.multiply.outer(axis, np.ones(np.broadcast(u, v).shape))
            + np.multiply.outer(right, u + 0 * v)
            + np.multiply.outer(top, v + 0 * u)
        )


def ground_points(
    view: View, cols: FloatField, rows: FloatField, terrain: FloatField, cell_m: float
) -> FloatField:
    """Where rays through points of the image meet the bare ground: [3, ...] metres east, south, up.

    terrain: [S, S] metres, the same square as the world's. It rolls so gently that a few rounds of
    intersecting with the ground's height at the last point found suffice.
    """
    rays = view.directions(cols, rows)
    start = np.reshape(view.position, (3,) + (1,) * (rays.ndim - 1))
    half_m, last = len(terrain) * cell_m / 2, len(terrain) - 1
    up = np.full(rays.shape[1:], float(terrain.mean()))
    for _ in range(12):
        found = start + rays * (up - start[2]) / rays[2]
        cell = np.clip((found[:2] + half_m) / cell_m, 0, last).astype(np.int64)
        up = terrain[cell[1], cell[0]].astype(np.float64)
    return np.asarray(start + rays * (up - start[2]) / rays[2])


def photograph(world: World, world_lit: Lit, view: View, rng: np.random.Generator) -> Picture:
    """What the camera sees, [height, width, 3]."""
    width, height = view.size
    directions = view.directions(np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5)
    assert (directions[2] < 0).all(), "a ray at or above the horizon"
    rays = (directions[:2] / directions[2]).astype(np.float32)
    origin = np.array(view.position, np.float32)
    contact, above = march(world, origin, rays)
    flat = rays.reshape(2, -1)
    colour = shade(world, world_lit, origin, flat, contact, above, smooth=True)
    colour = hazy(colour, world_lit, origin, flat, contact).reshape(height, width, 3)
    image = Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8))
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(BLUR_PX)), np.float32)
    return develop(blurred, world_lit.sensor, rng)
