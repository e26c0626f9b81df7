"""From a verified pose to a place: fitted to the ground in finer cells, with its error and its confidence."""

import math
from typing import NamedTuple

import numpy as np
import torch

from cvgl_ray.alignment.ground_fit import Ground, Refined, refine
from cvgl_ray.alignment.plane import Pose, apply

FOUND = 0.5  # a place is reported from this confidence on
EIGHTY = 1.794  # standard deviations of one axis within which 80 % of the points of a plane lie
# Share of a photo's side by which whole photos are off, whatever their parts agree on: roofs and trees lean
# away from the point below each camera, and maps are registered to a metre or two (experiments/LOG.md).
COMMON = 0.017
STRETCHED = 3.0  # how far off a corner may be, in half diagonals of the photo at its middle's scale


class Place(NamedTuple):
    """Where one photo was taken. east, north: metres of the map's frame, of the ground under its middle."""

    pose: Pose
    ground_width_m: float
    error_m: float  # 80 % of the found photos are expected to lie within it
    confidence: float
    found: bool
    # (east, north) under the image's corners, clockwise from its upper left; None: they cannot be told
    corners: tuple[tuple[float, float], ...] | None = None

    @property
    def middle(self) -> tuple[float, float]:
        """(east, north) in metres."""
        return self.pose.middle

    @property
    def heading_deg(self) -> float:
        """Of the photo's top, clockwise from the frame's north, in [0, 360)."""
        return self.pose.heading_deg


def locate(
    rgb: np.ndarray,
    valid: np.ndarray,
    start: Refined,
    confidence: float,
    ground: Ground,
    attenuation: torch.Tensor,
) -> Place:
    """One photo's place, from the best fit of `verify`; rgb [H, W, 3] uint8, valid [H, W] bool.

    A finer fit that leaves it, as it may where a photo lies elsewhere, is not believed: the start stands.
    The rest: see ground_fit.refine.
    """
    refined = start
    if confidence >= FOUND:
        refined = refine(rgb, valid, start.pose, ground, attenuation)
    if not believable(start.pose, refined):
        refined = Refined(start.pose, start.score, start.agreement, start.pose.side_m / 4)
    side_px = math.sqrt(max(1, int(valid.sum())))
    width = refined.pose.width_m(valid.shape[1] / side_px)
    error = math.hypot(EIGHTY * refined.error_m, COMMON * refined.pose.side_m)
    corners = corners_of(refined.pose, valid.shape[1] / side_px, valid.shape[0] / side_px)
    return Place(refined.pose, width, error, confidence, confidence >= FOUND, corners)


def corners_of(pose: Pose, width_sides: float, height_sides: float) -> tuple[tuple[float, float], ...] | None:
    """(east, north) in metres under an image's corners, clockwise from its upper left: a camera that looks
    aslant shows no rectangle.

    None where a corner sees no ground, or ground so far off that the fit, which knows the photo's parts
    alone, cannot tell it: the fit's homography is trusted up to STRETCHED times the middle's scale.
    """
    half = np.array([width_sides, height_sides]) / 2
    found = apply(pose.matrix, np.array([(-1, 1), (1, 1), (1, -1), (-1, -1)]) * half)
    reach = STRETCHED * math.hypot(*half) * pose.side_m
    if not np.isfinite(found).all() or np.hypot(*(found - pose.middle).T).max() > reach:
        return None
    after = np.roll(found, -1, axis=0) - found
    turns = after[:, 0] * np.roll(after[:, 1], -1) - after[:, 1] * np.roll(after[:, 0], -1)
    if (turns >= 0).any():  # it crosses itself or is mirrored
        return None
    return tuple((float(east), float(north)) for east, north in found)


def believable(start: Pose, refined: Refined) -> bool:
    """Whether a fit stayed where the search had put the photo."""
    if not np.isfinite(refined.pose.matrix).all() or not math.isfinite(refined.error_m):
        return False
    moved = math.dist(start.middle, refined.pose.middle)
    turned = abs((start.heading_deg - refined.pose.heading_deg + 180) % 360 - 180)
    ratio = refined.pose.side_m / start.side_m
    return moved <= 0.5 * start.side_m and turned <= 40 and 0.6 <= ratio <= 1.67
