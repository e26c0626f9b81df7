"""Which of a photo's peaks is fitted and believed, from the fits alone."""

import numpy as np
import pytest
import torch

from cvgl_ray.alignment import verify
from cvgl_ray.alignment.flight import Found
from cvgl_ray.alignment.ground_fit import Refined
from cvgl_ray.alignment.photo_search import Peaks
from cvgl_ray.alignment.plane import similarity
from cvgl_ray.alignment.scales import Scale

POSE = similarity(0, 0, 0, 100)
MEAN, SPREAD = 0.12, 0.04  # of wrong fits


def fits(scores: np.ndarray) -> list[list[Refined]]:
    return [[Refined(POSE, float(score), 0.5, 1.0) for score in photo] for photo in scores]


def flight(photos: int, right: int, best: float, seed: int) -> np.ndarray:
    """Scores [photos, 4] of wrong fits, but for one of each of the first `right` photos."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(MEAN, SPREAD, (photos, verify.CANDIDATES))
    scores[:right, 1] = rng.normal(best, 0.08, right)
    return scores


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("right", [0, 1, 30, 59, 60])
def test_right_fits_are_told_from_wrong_ones_whatever_their_share(right: int, seed: int) -> None:
    sure = verify.confidence(fits(flight(60, right, 0.42, seed)))
    assert (sure[:right] >= 0.5).mean() >= 0.9 if right else True
    assert (sure[right:] >= 0.5).sum() <= 1


def test_confidence_promises_no_more_than_holds_where_both_kinds_meet() -> None:
    scores = np.concatenate([flight(60, 30, 0.27, seed) for seed in range(40)])
    sure = np.concatenate([verify.confidence(fits(part)) for part in np.split(scores, 40)])
    right = np.tile(np.arange(60) < 30, 40)
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.01)):
        inside = (sure >= low) & (sure < high)
        assert right[inside].mean() > low - 0.1, high
    assert 0.25 < sure.mean() < 0.55


def test_one_photo_is_judged_by_itself() -> None:
    assert verify.confidence(fits(np.array([[0.45, 0.1, 0.12, 0.09]])))[0] > 0.8
    assert verify.confidence(fits(np.array([[0.14, 0.1, 0.12, 0.09]])))[0] < 0.3
    assert verify.confidence([[], *fits(np.array([[0.5]]))])[0] < 0.5


def test_candidates_lie_apart_and_the_surest_photos_have_one() -> None:
    photos, scales = 40, [Scale(0.5, 224)]
    east = torch.tensor([[0.0, 20.0, 500.0, 900.0, 1300.0, 1700.0]]).double().repeat(photos, 1)
    zero = torch.zeros(photos, 6, dtype=torch.long)
    score = torch.tensor([[0.5, 0.4, 0.3, 0.2, 0.1, -torch.inf]]).repeat(photos, 1)
    sure = torch.linspace(0, 1, photos)
    found = Found(Peaks(score, east, torch.zeros(photos, 6).double(), zero, zero), sure, sure, 0.02)
    chosen, poses = verify.candidates(found, scales, [0.0])
    assert (chosen[0], chosen[-1]) == ([0, 2, 3, 4], [0])
    assert [round(pose.middle[0]) for pose in poses[0]] == [0, 500, 900, 1300]
    assert [len(photo) for photo in poses] == [4] * 20 + [1] * 20


def test_the_peak_of_the_best_fit_comes_first_and_its_fit_says_how_sure():
    photos = 20
    east = torch.tensor([[0.0, 500.0, 900.0]]).double().repeat(photos, 1)
    zero = torch.zeros(photos, 3, dtype=torch.long)
    score = torch.tensor([[0.5, 0.4, 0.3]]).repeat(photos, 1)
    unsure = torch.zeros(photos)
    found = Found(Peaks(score, east, torch.zeros(photos, 3).double(), zero, zero), unsure, unsure, 0.02)
    scores = flight(photos, 15, 0.45, 0)[:, :3]
    known = verify.with_fits(found, [[0, 1, 2]] * photos, fits(scores))
    assert (known.peaks.east[:15, 0] == 500).all()
    assert (known.confidence[:15] >= 0.8).float().mean() >= 0.8
    assert (known.confidence[15:] < 0.5).all()
    assert sorted(known.peaks.score[0].tolist()) == sorted(score[0].tolist())
