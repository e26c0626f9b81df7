"""The rendered world's cameras: from straight above, aslant, and a panorama; its light and shadow."""

import dataclasses

import numpy as np
import pytest

from cvgl_ray.synthetic.camera import Pose, nadir, oblique
from cvgl_ray.synthetic.canvas import CELL_M, CELLS, HALF_M, Building, Canvas, Ground, Roof, rectangle
from cvgl_ray.synthetic.panorama import panorama
from cvgl_ray.synthetic.sensor import STREET, Lit, Sensor, draw_sensor, illuminate
from cvgl_ray.synthetic.world import World, raise_world

MARK = (60.0, -35.0)  # east, south: a red square on grey ground, off both axes


def plain_world(block: tuple[float, float] | None = None) -> tuple[World, Lit]:
    """Flat grey ground with a red mark, perhaps a grey block 30 m high at a point; even light, no haze."""
    axis = (np.arange(CELLS) + 0.5) * CELL_M - HALF_M

    def near(point: tuple[float, float], half: float) -> np.ndarray:
        return (np.abs(axis[None] - point[0]) < half) & (np.abs(axis[:, None] - point[1]) < half)

    albedo = np.full((CELLS, CELLS, 3), 120, np.uint8)
    albedo[near(MARK, 4.0)] = (250, 10, 10)
    height = np.zeros((CELLS, CELLS), np.float32)
    building = np.zeros((CELLS, CELLS), np.int32)
    if block is not None:
        height[near(block, 10.0)], building[near(block, 10.0)] = 30.0, 1
    grey = np.full((1, 3), 120, np.float32)
    zeros, none = np.zeros_like(height), np.zeros(1, np.float32)
    world = World(height, albedo, zeros, zeros, building, none, grey, none, np.empty((0, 3), np.float32))
    return world, illuminate(world, even_light((1e-3, 0.0, 1.0)), np.random.default_rng(0))


def even_light(sun: tuple[float, float, float]) -> Sensor:
    """A sensor that changes no colour, sees through clear air, and has its sun where it is told."""
    grey = np.full(3, 120, np.float32)
    return Sensor(sun, 0.5, np.ones(3, np.float32), np.full(3, 0.45, np.float32), 1.0, 1e9, grey, 0.0, 0.0)


def redness(picture: np.ndarray) -> np.ndarray:
    return np.maximum(picture[..., 0].astype(float) - picture[..., 1] - 40, 0)


def centroid(weights: np.ndarray) -> tuple[float, float]:
    """(column, row) in pixels."""
    rows, cols = np.mgrid[: weights.shape[0], : weights.shape[1]] + 0.5
    return float((cols * weights).sum() / weights.sum()), float((rows * weights).sum() / weights.sum())


def test_nadir_has_north_up_and_east_to_the_right() -> None:
    _, lit = plain_world()
    col, row = centroid(redness(nadir(lit, 200.0, (0.0, 0.0), 100, np.random.default_rng(0))))
    assert col == pytest.approx(50 + MARK[0] / 2, abs=0.5)
    assert row == pytest.approx(50 + MARK[1] / 2, abs=0.5)


@pytest.mark.parametrize("heading", [0.0, 1.1, 2.9, 4.4])
def test_oblique_is_the_pinhole_projection(heading: float) -> None:
    world, lit = plain_world()
    eye = np.array([150 * np.cos(heading), 150 * np.sin(heading), 200.0])
    pose = Pose((eye[0], eye[1], eye[2]), (20.0, -10.0, 0.0), 0.0, np.radians(40))
    col, row = centroid(redness(oblique(world, lit, pose, 100, np.random.default_rng(0))))
    ahead = np.array([20.0, -10.0, 0.0]) - eye
    ahead /= np.linalg.norm(ahead)
    right = np.array([-ahead[1], ahead[0], 0.0]) / np.hypot(
        ahead[0], ahead[1]
    )  # seen from above, south is down
    up = np.array([0.0, 0.0, 1.0]) - ahead[2] * ahead
    up /= np.linalg.norm(up)
    ray = np.array([*MARK, 0.0]) - eye
    focal = 50 / np.tan(np.radians(20))
    assert col == pytest.approx(50 + focal * (ray @ right) / (ray @ ahead), abs=1.0)
    assert row == pytest.approx(50 - focal * (ray @ up) / (ray @ ahead), abs=1.0)


def test_a_building_hides_what_is_behind_it_from_the_drone_alone() -> None:
    world, lit = plain_world(block=(MARK[0] + 16, MARK[1]))
    rng = np.random.default_rng(0)
    for east, is_seen in ((MARK[0] + 150, False), (MARK[0] - 150, True)):
        pose = Pose((east, MARK[1], 120.0), (*MARK, 0.0), 0.0, np.radians(35))
        assert redness(oblique(world, lit, pose, 64, rng)).any() == is_seen
    assert redness(nadir(lit, 200.0, (0.0, 0.0), 64, rng)).sum() > 0


def test_illuminate_casts_shadows_away_from_the_sun() -> None:
    world, _ = plain_world(block=(0.0, 0.0))
    sensor = even_light((0.7071, 0.0, 0.7071))  # in the east at 45 degrees: the shadow is 30 m long
    colour = illuminate(world, sensor, np.random.default_rng(0)).colour
    found = [float(colour[CELLS // 2, int((east + HALF_M) / CELL_M), 0]) for east in (-50.0, -25.0, 25.0)]
    np.testing.assert_allclose(found, [120, 60, 120], rtol=1e-3)


def test_a_panorama_sees_a_wall_where_it_stands() -> None:
    """A wall of 10 m, 14 m to the east of the camera: as wide and as high as it should be."""
    canvas = Canvas()
    canvas.pave(rectangle((0, 0), 0, HALF_M, HALF_M), Ground.PAVEMENT)
    box = Building((17.5, 0), 0.0, 3.5, 10.5, 10.0, Roof.FLAT, (250, 10, 10), (250, 10, 10), bay_m=0.0)
    canvas.erect(box, [rectangle((17.5, 0), 0, 3.5, 10.5)])
    world = raise_world(canvas, np.zeros((CELLS, CELLS), np.float32), np.random.default_rng(0))
    sensor = dataclasses.replace(draw_sensor(np.random.default_rng(0), STREET), noise=0.0, haze_m=1e9)
    lit = illuminate(world, sensor, np.random.default_rng(0))
    strip = panorama(world, lit, (0.0, 0.0, 2.5), (256, 64), np.random.default_rng(0)).astype(int)
    red = strip[..., 0] > 1.6 * strip[..., 2]
    columns = np.flatnonzero(red.any(0))
    half = np.degrees(np.arctan2(10.5, 14)) / 360 * 256  # of its width, about the east in column 192
    assert abs(columns.min() - (192 - half)) <= 2
    assert abs(columns.max() - (191 + half)) <= 2
    rows = np.flatnonzero(red[:, 192])
    assert abs(rows.min() - (32 - np.degrees(np.arctan2(7.5, 14)) / 360 * 256)) <= 1.5
    assert abs(rows.max() - (31 + np.degrees(np.arctan2(2.5, 14)) / 360 * 256)) <= 1.5
    blue = strip[:, 64, 2] > strip[:, 64, 0]  # sky in the west, grey ground below
    assert blue[:20].all()
    assert not blue[44:].any()
