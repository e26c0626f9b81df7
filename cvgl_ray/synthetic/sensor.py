"""Light, season and colour response: how a world looks to one camera on one day."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from cvgl_ray.synthetic.canvas import CELL_M, rectangle
from cvgl_ray.synthetic.fields import FloatField, shadow_height
from cvgl_ray.synthetic.world import World

Picture = NDArray[np.uint8]
SOFT_CELLS = 0.5
SHADOW_M = 89.6  # a shadow is at most this long, or up to twice that
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
class Make:
    """What all pictures of one kind of camera share."""

    season: tuple[float, float, float]  # factors on the colour of plants
    gain: tuple[float, float, float]  # mean of each colour of a grey scene, of 1
    gamma: float


ORBIT = Make((1.1, 0.92, 0.8), (0.33, 0.36, 0.39), 1.2)  # dark and cool, in a dry season
DRONE = Make((0.9, 1.08, 1.0), (0.48, 0.45, 0.42), 0.95)  # bright and warm, in a green one
STREET = Make((1.0, 1.05, 0.9), (0.46, 0.46, 0.47), 1.0)  # a car's: under an open sky
SURVEY = Make((1.16, 0.98, 0.86), (0.40, 0.41, 0.41), 0.9)  # a map's: even, neutral, late in a dry summer


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

    colour: FloatField  # [S, S, 3]
    shadow: FloatField  # [S, S] height below which the column is in the shade
    sensor: Sensor
    cell_m: float = CELL_M

    def softened(self) -> "Lit":
        """Without the steps of the raster, which a camera that is finer than the cells would see."""
        image = Image.fromarray(np.clip(self.colour, 0, 255).astype(np.uint8))
        soft = np.asarray(image.filter(ImageFilter.GaussianBlur(SOFT_CELLS)), np.float32)
        return dataclasses.replace(self, colour=soft)


def draw_sensor(rng: np.random.Generator, camera: Make) -> Sensor:
    """A random day and camera; cameras of one kind differ less than two kinds do."""
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(32, 62))
    flat = float(np.cos(elevation))
    return Sensor(
        sun=(flat * float(np.cos(azimuth)), flat * float(np.sin(azimuth)), float(np.sin(elevation))),
        sunlight=float(rng.uniform(0.42, 0.64)),
        season=(np.array(camera.season) * rng.normal(1.0, 0.05, 3)).astype(np.float32),
        gain=(np.array(camera.gain) * rng.normal(1.0, 0.02, 3) * rng.normal(1.0, 0.08)).astype(np.float32),
        gamma=float(camera.gamma * rng.normal(1.0, 0.05)),
        haze_m=float(rng.uniform(1000, 3000)),
        haze_rgb=rng.uniform((150, 165, 180), (200, 208, 222)).astype(np.float32),
        noise=float(rng.uniform(2, 5)),
        car_share=float(rng.uniform(0.05, 0.5)),
    )


def illuminate(world: World, sensor: Sensor, rng: np.random.Generator) -> Lit:
    """Colour the world for a sensor's day: season, parked cars, slopes toward the sun, cast shadows."""
    cell_m, half_m = world.cell_m, world.half_m
    canvas = Image.fromarray(world.albedo)
    draw = ImageDraw.Draw(canvas)
    taken = world.slots[rng.random(len(world.slots)) < sensor.car_share]
    paints = rng.integers(len(CARS), size=len(taken))
    for (x, y, heading), paint in zip(taken.tolist(), paints.tolist(), strict=True):
        corners = rectangle((x, y), heading, 2.2, 0.9)
        draw.polygon([((a + half_m) / cell_m, (b + half_m) / cell_m) for a, b in corners], fill=CARS[paint])
    colour = np.asarray(canvas).astype(np.float32)
    colour *= 1 + world.plants[..., None] * (sensor.season - 1)
    south, east = np.gradient(world.height, cell_m)
    south, east = np.clip(south, -1.2, 1.2), np.clip(east, -1.2, 1.2)  # no cliff is darker than a steep roof
    sun_east, sun_south, sun_up = sensor.sun
    slope = (sun_up - sun_east * east - sun_south * south) / np.sqrt(1 + south**2 + east**2)
    step = max(abs(sun_east), abs(sun_south))
    rise = cell_m * sun_up / step
    doublings = int(np.ceil(np.log2(SHADOW_M / cell_m) - 1e-6))
    shadow = shadow_height(world.height, (sun_south / step, sun_east / step), rise, doublings)
    lit = np.clip(1 - (shadow - world.height) / 0.8, 0, 1)
    light = (1 - sensor.sunlight) + sensor.sunlight * lit * np.clip(slope, 0, 1.1) / sun_up
    return Lit(colour * light[..., None].astype(np.float32), shadow, sensor, cell_m)


def develop(colour: FloatField, sensor: Sensor, rng: np.random.Generator) -> Picture:
    """Sensor response: automatic exposure, white balance, gamma, noise."""
    exposure = sensor.gain / np.float32(max(colour.mean(), 1.0))
    exposed = np.clip(colour * exposure, 0, 1) ** np.float32(sensor.gamma) * 255
    noisy = exposed + rng.standard_normal(colour.shape, np.float32) * np.float32(sensor.noise)
    return np.clip(noisy + 0.5, 0, 255).astype(np.uint8)
