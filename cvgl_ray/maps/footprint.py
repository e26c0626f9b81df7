"""The ground that a photo shows, by its height, focal length and angles, over level ground."""

import math
from typing import NamedTuple

import numpy as np

from cvgl_ray.maps.metadata import PhotoInfo

DIAGONAL_35MM = math.hypot(36, 24)  # mm
LOWEST_DEG = 5.0  # below the horizon; rays closer to it reach the ground nowhere near


class Footprint(NamedTuple):
    """Offsets are (east, north) in metres from the point below the camera."""

    ground_width_m: float  # through the image's middle, along its rows
    centre_offset: tuple[float, float]  # of the ground under the image's centre
    corners: (
        tuple[tuple[float, float], ...] | None
    )  # top left, top right, bottom right, bottom left; None: horizon


def footprint(info: PhotoInfo, height_m: float | None = None) -> Footprint | None:
    """The footprint of a photo, None where the metadata do not tell it.

    height_m: above the ground; without it the height above take-off is taken, which is right over level
    ground. A pitch or a roll that is not known counts as straight down, a heading as north.
    """
    height = height_m if height_m is not None else info.relative_altitude_m
    focal = focal_px(info)
    if height is None or height <= 0 or focal is None or not info.width_px or not info.height_px:
        return None
    rays = _rays(info, focal, info.width_px, info.height_px)
    centre, left, right, *corners = (_ground(ray, height) for ray in rays)
    if centre is None or left is None or right is None:
        return None
    complete = tuple(corner for corner in corners if corner is not None)
    return Footprint(math.dist(left, right), centre, complete if len(complete) == 4 else None)


def focal_px(info: PhotoInfo) -> float | None:
    """The focal length in px: calibrated, else by its equivalent on 35 mm film (same diagonal angle)."""
    if info.focal_px is not None:
        return info.focal_px
    if info.focal_35mm is None or not info.width_px or not info.height_px:
        return None
    return info.focal_35mm / DIAGONAL_35MM * math.hypot(info.width_px, info.height_px)


def _rays(info: PhotoInfo, focal: float, width: int, height: int) -> np.ndarray:
    """[7, 3] directions (east, north, up) of the centre, left, right and the corners of the image."""
    yaw = math.radians(info.heading_deg or 0)
    pitch = math.radians(-90 if info.gimbal_pitch_deg is None else info.gimbal_pitch_deg)
    roll = math.radians(info.gimbal_roll_deg or 0)
    forward = np.array([math.sin(yaw) * math.cos(pitch), math.cos(yaw) * math.cos(pitch), math.sin(pitch)])
    right = np.array([math.cos(yaw), -math.sin(yaw), 0.0])
    down = np.cross(forward, right)
    right, down = (
        math.cos(roll) * right + math.sin(roll) * down,
        math.cos(roll) * down - math.sin(roll) * right,
    )
    x, y = width / 2 / focal, height / 2 / focal
    at = [(0, 0), (-x, 0), (x, 0), (-x, -y), (x, -y), (x, y), (-x, y)]
    return np.array([forward + u * right + v * down for u, v in at])


def _ground(ray: np.ndarray, height: float) -> tuple[float, float] | None:
    """Where a ray meets the ground, None above the horizon and just below it."""
    if -ray[2] < math.sin(math.radians(LOWEST_DEG)) * float(np.linalg.norm(ray)):
        return None
    scale = height / -ray[2]
    return float(ray[0] * scale), float(ray[1] * scale)
