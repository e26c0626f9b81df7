"""The ground under a photo's corners: of a camera that looks aslant, and where it cannot be told."""

import math

import numpy as np
import pytest

from cvgl_ray.alignment.locate import corners_of
from cvgl_ray.alignment.plane import Pose, similarity
from cvgl_ray.maps.footprint import footprint
from cvgl_ray.maps.metadata import PhotoInfo

WIDTH, HEIGHT, FOCAL = 400, 300, 500.0  # px
SIDE = math.sqrt(WIDTH * HEIGHT)


def aslant(tilt_deg: float, heading_deg: float, height_m: float) -> Pose:
    """The pose of a pinhole camera above (0, 0), its axis so far off straight down."""
    tilt, heading = math.radians(tilt_deg), math.radians(heading_deg)
    ahead = np.array([math.sin(heading), math.cos(heading), 0.0])
    down = np.array([0.0, 0.0, -1.0])
    axis, up = (
        math.cos(tilt) * down + math.sin(tilt) * ahead,
        math.cos(tilt) * ahead - math.sin(tilt) * down,
    )
    right = np.array([math.cos(heading), -math.sin(heading), 0.0])
    rays = np.stack([right * SIDE / FOCAL, up * SIDE / FOCAL, axis], axis=1)
    return Pose(np.stack([height_m * rays[0], height_m * rays[1], -rays[2]]))


@pytest.mark.parametrize("heading", [0.0, 140.0])
def test_corners_of_a_tilted_camera_lie_where_its_rays_meet_the_ground(heading: float) -> None:
    info = PhotoInfo(
        width_px=WIDTH, height_px=HEIGHT, focal_px=FOCAL, gimbal_yaw_deg=heading, gimbal_pitch_deg=-65.0
    )
    known = footprint(info, 100.0)
    assert known is not None
    assert known.corners is not None
    found = corners_of(aslant(25.0, heading, 100.0), WIDTH / SIDE, HEIGHT / SIDE)
    assert found is not None
    np.testing.assert_allclose(found, known.corners, atol=1e-6)
    rows = [math.dist(found[a], found[b]) for a, b in ((0, 1), (2, 3))]
    assert rows[0] > 1.2 * rows[1]  # no rectangle: the far side shows more ground


def test_corners_beyond_the_horizon_or_mirrored_are_not_told() -> None:
    size = WIDTH / SIDE, HEIGHT / SIDE
    assert corners_of(aslant(75.0, 0.0, 100.0), *size) is None
    mirrored = similarity(5.0, 7.0, 30.0, 100.0).matrix @ np.diag([-1.0, 1.0, 1.0])
    assert corners_of(Pose(mirrored), *size) is None
    assert corners_of(similarity(5.0, 7.0, 30.0, 100.0), *size) is not None
