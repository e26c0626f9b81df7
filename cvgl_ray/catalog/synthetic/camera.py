"""Pictures of a world: straight down, and in perspective from a drone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cvgl_ray.catalog.synthetic.canvas import CELL_M, CELLS, HALF_M, rectangle
from cvgl_ray.catalog.synthetic.fields import FloatField, shadow_height
from cvgl_ray.catalog.synthetic.world import World

Picture = NDArray[np.uint8]
NEAR_LEVEL_M = 0.5  # vertical distance between two samples of a ray
CARS = (
    (228, 228, 228),
    (40, 42, 46),
    (128, 132, 138),
    (92, 94, 98),
    (132, 52, 46),
    (56, 72, 104),
    (196, 196, 190),
)


@dataclass(frozen=True)
class Sensor:
    """A camera on a day: light, season and colour response."""

    sun: tuple[float, float, float]  # unit vector toward the sun: east, south, up
    sunlight: float  # share of the light that comes straight from the sun
    season: FloatField  # [3] factors on the colour of plants
    gain: FloatField  # [3] mean of each colour of a grey scene, of 1: white balance and exposure in one
    gamma: float
    haze_m: float  # distance over which a share 1 - 1/e of the contrast is lost
    haze_rgb: FloatField  # [3]
    noise: float  # standard deviation, of 255
    car_share: float  # of the parking slots that are taken


@dataclass(frozen=True)
class Lit:
    """A world under one sun."""

    colour: FloatField  # [CELLS, CELLS, 3]
    shadow: FloatField  # [CELLS, CELLS] height below which the column is in the shade
    sensor: Sensor


@dataclass(frozen=True)
class Pose:
    """A drone's camera, looking at a point of the ground."""

    position: tuple[float, float, float]  # east, south, up of the centre's ground, in metres
    target: tuple[float, float, float]
    roll: float  # radians
    field_of_view: float  # radians, of the whole width


def draw_sensor(rng: np.random.Generator, *, from_orbit: bool) -> Sensor:
    """A random day and camera; satellites see other seasons, darker and flatter, through no ground haze."""
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(32, 62))
    flat = float(np.cos(elevation))
    key = rng.uniform(0.26, 0.46) if from_orbit else rng.uniform(0.4, 0.5)
    return Sensor(
        sun=(flat * float(np.cos(azimuth)), flat * float(np.sin(azimuth)), float(np.sin(elevation))),
        sunlight=float(rng.uniform(0.42, 0.64)),
        season=rng.normal(1.0, (0.16, 0.09, 0.12)).astype(np.float32),
        gain=(key * rng.normal(1.0, 0.05, 3)).astype(np.float32),
        gamma=float(rng.uniform(0.85, 1.25)),
        haze_m=float(rng.uniform(700, 3000)),
        haze_rgb=rng.uniform((150, 165, 180), (200, 208, 222)).astype(np.float32),
        noise=float(rng.uniform(2, 5)),
        car_share=float(rng.uniform(0.05, 0.5)),
    )


def illuminate(world: World, sensor: Sensor, rng: np.random.Generator) -> Lit:
    """Colour the world for a sensor's day: season, parked cars, slopes toward the sun, cast shadows."""
    canvas = Image.fromarray(world.albedo)
    draw = ImageDraw.Draw(canvas)
    taken = world.slots[rng.random(len(world.slots)) < sensor.car_share]
    paints = rng.integers(len(CARS), size=len(taken))
    for (x, y, heading), paint in zip(taken.tolist(), paints.tolist(), strict=True):
        corners = rectangle((x, y), heading, 2.2, 0.9)
        draw.polygon([((a + HALF_M) / CELL_M, (b + HALF_M) / CELL_M) for a, b in corners], fill=CARS[paint])
    colour = np.asarray(canvas).astype(np.float32)
    colour *= 1 + world.plants[..., None] * (sensor.season - 1)
    south, east = np.gradient(world.height, CELL_M)
    np.clip(south, -1.2, 1.2, out=south)
    np.clip(east, -1.2, 1.2, out=east)
    sun_east, sun_south, sun_up = sensor.sun
    slope = (sun_up - sun_east * east - sun_south * south) / np.sqrt(1 + south**2 + east**2)
    step = max(abs(sun_east), abs(sun_south))
    shadow = shadow_height(world.height, (sun_south / step, sun_east / step), CELL_M * sun_up / step)
    lit = np.clip(1 - (shadow - world.height) / 0.8, 0, 1)
    light = (1 - sensor.sunlight) + sensor.sunlight * lit * np.clip(slope, 0, 1.1) / sun_up
    return Lit(colour * light[..., None].astype(np.float32), shadow, sensor)


