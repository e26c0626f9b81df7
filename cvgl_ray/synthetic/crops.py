"""What stands on the fields: another thing in another season."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from cvgl_ray.synthetic.canvas import Ground
from cvgl_ray.synthetic.region import CELL_M, Region
from cvgl_ray.synthetic.world import GROUND_RGB, World

CROP_RGB = np.array(
    [
        (90, 124, 60), (72, 98, 52), (182, 158, 104), (166, 148, 116), (124, 100, 78), (110, 112, 70),
        (176, 168, 70),
    ],
    np.float32,
)  # fmt: skip
CROP_SHARE = (0.24, 0.16, 0.16, 0.14, 0.16, 0.1, 0.04)
KEPT = 0.45  # of all fields look the same in the other season


def sow(region: Region, rng: np.random.Generator) -> NDArray[np.int64]:
    """A crop for each field, [fields + 1]; the first entry stands for no field."""
    return rng.choice(len(CROP_RGB), int(region.parcel.max()) + 1, p=CROP_SHARE)


def resow(crops: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """The crops of another season."""
    other = rng.choice(len(CROP_RGB), crops.shape, p=CROP_SHARE)
    return np.where(rng.random(crops.shape) < KEPT, crops, other)


def with_crops(region: Region, crops: NDArray[np.int64], rng: np.random.Generator) -> World:
    """The region's world with its open fields in the colours and the rows of these crops."""
    world = region.world
    cells = np.flatnonzero((region.parcel > 0) & (world.height - region.terrain < 0.3))
    field = region.parcel.ravel()[cells]
    count = len(crops)
    colour = CROP_RGB[crops] * rng.normal(1.0, 0.08, (count, 1)) * rng.normal(1.0, 0.03, (count, 3))
    turn, period_m = rng.uniform(0, np.pi, count), rng.uniform(2.4, 7.0, count)
    rows, cols = np.divmod(cells, len(world.height))
    across = (cols * np.cos(turn)[field] + rows * np.sin(turn)[field]) * CELL_M
    furrow = 1 + rng.uniform(0.0, 0.09, count)[field] * np.sin(2 * np.pi * across / period_m[field])
    albedo = world.albedo.copy()
    flat = albedo.reshape(-1, 3)
    factor = (colour / GROUND_RGB[Ground.GRASS])[field] * furrow[:, None]
    flat[cells] = np.clip(flat[cells] * factor, 4, 252).astype(np.uint8)
    return dataclasses.replace(world, albedo=albedo)
