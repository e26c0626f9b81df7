"""Where a drone goes over a region, and what it looks at."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from cvgl_ray.synthetic.aerial import View
from cvgl_ray.synthetic.fields import FloatField

HEIGHT_M = (60.0, 150.0)  # above the ground below
TILT_DEG = (0.0, 20.0)
STRAIGHT_DOWN_SHARE = 0.25  # of the photos
FIELD_OF_VIEW_DEG = 70.0  # a 26 mm lens on a full frame, as on most drones
MARGIN_M = 200.0  # between the path and the region's edge


@dataclass(frozen=True)
class Shot:
    """One photo of a flight."""

    view: View
    time: datetime
    height_m: float  # above the bare ground below the camera
    course_deg: float  # of the aircraft's nose, clockwise from the region's north


def fly(
    rng: np.random.Generator, terrain: FloatField, cell_m: float, photos: int, size: tuple[int, int]
) -> list[Shot]:
    """Photos at equal distances along a winding path that visits all of the region.

    The camera follows the nose loosely. Height, tilt and the angle to the nose change from leg to leg.
    """
    half_m = len(terrain) * cell_m / 2
    east, south, course, length_m = _path(rng, photos, max(half_m - MARGIN_M, 60.0))
    along = np.linspace(0, 1, photos)
    knots = np.linspace(0, 1, 8)
    height = np.interp(along, knots, rng.uniform(*HEIGHT_M, len(knots)))
    heading = course + np.radians(np.interp(along, knots, rng.normal(0, 25, len(knots))))
    tilt = np.radians(rng.uniform(*TILT_DEG, photos)) * (rng.random(photos) > STRAIGHT_DOWN_SHARE)
    start = datetime(2025, 5, 1, 8, tzinfo=UTC) + timedelta(minutes=int(rng.integers(60 * 24 * 30)))
    start = start.replace(hour=8 + start.hour % 8)
    second = along * length_m / rng.uniform(7, 11)
    shots = []
    for i in range(photos):
        below = float(terrain[int((south[i] + half_m) / cell_m), int((east[i] + half_m) / cell_m)])
        position = (float(east[i]), float(south[i]), below + float(height[i]))
        view = View(position, float(heading[i]), float(tilt[i]), np.radians(FIELD_OF_VIEW_DEG), size)
        time = start + timedelta(seconds=round(float(second[i])))
        shots.append(Shot(view, time, float(height[i]), float(np.degrees(course[i]))))
    return shots


def _path(
    rng: np.random.Generator, photos: int, bounds_m: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]:
    """East, south, course (radians, clockwise from north) of each photo, and the path's length in metres.

    It goes to and fro within `bounds_m` of the middle, on about one lane for every 330 m.
    """
    lanes = max(2, round(2 * bounds_m / 330.0) + 1)
    steps = np.linspace(-1, 1, lanes)
    turns = [(col, row) for index, row in enumerate(steps) for col in (steps if index % 2 else steps[::-1])]
    shake_m = 0.2 * bounds_m if lanes == 2 else 80.0
    points = np.array(turns) * (bounds_m - shake_m) * rng.choice([-1, 1], 2)
    points += rng.uniform(-shake_m, shake_m, points.shape)
    if rng.random() < 0.5:
        points = points[:, ::-1]
    chord = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    fine = CubicSpline(chord, points)(np.linspace(0, chord[-1], 2000)).clip(-bounds_m, bounds_m)
    passed = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(fine, axis=0).T))])
    wanted = np.linspace(0, passed[-1], photos)
    east, south = (np.interp(wanted, passed, fine[:, axis]) for axis in (0, 1))
    ahead_m = 15.0
    later = np.minimum(wanted + ahead_m, passed[-1])
    earlier = np.maximum(wanted - ahead_m, 0.0)
    step_east, step_south = (
        np.interp(later, passed, fine[:, axis]) - np.interp(earlier, passed, fine[:, axis]) for axis in (0, 1)
    )
    return east, south, np.arctan2(step_east, -step_south), float(passed[-1])
