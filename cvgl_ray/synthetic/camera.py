"""Pictures of a world: straight down, and in perspective from a drone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cvgl_ray.synthetic.canvas import CELL_M, CELLS, HALF_M
from cvgl_ray.synthetic.fields import FloatField
from cvgl_ray.synthetic.sensor import Lit, Picture, develop
from cvgl_ray.synthetic.world import World

LEVEL_M = 0.5  # vertical distance between two samples of a ray


@dataclass(frozen=True)
class Pose:
    """A drone's camera, looking at a point of the ground."""

    position: tuple[float, float, float]  # east, south, up of the centre's ground, in metres
    target: tuple[float, float, float]
    roll: float  # radians
    field_of_view: float  # radians, of the whole width


def nadir(
    world_lit: Lit, side_m: float, centre: tuple[float, float], pixels: int, rng: np.random.Generator
) -> Picture:
    """The square of side `side_m` about a point, north up, [pixels, pixels, 3]."""
    col, row = ((c + HALF_M) / CELL_M for c in centre)
    half = side_m / CELL_M / 2
    whole = Image.fromarray(np.clip(world_lit.colour, 0, 255).astype(np.uint8))
    box = (col - half, row - half, col + half, row + half)
    crop = np.asarray(whole.resize((pixels, pixels), Image.Resampling.BICUBIC, box=box), np.float32)
    return develop(crop, world_lit.sensor, rng)


def oblique(world: World, world_lit: Lit, pose: Pose, pixels: int, rng: np.random.Generator) -> Picture:
    """What a drone's camera sees, [pixels, pixels, 3]; every ray must point below the horizon."""
    fine = round(1.5 * pixels)
    origin, rays = _rays(pose, fine)
    along, above = _march(world.height, origin, rays)
    colour = _shade(world, world_lit, origin, rays, along, above)
    distance = np.abs(along - origin[2]) * np.sqrt(1 + (rays**2).sum(axis=0))
    clear = np.exp(-distance / world_lit.sensor.haze_m)[:, None].astype(np.float32)
    colour = colour * clear + world_lit.sensor.haze_rgb * (1 - clear)
    image = Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8).reshape(fine, fine, 3))
    small = np.asarray(image.resize((pixels, pixels), Image.Resampling.BOX), np.float32)
    return develop(small, world_lit.sensor, rng)


def _rays(pose: Pose, pixels: int) -> tuple[FloatField, FloatField]:
    """Origin [3] and, per pixel, the metres gained to the east and south per metre of height [2, P]."""
    origin = np.array(pose.position)
    ahead = np.array(pose.target) - origin
    ahead /= np.linalg.norm(ahead)
    right = np.cross(ahead, (0.0, 0.0, 1.0))
    right *= -1 / np.linalg.norm(right)  # east-south-up is left-handed
    down = -np.cross(right, ahead)
    down *= -np.sign(down[2])  # the image's vertical axis, toward the ground
    cos, sin = np.cos(pose.roll), np.sin(pose.roll)
    right, down = cos * right + sin * down, cos * down - sin * right
    axis = (2 * (np.arange(pixels) + 0.5) / pixels - 1) * np.tan(pose.field_of_view / 2)
    direction = (
        ahead[:, None, None]
        + right[:, None, None] * axis[None, None]
        + down[:, None, None] * axis[None, :, None]
    )
    assert (direction[2] < 0).all(), "a ray at or above the horizon"
    return origin.astype(np.float32), (direction[:2] / direction[2]).reshape(2, -1).astype(np.float32)


def _cell(x: FloatField, y: FloatField) -> NDArray[np.int32]:
    """Flat index of the cell at positions in cells; to be taken with `mode="wrap"`, which tiles the world."""
    return y.astype(np.int32) * np.int32(CELLS) + x.astype(np.int32)


def _march(height: FloatField, origin: FloatField, rays: FloatField) -> tuple[FloatField, FloatField]:
    """Height of each ray's first contact [P] and a height just before it [P], in metres.

    All rays descend through the same levels, so that a level is one lookup for all rays still on their way.
    """
    flat = height.ravel()
    top, bottom = float(height.max()), float(height.min())
    levels = np.arange(top, bottom - LEVEL_M, -LEVEL_M, dtype=np.float32)
    slope = rays / np.float32(CELL_M)
    start = (origin[:2, None] + np.float32(HALF_M)) / np.float32(CELL_M) - slope * origin[2]
    contact = np.full(rays.shape[1], levels[-1], np.float32)
    alive = np.arange(rays.shape[1])
    x, y, dx, dy = start[0], start[1], slope[0], slope[1]
    for level in levels:
        hit = flat.take(_cell(x + dx * level, y + dy * level), mode="wrap") >= level
        if hit.any():
            contact[alive[hit]] = level
            keep = ~hit
            alive, x, y, dx, dy = alive[keep], x[keep], y[keep], dx[keep], dy[keep]
    above = contact + np.float32(LEVEL_M)
    for _ in range(4):
        middle = (above + contact) / 2
        inside = (
            flat.take(_cell(start[0] + slope[0] * middle, start[1] + slope[1] * middle), mode="wrap")
            >= middle
        )
        contact, above = np.where(inside, middle, contact), np.where(inside, above, middle)
    return contact, above


def _shade(
    world: World,
    world_lit: Lit,
    origin: FloatField,
    rays: FloatField,
    contact: FloatField,
    above: FloatField,
) -> FloatField:
    """Colours [P, 3] of the points of contact: tops as lit from above, walls by their heading."""
    x, y = (origin[axis] + rays[axis] * (contact - origin[2]) for axis in (0, 1))
    cell = _cell((x + HALF_M) / CELL_M, (y + HALF_M) / CELL_M) % CELLS**2
    colour = world_lit.colour.reshape(-1, 3)[cell]
    owner = world.building.ravel()[cell]
    wall = np.flatnonzero((owner > 0) & (world.height.ravel()[cell] - contact > 0.9))
    owner, facing, z = owner[wall] - 1, world.facing.ravel()[cell[wall]], contact[wall]
    out_x, out_y = (origin[axis] + rays[axis, wall] * (above[wall] - origin[2]) for axis in (0, 1))
    outside = _cell((out_x + HALF_M) / CELL_M, (out_y + HALF_M) / CELL_M) % CELLS**2
    shade = np.clip((z - world_lit.shadow.ravel()[outside]) / 1.5, 0, 1)
    sun_east, sun_south, sun_up = world_lit.sensor.sun
    toward = np.clip(np.cos(facing) * sun_east + np.sin(facing) * sun_south, 0, 1)
    sunlight = world_lit.sensor.sunlight
    light = (1 - sunlight) * 0.85 + sunlight * shade * toward / sun_up
    u = x[wall] * -np.sin(facing) + y[wall] * np.cos(facing)
    storey = np.mod(z - world.base_m[owner], 3.3) / 3.3
    bay = world.bay_m[owner]
    column = np.mod(u, np.maximum(bay, 1)) / np.maximum(bay, 1)
    window = (bay > 0) & (np.abs(storey - 0.55) < 0.27) & (np.abs(column - 0.5) < 0.33)
    face = np.where(
        window[:, None], world.wall_rgb[owner] * 0.3 + np.array((18, 24, 32)), world.wall_rgb[owner]
    )
    colour[wall] = face * light[:, None]
    return colour