def nadir(
    world_lit: Lit, side_m: float, centre: tuple[float, float], pixels: int, rng: np.random.Generator
) -> Picture:
    """The square of side `side_m` about a point, north up, [pixels, pixels, 3]."""
    col, row = ((c + HALF_M) / CELL_M for c in centre)
    half = side_m / CELL_M / 2
    whole = Image.fromarray(np.clip(world_lit.colour, 0, 255).astype(np.uint8))
    box = (col - half, row - half, col + half, row + half)
    crop = np.asarray(whole.resize((pixels, pixels), Image.Resampling.BICUBIC, box=box), np.float32)
    return _develop(crop, world_lit.sensor, rng)


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
    return _develop(small, world_lit.sensor, rng)


def _develop(colour: FloatField, sensor: Sensor, rng: np.random.Generator) -> Picture:
    """Sensor response: automatic exposure, white balance, gamma, noise."""
    exposure = sensor.gain / np.float32(max(colour.mean(), 1.0))
    exposed = np.clip(colour * exposure, 0, 1) ** np.float32(sensor.gamma) * 255
    noisy = exposed + rng.standard_normal(colour.shape, np.float32) * np.float32(sensor.noise)
    return np.clip(noisy + 0.5, 0, 255).astype(np.uint8)


def _rays(pose: Pose, pixels: int) -> tuple[FloatField, FloatField]:
    """Origin [3] and, per pixel, the (east, south) metres gained per metre of height gained: [2, pixels^2]."""
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
    """Flat index of the cell at positions in cells, held inside the world."""
    col = np.clip(x.astype(np.int32), 0, CELLS - 1)
    row = np.clip(y.astype(np.int32), 0, CELLS - 1)
    return row * np.int32(CELLS) + col


def _march(height: FloatField, origin: FloatField, rays: FloatField) -> tuple[FloatField, FloatField]:
    """Height of each ray's first contact [P] and a height just before it [P], in metres.

    All rays descend through the same levels, so that a level is one lookup for all rays still on their way.
    """
    flat = height.ravel()
    top, bottom = float(height.max()), float(height.min())
    levels = np.arange(top, bottom - NEAR_LEVEL_M, -NEAR_LEVEL_M, dtype=np.float32)
    slope = rays / np.float32(CELL_M)
    start = (origin[:2, None] + np.float32(HALF_M)) / np.float32(CELL_M) - slope * origin[2]
    contact = np.full(rays.shape[1], levels[-1], np.float32)
    alive = np.arange(rays.shape[1])
    x, y, dx, dy = start[0], start[1], slope[0], slope[1]
    for level in levels:
        hit = flat[_cell(x + dx * level, y + dy * level)] >= level
        if hit.any():
            contact[alive[hit]] = level
            keep = ~hit
            alive, x, y, dx, dy = alive[keep], x[keep], y[keep], dx[keep], dy[keep]
    above = contact + np.float32(NEAR_LEVEL_M)
    for _ in range(4):
        middle = (above + contact) / 2
        inside = flat[_cell(start[0] + slope[0] * middle, start[1] + slope[1] * middle)] >= middle
        contact, above = np.where(inside, middle, contact), np.where(inside, above, middle)
    return contact, above


def _shade(
    world: World, world_lit: Lit, origin: FloatField, rays: FloatField, contact: FloatField, above: FloatField
) -> FloatField:
    """Colours [P, 3] of the points of contact: tops as lit from above, walls with windows by their heading."""
    x, y = (origin[axis] + rays[axis] * (contact - origin[2]) for axis in (0, 1))
    cell = _cell((x + HALF_M) / CELL_M, (y + HALF_M) / CELL_M)
    colour = world_lit.colour.reshape(-1, 3)[cell]
    owner = world.building.ravel()[cell]
    wall = np.flatnonzero((owner > 0) & (world.height.ravel()[cell] - contact > 0.9))
    owner, facing, z = owner[wall] - 1, world.facing.ravel()[cell[wall]], contact[wall]
    out_x, out_y = (origin[axis] + rays[axis, wall] * (above[wall] - origin[2]) for axis in (0, 1))
    outside = _cell((out_x + HALF_M) / CELL_M, (out_y + HALF_M) / CELL_M)
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
