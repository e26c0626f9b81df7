"""Where the rays of a camera first meet a world."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from cvgl_ray.synthetic.fields import FloatField
from cvgl_ray.synthetic.world import World

LEVEL_M = 0.5  # vertical distance between two samples of a ray
BLOCK = 8  # side of the squares of cells whose highest point is looked up at once
TILE = 8  # side of the squares of pixels that start their descent together


def cell_index(world: World, x: FloatField, y: FloatField) -> NDArray[np.int32]:
    """Flat index of the cell at positions in cells; to be taken with `mode="wrap"`, which tiles the world."""
    return y.astype(np.int32) * np.int32(len(world.height)) + x.astype(np.int32)


def march(world: World, origin: FloatField, rays: FloatField) -> tuple[FloatField, FloatField]:
    """Height of each ray's first contact [H * W] and a height just before it [H * W], in metres.

    rays: [2, H, W] metres gained to the east and south per metre of height. All rays descend through the same
    levels; each begins at one above all that it passes before.
    """
    flat, cell_m = world.height.ravel(), np.float32(world.cell_m)
    levels = np.arange(world.height.max(), world.height.min() - LEVEL_M, -LEVEL_M, dtype=np.float32)
    slope = rays.reshape(2, -1) / cell_m
    start = (origin[:2, None] + np.float32(world.half_m)) / cell_m - slope * origin[2]
    contact = np.full(slope.shape[1], levels[-1], np.float32)
    alive = np.arange(slope.shape[1])
    at = _first_levels(world, origin, rays, levels).ravel()
    x, y, dx, dy = start[0], start[1], slope[0], slope[1]
    while alive.size:
        level = levels[at]
        hit = flat.take(cell_index(world, x + dx * level, y + dy * level), mode="wrap") >= level
        contact[alive[hit]] = level[hit]
        keep = ~hit & (at < len(levels) - 1)
        alive, x, y, dx, dy, at = alive[keep], x[keep], y[keep], dx[keep], dy[keep], at[keep] + 1
    above = contact + np.float32(LEVEL_M)
    for _ in range(4):
        middle = (above + contact) / 2
        x, y = start[0] + slope[0] * middle, start[1] + slope[1] * middle
        inside = flat.take(cell_index(world, x, y), mode="wrap") >= middle
        contact, above = np.where(inside, middle, contact), np.where(inside, above, middle)
    return contact, above


def _first_levels(
    world: World, origin: FloatField, rays: FloatField, levels: FloatField
) -> NDArray[np.int64]:
    """Per ray [H, W], the number of a level below which lies all that it passes before.

    The middle ray of each tile of pixels falls, step by step, to the highest point of the blocks around it.
    The neighbourhood is wide enough for one step and for the tile's other rays.
    """
    size, block_m = len(world.height), BLOCK * world.cell_m
    tops = world.height.reshape(size // BLOCK, BLOCK, size // BLOCK, BLOCK).max(axis=(1, 3))
    pick = [np.minimum(np.arange(0, n, TILE) + TILE // 2, n - 1) for n in rays.shape[1:]]
    middle = rays[:, pick[0][:, None], pick[1]]
    each = [np.arange(n) // TILE for n in rays.shape[1:]]
    spread_m = float(np.hypot(*(rays - middle[:, each[0][:, None], each[1]])).max()) * (
        origin[2] - levels[-1]
    )
    reach = int(np.ceil((spread_m + world.cell_m) / block_m)) + 1
    ceiling = maximum_filter(tops, 2 * reach + 1, mode="wrap").ravel()
    step = block_m / np.maximum(np.hypot(*middle), 1e-3)
    x, y = (origin[axis] + world.half_m - middle[axis] * origin[2] for axis in (0, 1))
    z = np.full(middle.shape[1:], levels[0])
    fallen = np.inf
    while fallen > LEVEL_M:
        cell = cell_index(world, (x + middle[0] * z) / world.cell_m, (y + middle[1] * z) / world.cell_m)
        row, col = np.divmod(cell % size**2, size)
        lowest = ceiling[row // BLOCK * (size // BLOCK) + col // BLOCK]
        new = np.minimum(z, np.maximum(lowest, z - step))
        z, fallen = new, float((z - new).max())
    at = np.clip(np.floor((levels[0] - z) / LEVEL_M).astype(np.int64), 0, len(levels) - 1)
    return at[each[0][:, None], each[1]]
