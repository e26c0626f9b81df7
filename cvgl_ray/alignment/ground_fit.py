"""From a pose to within cells to one within metres: parts of the photo are shifted over the map on their own.

The photo is laid on the map by its pose, both are brought to finer cells, and each part of the photo finds
its own shift. A homography fitted to the shifts, robustly, is the next pose: it follows a tilted camera,
which no heading, width and position can.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from cvgl_ray.alignment.map_cells import Forward, Read, filled
from cvgl_ray.alignment.plane import Pose, apply, fit
from cvgl_ray.maps.frame import Window

PART = 5  # cells per side of the parts that find a shift of their own
LEAST_PART = 0.4  # share of a part's cells that must lie on photo and map
SPACING = 2  # cells between parts
WHOLE = 0.9


class Pass(NamedTuple):
    """One fit: the photo's side in px, the shifts searched, in cells, and what is fitted."""

    side_px: int
    reach: int
    kind: str


PASSES = (Pass(384, 4, "affine"), Pass(384, 2, "homography"))  # from a pose that `verify` fitted


class Refined(NamedTuple):
    """A refined pose. score: the mean cosine of the cells that lay on each other before the last fit.

    agreement: share of the parts that shift as the pose says. error_m: the standard deviation of the middle,
    in metres per axis, as the parts' residuals tell it.
    """

    pose: Pose
    score: float
    agreement: float
    error_m: float


class Ground(NamedTuple):
    """A map, read as maps.GeoMap does, and the network that makes cells of its windows and of photos.

    native: metres per pixel of the map, beyond which nothing is gained; stride: px per cell.
    """

    read: Read
    native: float
    forward: Forward
    stride: int


def refine(
    rgb: np.ndarray,
    valid: np.ndarray,
    pose: Pose,
    ground: Ground,
    attenuation: torch.Tensor,
    passes: tuple[Pass, ...] = PASSES,
) -> Refined:
    """The pose of a photo after some passes; rgb [H, W, 3] uint8, valid [H, W] bool; attenuation: [C, C]."""
    found = Refined(pose, 0.0, 0.0, math.inf)
    for one in passes:
        resolution = max(found.pose.side_m / one.side_px, ground.native / 1.25)
        laid = _lay(rgb, valid, found.pose, ground.read, resolution, ground.stride, one.reach)
        if laid is None:
            return found
        window, photo, mask, picture, there = laid
        cells, on_photo = _cells(photo, mask, ground.forward, ground.stride, attenuation)
        under, on_map = _cells(picture, there, ground.forward, ground.stride, attenuation)
        volume, share = _shifts(cells * on_photo, under * on_map, on_photo & on_map, one.reach)
        found = _fitted(found, volume, share, window, resolution * ground.stride, one)
    return found


