"""How a photo lies on the ground: a homography from the photo to metres, its readings and its fit."""

import math
from typing import NamedTuple

import numpy as np


class Pose(NamedTuple):
    """A photo on the ground.

    matrix: [3, 3] float64, from the photo's plane to metres of the frame. A point of the plane is (right, up)
    of the photo's middle, in sides of the photo, the side being the root of its number of valid pixels.
    """

    matrix: np.ndarray

    @property
    def middle(self) -> tuple[float, float]:
        """(east, north) in metres of the ground under the photo's middle."""
        east, north = apply(self.matrix, np.zeros((1, 2)))[0]
        return float(east), float(north)

    @property
    def heading_deg(self) -> float:
        """Of the photo's top, clockwise from north, in [0, 360), at its middle."""
        _, up = self._axes()
        return math.degrees(math.atan2(up[0], up[1])) % 360

    @property
    def side_m(self) -> float:
        """The root of the ground, in square metres, that a square of one side would show at the middle."""
        right, up = self._axes()
        return math.sqrt(abs(right[0] * up[1] - right[1] * up[0]))

    def width_m(self, width_sides: float) -> float:
        """The ground that a row through the middle shows, in metres; its length is given in sides."""
        right, _ = self._axes()
        return float(np.hypot(*right)) * width_sides

    def _axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Metres per side at the photo's middle, to its right and upwards."""
        last = self.matrix[2, 2]
        middle = self.matrix[:2, 2] / last
        right, up = ((self.matrix[:2, k] - self.matrix[2, k] * middle) / last for k in (0, 1))
        return right, up


def similarity(east: float, north: float, heading_deg: float, side_m: float) -> Pose:
    """The pose of a photo that looks straight down."""
    cos, sin = math.cos(math.radians(heading_deg)) * side_m, math.sin(math.radians(heading_deg)) * side_m
    return Pose(np.array([[cos, sin, east], [-sin, cos, north], [0.0, 0.0, 1.0]]))


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A homography [3, 3] of points [n, 2]; a point on or beyond the horizon becomes NaN."""
    out = points @ matrix[:, :2].T + matrix[:, 2]
    depth = np.where(out[:, 2:] > 1e-9, out[:, 2:], np.nan)
    return out[:, :2] / depth


def fit(
    plane: np.ndarray, ground: np.ndarray, weights: np.ndarray, start: Pose, *, kind: str, scale_m: float
) -> tuple[Pose, np.ndarray, np.ndarray]:
    """The pose that takes points of the plane [n, 2] to the ground [n, 2], in metres, robustly.

    kind: "similarity", "affine" or "homography". Reweighted least squares with Cauchy's weights, whose scale
    falls to scale_m; the departure from `start` costs as much as `PRIOR` points.
    Returns the pose, the final weights [n] and the covariance [2, 2] of its middle, in square metres, where
    the points' errors are independent.
    """
    origin, unit = np.array(start.middle), start.side_m
    target = (ground - origin) / unit
    rows = np.concatenate([_rows(plane, target, axis, kind) for axis in (0, 1)])
    sought = target.T.ravel()
    before = _parameters(start, origin, unit, kind)
    prior = PRIOR * np.ones(len(before))
    found = before
    robust = weights
    for step in range(STEPS):
        scale = scale_m / unit * max(1.0, 4.0 * 0.5**step)
        residual = (rows @ found - sought).reshape(2, -1)
        robust = weights / (1 + (residual**2).sum(0) / scale**2)
        both = np.concatenate([robust, robust])
        normal = (rows * both[:, None]).T @ rows + np.diag(prior)
        found = np.linalg.solve(normal, (rows * both[:, None]).T @ sought + prior * before)
    residual = (rows @ found - sought).reshape(2, -1)
    variance = (robust * (residual**2).sum(0)).sum() / max(2 * robust.sum() - len(found), 1.0)
    inverse = np.linalg.inv(normal)
    at_middle = np.concatenate([_rows(np.zeros((1, 2)), np.zeros((1, 2)), axis, kind) for axis in (0, 1)])
    covariance = variance * at_middle @ inverse @ at_middle.T * unit**2
    return _pose(found, origin, unit, kind), robust, covariance


PRIOR = 0.3  # points, of weight 1
STEPS = 12


def _rows(plane: np.ndarray, target: np.ndarray, axis: int, kind: str) -> np.ndarray:
    """Equations of one coordinate of the ground, linear in the parameters."""
    x, y = plane.T
    one, zero = np.ones_like(x), np.zeros_like(x)
    if kind == "similarity":  # a, b, e, n
        return np.stack([x, y, one, zero] if axis == 0 else [y, -x, zero, one], axis=1)
    rows = [x, y, one, zero, zero, zero] if axis == 0 else [zero, zero, zero, x, y, one]
    if kind == "homography":
        rows += [-target[:, axis] * x, -target[:, axis] * y]
    return np.stack(rows, axis=1)


def _parameters(pose: Pose, origin: np.ndarray, unit: float, kind: str) -> np.ndarray:
    matrix = pose.matrix / pose.matrix[2, 2]
    matrix = np.concatenate([(matrix[:2] - origin[:, None] * matrix[2]) / unit, matrix[2:]])
    if kind == "similarity":
        a, b = matrix[0, 0] + matrix[1, 1], matrix[0, 1] - matrix[1, 0]
        return np.array([a / 2, b / 2, matrix[0, 2], matrix[1, 2]])
    if kind == "affine":
        return np.concatenate([matrix[0], matrix[1]])
    return np.concatenate([matrix[0], matrix[1], matrix[2, :2]])


def _pose(found: np.ndarray, origin: np.ndarray, unit: float, kind: str) -> Pose:
    if kind == "similarity":
        a, b, east, north = found
        local = np.array([[a, b, east], [-b, a, north], [0, 0, 1.0]])
    else:
        last = found[6:8] if kind == "homography" else np.zeros(2)
        local = np.array([found[:3], found[3:6], [*last, 1.0]])
    return Pose(np.concatenate([local[:2] * unit + origin[:, None] * local[2], local[2:]]))
