"""Street panoramas and the satellite tiles around them, on disk: two folders, and labels apart."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvgl_ray.synthetic.camera import nadir
from cvgl_ray.synthetic.panorama import panorama
from cvgl_ray.synthetic.sensor import ORBIT, STREET, Picture, draw_sensor, illuminate
from cvgl_ray.synthetic.world import World, build_world
from cvgl_ray.synthetic.writer import (
    NAMES,
    begun,
    check_range,
    is_complete,
    jpeg,
    write_bytes,
    write_places,
)

TILE_SIDE_M = 75.0
EYE_M = 2.5  # of the camera above the ground
WITHIN_M = 80.0  # of a place's middle
FREE_M = 3.0  # to the next wall or tree
GENERATOR = 1  # to be raised whenever the same parameters would give other pictures
GPS_M = 1.0  # standard deviation, along each axis, of the tile's middle about the camera
LIMITS = {
    "places": (1, NAMES),
    "image_size": (32, 2048),
    "field_of_view": (10, 360),
    "seed": (0, 2**63 - 1),
    "processes": (1, 1024),
}


def render_street(seed: int, index: int, image_size: int) -> tuple[Picture, Picture]:
    """A tile [S, S, 3], north up, and the panorama [S / 2, 2 S, 3] of a street near its middle, north in its
    middle; both uint8, S = image_size px. The place depends on `seed` and `index` alone.
    """
    rng = np.random.default_rng([seed, index, 1])
    world = build_world(rng)
    east, south = standpoint(world, rng)
    ground = float(world.height[_cell(world, south), _cell(world, east)])
    overhead = illuminate(world, draw_sensor(rng, ORBIT), rng)
    about = rng.normal((east, south), GPS_M)
    tile = nadir(overhead, TILE_SIDE_M, (float(about[0]), float(about[1])), image_size, rng)
    lit = illuminate(world, draw_sensor(rng, STREET), rng).softened()
    strip = panorama(world, lit, (east, south, ground + EYE_M), (2 * image_size, image_size // 2), rng)
    return tile, strip


def standpoint(world: World, rng: np.random.Generator) -> tuple[float, float]:
    """Metres east and south of a point where a car may stop: by a parking slot, off walls and trees.

    Where there is none, any open ground; the place's middle where all of it is built on.
    """
    reach = int(FREE_M / world.cell_m)
    blocked = (world.building > 0) | (world.plants > 0)
    near = [_cell(world, -WITHIN_M), _cell(world, WITHIN_M)]
    rows, columns = np.mgrid[near[0] : near[1], near[0] : near[1]]
    sums = np.pad(blocked.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    low, high = (slice(near[0] + shift, near[1] + shift) for shift in (-reach, reach + 1))
    count = sums[high, high] - sums[low, high] - sums[high, low] + sums[low, low]
    free = count == 0
    street = np.zeros_like(free)
    for x, y, _ in world.slots[np.abs(world.slots[:, :2]).max(axis=1) < WITHIN_M - FREE_M].tolist():
        row, column = _cell(world, y) - near[0], _cell(world, x) - near[0]
        street[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1] = True
    chosen = np.flatnonzero(free & street if (free & street).any() else free)
    if not len(chosen):
        return 0.0, 0.0
    at = int(chosen[rng.integers(len(chosen))])
    return tuple((float(part.ravel()[at]) + 0.5) * world.cell_m - world.half_m for part in (columns, rows))  # type: ignore[return-value]


def _cell(world: World, metres: float) -> int:
    return int((metres + world.half_m) / world.cell_m)


def looking(strip: Picture, heading: float, field_of_view: float) -> Picture:
    """The part of a panorama that a camera of this field of view sees, its middle at `heading`; degrees.

    A camera that is turned clockwise sees what was on the right in the middle.
    """
    width = strip.shape[1]
    turned = np.roll(strip, -round(heading / 360 * width), axis=1)
    kept = round(field_of_view / 360 * width)
    return turned[:, (width - kept) // 2 : (width - kept) // 2 + kept]


@dataclass(frozen=True)
class Job:
    """One place to write: the names of its tile and of its panorama, which have nothing in common."""

    root: Path
    seed: int
    index: int
    image_size: int
    turned: bool
    field_of_view: int
    tile: str
    strip: str


def write_streets(
    root: Path,
    *,
    places: int,
    image_size: int = 256,
    turned: bool = False,
    field_of_view: int = 360,
    seed: int = 0,
    processes: int = 1,
) -> None:
    """Write satellite/*.jpg, street/*.jpg and labels.csv: two plain folders, and the images' places.

    turned: panoramas look to any heading, else to the north; field_of_view: degrees that they show, about
    that heading. The same bytes for the same arguments, and the same places and light whatever turned and
    field_of_view are. A world that is already there is left alone, an interrupted one is finished.

    Raises InputError for a number out of range, and if `root` holds anything but this very world.
    """
    parameters = {
        "streets": GENERATOR,
        "places": places,
        "image_size": image_size,
        "turned": int(turned),
        "field_of_view": field_of_view,
        "seed": seed,
    }
    check_range({**parameters, "processes": processes}, LIMITS)
    if is_complete(root, parameters):
        return
    rng = np.random.default_rng([seed, 1])
    tiles, strips = (rng.permutation(NAMES)[:places].tolist() for _ in range(2))
    jobs = [
        Job(root, seed, index, image_size, turned, field_of_view, f"{tile:05d}", f"{strip:05d}")
        for index, (tile, strip) in enumerate(zip(tiles, strips, strict=True))
    ]
    rows = [f"satellite/{job.tile}.jpg,{job.tile}\nstreet/{job.strip}.jpg,{job.tile}\n" for job in jobs]
    with begun(root, parameters):
        write_bytes(root / "labels.csv", ("image_id,place_id\n" + "".join(rows)).encode())
        write_places(_write_place, jobs, processes)


def _write_place(job: Job) -> None:
    """Render a place and write it, unless both of its files are there."""
    paths = job.root / "satellite" / f"{job.tile}.jpg", job.root / "street" / f"{job.strip}.jpg"
    if all(path.is_file() for path in paths):
        return
    tile, strip = render_street(job.seed, job.index, job.image_size)
    heading = float(np.random.default_rng([job.seed, job.index, 2]).uniform(0, 360)) if job.turned else 0.0
    for path, picture in zip(paths, (tile, looking(strip, heading, job.field_of_view)), strict=True):
        write_bytes(path, jpeg(picture))