def _lay(
    rgb: np.ndarray, valid: np.ndarray, pose: Pose, read: Read, resolution: float, stride: int, reach: int
) -> tuple[Window, np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """The map's window around a photo, and the photo as it lies in it: pixels and masks of both."""
    height, width = valid.shape
    side = math.sqrt(max(1, int(valid.sum())))
    edge = np.array([[x, y] for x in (-1, 1) for y in (-1, 1)]) * [width / 2 / side, height / 2 / side]
    corners = apply(pose.matrix, edge)
    if not np.isfinite(corners).all() or np.ptp(corners, axis=0).max() > 6 * pose.side_m:
        return None
    cell = resolution * stride
    west, south = corners.min(axis=0) - reach * cell
    east, north = corners.max(axis=0) + reach * cell
    columns, rows = math.ceil((east - west) / cell), math.ceil((north - south) / cell)
    window = Window(west, north - rows * cell, west + columns * cell, north)
    picture = read(window, resolution)
    # The photo is made as coarse as the map first: sampling alone would alias.
    shrink = min(1.0, pose.side_m / resolution / side)
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    small = np.array(Image.fromarray(filled(rgb, valid)).resize(size, Image.Resampling.BICUBIC))
    inside = np.array(Image.fromarray(valid).convert("L").resize(size, Image.Resampling.BILINEAR)) > 127
    y, x = np.mgrid[: rows * stride, : columns * stride] + 0.5
    there = np.stack([window.west + x * resolution, window.north - y * resolution], axis=-1)
    back = apply(np.linalg.inv(pose.matrix), there.reshape(-1, 2)).reshape(*there.shape)
    grid = back * [2 * side / width, -2 * side / height]
    grid = torch.from_numpy(np.nan_to_num(grid, nan=9.0).astype(np.float32))[None]
    mean = small[inside].mean(axis=0) if inside.any() else np.full(3, 128.0)
    layers = np.concatenate([(small - mean) * inside[:, :, None], inside[:, :, None]], axis=2)
    tensor = torch.from_numpy(layers.astype(np.float32)).permute(2, 0, 1)[None]
    out = F.grid_sample(tensor, grid, align_corners=False)[0].permute(1, 2, 0).numpy()
    photo = (out[:, :, :3] + mean).round().clip(0, 255).astype(np.uint8)
    return window, photo, out[:, :, 3] > 0.5, filled(picture.rgb, picture.valid), picture.valid


def _cells(
    picture: np.ndarray, valid: np.ndarray, forward: Forward, stride: int, attenuation: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cells [C, h, w] of unit length, about this picture's own mean, and the mask [h, w] of valid ones."""
    found = forward(torch.from_numpy(picture).permute(2, 0, 1)[None])[0].float()
    mask = F.avg_pool2d(torch.from_numpy(valid).float()[None, None], stride)[0, 0] >= WHOLE
    mean = found[:, mask].mean(dim=1) if mask.any() else found.flatten(1).mean(dim=1)
    rows = F.normalize(found.flatten(1).T - mean, dim=1) @ attenuation.T
    return F.normalize(rows, dim=1).T.reshape(found.shape), mask


def _shifts(
    photo: torch.Tensor, ground: torch.Tensor, mask: torch.Tensor, reach: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cosine of the part about each cell, for each shift of the photo: [2 reach + 1, 2 reach + 1, h, w].

    Shift [i, j] lays the photo's cell (y, x) on the map's (y + i - reach, x + j - reach). Also the share of
    each part that is valid, [h, w].
    """
    height, width = mask.shape
    padded = F.pad(ground, (reach,) * 4)
    side = 2 * reach + 1
    products = torch.stack(
        [
            (photo * padded[:, i : i + height, j : j + width]).sum(dim=0)
            for i in range(side)
            for j in range(side)
        ]
    )
    pool: Callable[[torch.Tensor], torch.Tensor] = lambda x: F.avg_pool2d(  # noqa: E731
        x, PART, stride=1, padding=PART // 2
    )
    share = pool(mask.float()[None])[0]
    sums = pool(products) / share.clamp(min=1e-6)
    return sums.view(side, side, height, width), share


def _fitted(
    before: Refined, volume: torch.Tensor, share: torch.Tensor, window: Window, cell: float, one: Pass
) -> Refined:
    side = 2 * one.reach + 1
    rows, columns = torch.nonzero(share >= LEAST_PART, as_tuple=True)
    kept = (rows % SPACING == 0) & (columns % SPACING == 0)
    rows, columns = rows[kept], columns[kept]
    if len(rows) < 6:
        return before
    curves = volume[:, :, rows, columns].permute(2, 0, 1)  # [n, side, side]
    best, index = curves.flatten(1).max(dim=1)
    down, right = index // side, index % side
    spread = curves.flatten(1).std(dim=1).clamp(min=1e-6)
    clear = ((best - curves.flatten(1).mean(dim=1)) / spread / math.sqrt(side)).clamp(0, 2)
    # A shift at the border of what was searched is hardly the true one.
    border = (down == 0) | (down == side - 1) | (right == 0) | (right == side - 1)
    weights = torch.where(border, 0.2, 1.0) * clear
    dy = down - one.reach + _vertex(curves, down, right, 0)
    dx = right - one.reach + _vertex(curves, down, right, 1)
    x, y = columns.double() + 0.5, rows.double() + 0.5
    here = np.stack([window.west + x.numpy() * cell, window.north - y.numpy() * cell], axis=1)
    there = here + np.stack([dx.double().numpy() * cell, -dy.double().numpy() * cell], axis=1)
    plane = apply(np.linalg.inv(before.pose.matrix), here)
    pose, robust, covariance = fit(
        plane, there, weights.double().numpy(), before.pose, kind=one.kind, scale_m=0.5 * cell
    )
    agreement = float(robust.sum() / max(float(weights.sum()), 1e-9))
    # Parts overlap: each shift is told PART^2 / SPACING^2 times.
    error = math.sqrt(float(np.trace(covariance)) / 2 * (PART / SPACING) ** 2)
    return Refined(pose, float(curves[:, one.reach, one.reach].mean()), agreement, error)


def _vertex(curves: torch.Tensor, down: torch.Tensor, right: torch.Tensor, axis: int) -> torch.Tensor:
    """The vertex, in [-0.5, 0.5], of the parabola through the best value and its neighbours on an axis."""
    side, n = curves.shape[1], torch.arange(len(curves))
    at = (down, right)[axis]
    low, high = (at - 1).clamp(min=0), (at + 1).clamp(max=side - 1)
    left, mid, more = (curves[n, v, right] if axis == 0 else curves[n, down, v] for v in (low, at, high))
    bend = left - 2 * mid + more
    vertex = 0.5 * (left - more) / bend.clamp(max=-1e-9)
    return torch.where((low == at) | (high == at), 0.0, vertex.clamp(-0.5, 0.5))
