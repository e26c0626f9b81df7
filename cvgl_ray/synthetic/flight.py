"""One place seen from orbit and from a drone that comes down on a spiral."""

import numpy as np

from cvgl_ray.synthetic.camera import Pose, nadir, oblique
from cvgl_ray.synthetic.sensor import DRONE, ORBIT, Picture, draw_sensor, illuminate
from cvgl_ray.synthetic.world import build_world

SATELLITE_SIDE_M = 150.0
TURNS = 2.62  # of the spiral; not near a fraction, so that few views still differ in heading


def render_place(seed: int, index: int, views: int, image_size: int) -> tuple[Picture, list[Picture]]:
    """The satellite picture and the drone pictures of place `index` of world `seed`.

    All are uint8 [image_size, image_size, 3]; the satellite's has north up, the drone's any heading. They
    depend on the arguments alone, and the place itself on `seed` and `index` alone.
    """
    rng = np.random.default_rng([seed, index])
    world = build_world(rng)
    overhead = illuminate(world, draw_sensor(rng, ORBIT), rng)
    offset = rng.normal(0.0, 4.0, 2)
    satellite = nadir(overhead, SATELLITE_SIDE_M, (float(offset[0]), float(offset[1])), image_size, rng)
    flight = illuminate(world, draw_sensor(rng, DRONE), rng)
    poses = _spiral(rng, float(world.height[world.building == 0].mean()), views)
    return satellite, [oblique(world, flight, pose, image_size, rng) for pose in poses]


def _spiral(rng: np.random.Generator, ground_m: float, views: int) -> list[Pose]:
    """Poses from about 250 m down to 120 m above the ground, circling the centre ever closer."""
    heading, turn = rng.uniform(0, 2 * np.pi), float(rng.choice([-1, 1]))
    reach, scale = rng.uniform(0.6, 0.78), rng.uniform(0.95, 1.05)
    poses = []
    for view in range(views):
        progress = (view + 0.5) / views
        altitude = scale * (250 - 130 * progress)
        angle = heading + turn * 2 * np.pi * TURNS * progress
        radius = reach * altitude
        target = rng.normal(0, 4.0, 2)
        pose = Pose(
            position=(radius * float(np.cos(angle)), radius * float(np.sin(angle)), ground_m + altitude),
            target=(float(target[0]), float(target[1]), ground_m + 4.0),
            roll=float(rng.normal(0, 0.03)),
            field_of_view=float(np.radians(rng.uniform(33, 36))),
        )
        poses.append(pose)
    return poses
