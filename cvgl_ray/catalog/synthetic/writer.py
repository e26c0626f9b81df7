"""The procedural world on disk, in University-1652's layout."""

import numpy as np

from cvgl_ray.catalog.synthetic.camera import Picture, Pose, draw_sensor, illuminate, nadir, oblique
from cvgl_ray.catalog.synthetic.world import build_world

SATELLITE_SIDE_M = 150.0


def render_place(seed: int, index: int, views: int, image_size: int) -> tuple[Picture, list[Picture]]:
    """The satellite picture and the drone pictures [image_size, image_size, 3] of place `index` of world `seed`."""
    rng = np.random.default_rng([seed, index])
    world = build_world(rng)
    overhead = illuminate(world, draw_sensor(rng, from_orbit=True), rng)
    offset = rng.normal(0.0, 4.0, 2)
    satellite = nadir(overhead, SATELLITE_SIDE_M, (float(offset[0]), float(offset[1])), image_size, rng)
    flight = illuminate(world, draw_sensor(rng, from_orbit=False), rng)
    ground = float(world.height[world.building == 0].mean())
    heading, turn = rng.uniform(0, 2 * np.pi), float(rng.choice([-1, 1]))
    reach, scale = rng.uniform(0.6, 0.78), rng.uniform(0.95, 1.05)
    drones = []
    for view in range(views):
        progress = (view + 0.5) / views
        altitude = scale * (250 - 130 * progress)
        angle = heading + turn * 2 * np.pi * 2.62 * progress
        radius = reach * altitude
        pose = Pose(
            position=(radius * float(np.cos(angle)), radius * float(np.sin(angle)), ground + altitude),
            target=(*rng.normal(0, 4.0, 2).tolist(), ground + 4.0),
            roll=float(rng.normal(0, 0.03)),
            field_of_view=float(np.radians(rng.uniform(33, 36))),
        )
        drones.append(oblique(world, flight, pose, image_size, rng))
    return satellite, drones
