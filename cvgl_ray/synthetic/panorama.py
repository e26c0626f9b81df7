"""What a camera on a street sees all around: a strip, its columns azimuths and its rows elevations."""

import numpy as np
from PIL import Image

from cvgl_ray.synthetic.camera import shade_points
from cvgl_ray.synthetic.fields import FloatField, fractal_noise
from cvgl_ray.synthetic.rays import cell_index
from cvgl_ray.synthetic.sensor import Lit, Picture, develop
from cvgl_ray.synthetic.world import World

FINER = 1.5  # rays per pixel, along each side
NEAR_STEP_M, FAR_STEP, FAR_M = 0.3, 0.008, 230.0  # of the points looked at along a ray: metres, share, metres
ZENITH_RGB, HORIZON_RGB = np.array((120, 160, 215), np.float32), np.array((205, 215, 225), np.float32)


def panorama(
    world: World,
    world_lit: Lit,
    position: tuple[float, float, float],
    size: tuple[int, int],
    rng: np.random.Generator,
) -> Picture:
    """The strip [height, width, 3] uint8 about a point, north in its middle, the horizon in its middle row.

    position: metres east, south, up; size: px, width and height. Pixels are square, so that the elevations
    reach 180 degrees times height over width up and down.
    """
    width, height = (round(FINER * side) for side in size)
    azimuth = (np.arange(width) + 0.5) * (2 * np.pi / width) - np.pi
    elevation = (height / 2 - np.arange(height) - 0.5) * (2 * np.pi / width)
    colour = _sky(elevation, width, rng)
    row, column, here, before, up = _contacts(world, position, azimuth, np.tan(elevation).astype(np.float32))
    seen = shade_points(world, world_lit, here, before, up, smooth=True)
    distance = np.hypot(*(here - np.array(position[:2], np.float32)[:, None]))
    clear = np.exp(-distance / world_lit.sensor.haze_m)[:, None].astype(np.float32)
    colour[row, column] = seen * clear + world_lit.sensor.haze_rgb * (1 - clear)
    image = Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8))
    small = np.asarray(image.resize(size, Image.Resampling.BOX), np.float32)
    return develop(small, world_lit.sensor, rng)


def _contacts(
    world: World, position: tuple[float, float, float], azimuth: FloatField, slope: FloatField
) -> tuple[np.ndarray, ...]:
    """Of the rays that meet the world: row, column, points of contact and just before [2, P], height [P].

    slope: metres up per metre ahead of each row, falling. Along a column's azimuth the rays all pass over the
    same ground: the first point that rises above a ray's slope, as seen from the camera, is where it ends.
    """
    steps = [NEAR_STEP_M]
    while steps[-1] < FAR_M:
        steps.append(steps[-1] + max(NEAR_STEP_M, FAR_STEP * steps[-1]))
    distance = np.array(steps, np.float32)
    ahead = np.stack([np.sin(azimuth), -np.cos(azimuth)]).astype(np.float32)
    origin = np.array(position, np.float32)
    x, y = ((origin[axis] + ahead[axis, :, None] * distance + world.half_m) / world.cell_m for axis in (0, 1))
    tops = world.height.ravel().take(cell_index(world, x, y), mode="wrap") - origin[2]  # [W, K]
    highest = np.maximum.accumulate(tops / distance, axis=1)
    first = np.stack([np.searchsorted(rising, slope) for rising in highest])  # [W, H], K for the sky
    column, row = np.nonzero(first < len(distance))
    at, slopes = first[column, row], slope[row]
    start = np.where(at > 0, distance[np.maximum(at - 1, 0)], 0.0)
    with np.errstate(divide="ignore"):
        level = np.where(slopes < 0, tops[column, at] / slopes, 0.0)  # where level ground would be met
    meets = (level >= start) & (level < distance[at])  # else the point rises like a wall
    reach = np.where(meets, level, distance[at]).astype(np.float32)
    here, before = (origin[:2, None] + ahead[:, column] * far for far in (reach, start))
    return row, column, here, before.astype(np.float32), origin[2] + slopes * reach


def _sky(elevation: FloatField, width: int, rng: np.random.Generator) -> FloatField:
    """Colours [H, W, 3]: brighter toward the horizon, with soft clouds."""
    share = np.clip(elevation / (np.pi / 3), 0, 1)[:, None, None].astype(np.float32)
    sky = HORIZON_RGB + (ZENITH_RGB - HORIZON_RGB) * share
    clouds = fractal_noise(rng, width, width / 4, 4)[: len(elevation)]
    cover = np.clip(0.5 * clouds, 0, 1)[..., None]
    return np.asarray(sky * (1 - cover) + 235.0 * cover, np.float32)
