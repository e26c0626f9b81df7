"""Leads by chance, the probability of being right, and what neighbours in time add."""

import torch

from cvgl_ray.alignment.confidence import apart, chance_lead, confidence, leads
from cvgl_ray.alignment.flight import Found
from cvgl_ray.alignment.path import Paths, along_paths
from cvgl_ray.alignment.photo_search import Peaks
from cvgl_ray.alignment.scales import Scale


def scores_by_chance(photos: int, generator: torch.Generator) -> torch.Tensor:
    """The eleven best of 2000 scores that mean nothing, their tail exponential of mean 0.02."""
    return torch.empty(photos, 2000).exponential_(50.0, generator=generator).topk(11).values


def test_gaps_between_wrong_peaks_tell_how_far_a_wrong_peak_leads() -> None:
    scores = scores_by_chance(400, torch.Generator().manual_seed(0))
    assert abs(chance_lead(scores) - 0.02) < 0.002
    assert abs(float(leads(scores).mean()) - 0.02) < 0.003


def test_confidence_is_the_share_of_right_photos() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = scores_by_chance(400, generator)
    right_leads = torch.empty(200, 2).exponential_(1 / 0.06, generator=generator).sum(dim=1)
    scores[:200, 0] = scores[:200, 1] + right_leads
    sure = confidence(leads(scores), chance_lead(scores))
    right = torch.arange(400) < 200
    assert abs(float(sure.mean()) - 0.5) < 0.07
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.01)):
        inside = (sure >= low) & (sure < high)
        assert low - 0.15 < float(right[inside].float().mean()) < high + 0.15


def test_a_flight_that_lies_nowhere_is_not_found() -> None:
    scores = scores_by_chance(60, torch.Generator().manual_seed(2))
    assert float((confidence(leads(scores), chance_lead(scores)) >= 0.5).float().mean()) < 0.1


def test_peaks_of_one_place_count_once_and_a_photo_without_peaks_leads_by_nothing() -> None:
    zero = torch.zeros(2, 4, dtype=torch.long)
    score = torch.tensor([[0.5, 0.4, 0.3, 0.1], [-torch.inf] * 4])
    east = torch.tensor([[0.0, 20.0, 500.0, 900.0], [0.0] * 4]).double()
    found = apart(Peaks(score, east, torch.zeros(2, 4).double(), zero, zero), torch.tensor([50.0, 50.0]))
    torch.testing.assert_close(found[0, :3], torch.tensor([0.5, 0.3, 0.1]))
    torch.testing.assert_close(leads(found), torch.tensor([0.2, 0.0]))
    assert float(confidence(torch.zeros(3), torch.inf).max()) == 0.0


def test_neighbours_choose_between_two_peaks_and_doubt_a_leap() -> None:
    """Twelve photos 30 m apart; the sixth's best peak lies far off, its second on the path."""
    east = 30.0 * torch.arange(12).double()[:, None].repeat(1, 2)
    east[:, 1] += 1500.0
    east[5] = torch.tensor([2500.0, 150.0]).double()
    score = torch.tensor([[0.4, 0.2]]).repeat(12, 1)
    score[5] = torch.tensor([0.24, 0.23])
    zero = torch.zeros(12, 2, dtype=torch.long)
    sure = torch.full((12,), 0.97)
    sure[5] = 0.4
    found = Found(Peaks(score, east, torch.zeros(12, 2).double(), zero, zero), torch.zeros(12), sure, 0.02)
    scales = [Scale(0.5, 224)]
    moments = [float(k) for k in range(12)]
    path = along_paths(found, scales, Paths([range(12)], moments, 4e6))
    assert float(path.peaks.east[5, 0]) == 150.0
    assert path.confidence[5] > 0.8
    torch.testing.assert_close(path.peaks.east[:5, 0], east[:5, 0])
    alone = along_paths(found, scales, Paths([[5]], moments, 4e6))
    torch.testing.assert_close(alone.confidence, sure)
