"""Photos cut from a drawn map under known poses are found again; photos of another map are not."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from cvgl_ray.alignment import flight, ground_fit, map_cells, photo_adapter, photo_search, verify
from cvgl_ray.alignment.adaptation import adapt
from cvgl_ray.alignment.plane import apply, fit, similarity
from cvgl_ray.alignment.scales import photo_sides, plan_scales, resolutions
from cvgl_ray.alignment.turned import photo_cells
from cvgl_ray.maps.frame import Window
from cvgl_ray.maps.warp import Pixels

STRIDE = 16
AREA = Window(-300.0, -250.0, 300.0, 250.0)
HEADINGS = [30.0 * step for step in range(12)]
NATIVE = 1.0  # metres per pixel of the map


def forward(pictures: torch.Tensor) -> torch.Tensor:
    """In place of a network: the 4 x 4 mean colours of each cell, [B, 48, h, w]."""
    small = F.avg_pool2d(pictures.float(), STRIDE // 4)
    return F.pixel_unshuffle(small, 4)


class Ground:
    """A picture of smooth noise at one pixel per metre, read like a map, and photographed."""

    def __init__(self, seed: int) -> None:
        noise = np.random.default_rng(seed).normal(size=(500, 600, 3))
        blurred = sum(ndimage.gaussian_filter(noise, (s, s, 0)) * s for s in (4.0, 10.0))
        self.rgb = np.clip(128 + blurred / blurred.std() * 45, 6, 250)

    def at(self, east: np.ndarray, north: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = AREA.north - north - 0.5, east - AREA.west - 0.5
        rgb = np.stack(
            [ndimage.map_coordinates(self.rgb[..., c], [rows, columns], order=1) for c in range(3)], -1
        )
        valid = (rows > -0.5) & (rows < 499.5) & (columns > -0.5) & (columns < 599.5)
        return np.where(valid[..., None], rgb, 0).astype(np.uint8), valid

    def read(self, window: Window, metres_per_pixel: float) -> Pixels:
        height, width = window.size(metres_per_pixel)
        rows, columns = np.mgrid[:height, :width] + 0.5
        east, north = window.from_pixel(rows, columns, metres_per_pixel)
        return Pixels(*self.at(east, north), ())

    def photo(self, matrix: np.ndarray, height: int = 180, width: int = 240) -> np.ndarray:
        rows, columns = np.mgrid[:height, :width] + 0.5
        side = math.sqrt(height * width)
        plane = np.stack([(columns - width / 2) / side, (height / 2 - rows) / side], axis=-1).reshape(-1, 2)
        there = apply(matrix, plane).reshape(height, width, 2)
        return self.at(there[..., 0], there[..., 1])[0]


TRUE = [similarity(-60, 40, 0, 120), similarity(90, -70, 90, 110), similarity(10, 100, 205, 130),
        similarity(-120, -80, 317, 105), similarity(120, 60, 148, 120)]  # fmt: skip
SCALES = plan_scales(NATIVE, 112, (80.0, 180.0))


def cells_of(pictures: list[np.ndarray]) -> flight.Photos:
    return {
        side: [
            photo_cells(rgb, np.ones(rgb.shape[:2], bool), side, HEADINGS, forward, STRIDE)
            for rgb in pictures
        ]
        for side in photo_sides(SCALES)
    }


@pytest.fixture(scope="module")
def ground() -> Ground:
    return Ground(0)


@pytest.fixture(scope="module")
def levels(ground: Ground) -> flight.Levels:
    return {r: map_cells.extract(ground.read, AREA, r, forward, STRIDE) for r in resolutions(SCALES)}


@pytest.fixture(scope="module")
def photos(ground: Ground) -> flight.Photos:
    return cells_of([ground.photo(pose.matrix) for pose in TRUE] + [Ground(7).photo(TRUE[0].matrix)])


@pytest.fixture(scope="module")
def adapter(photos: flight.Photos, levels: flight.Levels) -> photo_adapter.CellAdapter:
    samples = flight.cell_samples(photos, levels)
    return photo_adapter.frozen_adapter({name: rows.mean(0) for name, rows in samples}, samples)


def test_photos_are_found_and_the_one_from_elsewhere_is_not(
    photos: flight.Photos, levels: flight.Levels, adapter: photo_adapter.CellAdapter
) -> None:
    found = flight.decide(flight.shard_peaks(photos, levels, SCALES, adapter), SCALES)
    for number, pose in enumerate(TRUE):
        east, north = pose.middle
        assert math.dist((found.peaks.east[number, 0], found.peaks.north[number, 0]), (east, north)) < 16
        turn = HEADINGS[int(found.peaks.heading[number, 0])] - pose.heading_deg
        assert abs((turn + 180) % 360 - 180) <= 15
        assert 1 / 1.3 < SCALES[int(found.peaks.scale[number, 0])].side_m / pose.side_m < 1.3
    assert found.confidence[:5].min() > 0.5
    assert found.confidence[5] < 0.5


def test_shards_give_what_the_whole_map_gives(
    photos: flight.Photos, ground: Ground, levels: flight.Levels, adapter: photo_adapter.CellAdapter
) -> None:
    whole = flight.shard_peaks(photos, levels, SCALES, adapter)
    parts = []
    for core in (Window(-999, -999, 0, 999), Window(0, -999, 999, 999)):
        near = core.grown(200)
        shard = {key: level.within(near) for key, level in levels.items()}
        parts.append(flight.shard_peaks(photos, shard, SCALES, adapter, core))
    joined = [photo_search.merged(both, photo_search.PEAKS) for both in zip(*parts, strict=True)]
    for one, other in zip(whole, joined, strict=True):
        torch.testing.assert_close(one.score, other.score, atol=1e-4, rtol=0)
        torch.testing.assert_close(one.east[:, 0], other.east[:, 0])
        torch.testing.assert_close(one.north[:, 0], other.north[:, 0])


def test_a_flight_teaches_from_cells_that_lie_on_each_other(ground: Ground, levels: flight.Levels) -> None:
    own = cells_of([ground.photo(pose.matrix) for pose in TRUE] * 3)
    taught_from = []

    def pairs(adapter: photo_adapter.CellAdapter, found: flight.Found) -> torch.Tensor:
        taught_from.append(flight.shard_pairs(own, levels, SCALES, adapter, found))
        return taught_from[0]

    adapted = adapt(
        lambda adapter: flight.shard_peaks(own, levels, SCALES, adapter),
        pairs,
        flight.cell_samples(own, levels),
        SCALES,
    )
    assert len(adapted.rounds) == 2
    cosines = 1 - taught_from[0].square().sum(dim=1) / 2  # of unit cells, from their difference
    assert cosines.mean() > 0.4
    assert adapted.found.confidence.min() > 0.8


def test_refinement_follows_a_tilted_camera_to_metres(ground: Ground) -> None:
    true = similarity(20, -30, 40, 120)
    tilted = true.matrix @ np.array([[1, 0, 0], [0, 1, 0], [0.0, 0.25, 1]])
    rgb = ground.photo(tilted)
    start = similarity(27, -24, 49, 130)
    whole, network = np.ones(rgb.shape[:2], bool), torch.eye(48)
    on_map = ground_fit.Ground(ground.read, NATIVE, forward, STRIDE)
    elsewhere = similarity(-180, 150, 49, 130)
    wrong, right = verify.verify(rgb, whole, [elsewhere, start], on_map, network)
    assert right.score > 2 * wrong.score
    refined = ground_fit.refine(rgb, whole, right.pose, on_map, network)
    assert math.dist(refined.pose.middle, true.middle) < 2.0
    assert abs(refined.pose.heading_deg - 40) < 3
    assert refined.agreement > 0.5


def test_fit_recovers_a_homography_from_points_with_outliers() -> None:
    rng = np.random.default_rng(0)
    plane = rng.uniform(-0.6, 0.6, (200, 2))
    true = similarity(1000, -2000, 25, 150).matrix @ np.array([[1, 0, 0], [0, 1, 0], [0.1, 0.3, 1]])
    there = apply(true, plane)
    there[:40] += rng.uniform(-60, 60, (40, 2))
    pose, _, _ = fit(
        plane, there, np.ones(200), similarity(1005, -1990, 35, 140), kind="homography", scale_m=2
    )
    np.testing.assert_allclose(pose.middle, (1000, -2000), atol=0.5)


def test_teaching_weakens_what_differs_between_photo_and_map() -> None:
    generator = torch.Generator().manual_seed(0)
    differences = torch.randn(500, 8, generator=generator) * torch.tensor([5.0] + [0.1] * 7)
    adapter = photo_adapter.CellAdapter({}, torch.eye(8), torch.eye(8))
    taught = photo_adapter.taught(adapter, differences)
    assert taught.attenuation[0, 0] < 0.5 < 0.9 < taught.attenuation[1:, 1:].diagonal().min()
