"""Pictures of a world: straight down, and in perspective from a drone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cvgl_ray.synthetic.fields import FloatField
from cvgl_ray.synthetic.rays import cell_index, march
from cvgl_ray.synthetic.sensor import Lit, Picture, develop
from cvgl_ray.synthetic.world import World

LEAVES = np.random.default_rng(0).uniform(0.7, 1.1, 509).astype(np.float32)  # light and shade in a tree


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
    cell_m, half_m = world_lit.cell_m, len(world_lit.shadow) * world_lit.cell_m / 2
    col, row = ((c + half_m) / cell_m for c in centre)
    half = side_m / cell_m / 2
    whole = Image.fromarray(np.clip(world_lit.colour, 0, 255).astype(np.uint8))
    box = (col - half, row - half, col + half, row + half)
    crop = np.asarray(whole.resize((pixels, pixels), Image.Resampling.BICUBIC, box=box), np.float32)
    return develop(crop, world_lit.sensor, rng)


def oblique(world: World, world_lit: Lit, pose: Pose, pixels: int, rng: np.random.Generator) -> Picture:
    """What a drone's camera sees, [pixels, pixels, 3]; every ray must point below the horizon."""
    fine = round(1.5 * pixels)
    origin, rays = _rays(pose, fine)
    along, above = march(world, origin, rays)
    rays = rays.reshape(2, -1)
    colour = hazy(shade(world, world_lit, origin, rays, along, above), world_lit, origin, rays, along)
    image = Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8).reshape(fine, fine, 3))
    small = np.asarray(image.resize((pixels, pixels), Image.Resampling.BOX), np.float32)
    return develop(small, world_lit.sensor, rng)


def hazy(
    colour: FloatField, world_lit: Lit, origin: FloatField, rays: FloatField, contact: FloatField
) -> FloatField:
    """Colours [P, 3] through the air between the camera and the points of contact."""
    distance = np.abs(contact - origin[2]) * np.sqrt(1 + (rays**2).sum(axis=0))
    clear = np.exp(-distance / world_lit.sensor.haze_m)[:, None].astype(np.float32)
    return colour * clear + world_lit.sensor.haze_rgb * (1 - clear)


def _rays(pose: Pose, pixels: int) -> tuple[FloatField, FloatField]:
    """Origin [3] and, per pixel, the metres gained to the east and south per metre of height [2, H, W]."""
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
    return origin.astype(np.float32), (direction[:2] / direction[2]).astype(np.float32)


def shade(
    world: World,
    world_lit: Lit,
    origin: FloatField,
    rays: FloatField,
    contact: FloatField,
    above: FloatField,
    *,
    smooth: bool = False,
) -> FloatField:
    """Colours [P, 3] of the points of contact: tops as lit from above, walls by their heading.

    rays: [2, P]. smooth: tops between cells are interpolated, for pictures finer than the world is.
    """
    here, before = (
        np.stack([origin[axis] + rays[axis] * (height - origin[2]) for axis in (0, 1)])
        for height in (contact, above)
    )
    return shade_points(world, world_lit, here, before, contact, smooth=smooth)


def shade_points(
    world: World,
    world_lit: Lit,
    here: FloatField,
    before: FloatField,
    contact: FloatField,
    *,
    smooth: bool = False,
) -> FloatField:
    """Colours [P, 3] of points of contact: tops as lit from above, walls by their heading.

    here, before: [2, P] east and south of the points and of points just before them, metres; contact: [P]
    their height; smooth: as in `shade`.
    """
    x, y = here
    col, row = (here + world.half_m) / world.cell_m
    cells = world.height.size
    cell = cell_index(world, col, row) % cells
    if smooth:
        colour = _leafy(world, cell, contact, _between(world, world_lit, col, row))
    else:
        colour = world_lit.colour.reshape(-1, 3)[cell]
    owner = world.building.ravel()[cell]
    wall = np.flatnonzero((owner > 0) & (world.height.ravel()[cell] - contact > 0.9))
    owner, facing, z = owner[wall] - 1, world.facing.ravel()[cell[wall]], contact[wall]
    out_col, out_row = (before[:, wall] + world.half_m) / world.cell_m
    outside = cell_index(world, out_col, out_row) % cells
    shaded = np.clip((z - world_lit.shadow.ravel()[outside]) / 1.5, 0, 1)
    sun_east, sun_south, sun_up = world_lit.sensor.sun
    toward = np.clip(np.cos(facing) * sun_east + np.sin(facing) * sun_south, 0, 1)
    sunlight = world_lit.sensor.sunlight
    light = (1 - sunlight) * 0.85 + sunlight * shaded * toward / sun_up
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


def _leafy(world: World, cell: NDArray[np.int32], contact: FloatField, colour: FloatField) -> FloatField:
    """Colours [P, 3] with the sides of trees darker toward the ground and broken up by leaves."""
    below = world.height.ravel()[cell] - contact
    side = np.flatnonzero((below > 0.4) & (world.building.ravel()[cell] == 0))
    leaf = (cell[side] * 7 + (contact[side] * 5).astype(np.int32) * 13) % len(LEAVES)
    colour[side] *= (LEAVES[leaf] * np.maximum(1 - 0.09 * below[side], 0.45))[:, None]
    return colour


def _between(world: World, world_lit: Lit, col: FloatField, row: FloatField) -> FloatField:
    """Colours [P, 3] at positions in cells, interpolated linearly between the cells' middles."""
    size, flat = len(world.height), world_lit.colour.reshape(-1, 3)
    left, top = np.floor(col - 0.5), np.floor(row - 0.5)
    right_share, low_share = ((col - 0.5 - left)[:, None], (row - 0.5 - top)[:, None])
    first = top.astype(np.int32) * np.int32(size) + left.astype(np.int32)
    upper = flat[first % flat.shape[0]] * (1 - right_share) + flat[(first + 1) % flat.shape[0]] * right_share
    first += size
    lower = flat[first % flat.shape[0]] * (1 - right_share) + flat[(first + 1) % flat.shape[0]] * right_share
    return np.asarray(upper * (1 - low_share) + lower * low_share, np.float32)
