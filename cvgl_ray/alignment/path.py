"""Photos of one flight form a path: neighbours in time lie near each other, and so vouch for each other.

A chain of hidden states, one per photo: one of its peaks, or nowhere on the map. Forward and backward give
each state's probability (Rabiner, Proceedings of the IEEE 77, 1989).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch

from cvgl_ray.alignment.flight import Found, apart_m
from cvgl_ray.alignment.photo_search import Peaks, brought_first, distinct
from cvgl_ray.alignment.scales import Scale

STATES = 8  # peaks of a photo that a path may choose from
RIVALS = 0.5  # probability that a photo whose best peak is wrong lies at one of its others
SURE = 0.8
LEAST_STEPS = 5  # between sure neighbours, to tell how far a flight moves
STRAY = 0.1  # probability that a flight is anywhere at the next photo: a cut, or a false time


class Paths(NamedTuple):
    """The flights of N photos over a map.

    flights: the indices of each flight's photos in order; photos in none keep what they have. moments: [N] of
    photos, in seconds or any unit that a flight's photos share, such as the number of a frame. area_m2: of
    the map.
    """

    flights: Sequence[Sequence[int]]
    moments: Sequence[float]
    area_m2: float


def along_paths(found: Found, scales: Sequence[Scale], paths: Paths) -> Found:
    """What is found once neighbours are asked: peaks reordered and confidence changed, never the lead.

    Where fewer than LEAST_STEPS neighbours are sure, nothing tells how far the flight moves, and its photos
    keep what they have.
    """
    states = [kept or [0] for kept in distinct(found.peaks, apart_m(found.peaks, scales), STATES)]
    chosen, confidence = [0] * len(states), found.confidence.clone()
    for flight in paths.flights:
        reach = _reach(found, flight, paths.moments)
        if reach is None:
            continue
        shares = _smooth(found, states, flight, paths, reach)
        for photo, share in zip(flight, shares, strict=True):
            best = int(share.argmax())
            chosen[photo], confidence[photo] = states[photo][best], share[best].float()
    return found._replace(peaks=brought_first(found.peaks, chosen), confidence=confidence)


def vouched(found: Found, scales: Sequence[Scale], paths: Paths) -> Found:
    """What is found, as sure as the path is of each photo's first peak; the peaks stay as they are.

    Where the path prefers another peak, the first is believed no more than that one leaves.
    """
    path = along_paths(found, scales, paths)
    own, other = found.peaks, path.peaks
    same = (own.east[:, 0] == other.east[:, 0]) & (own.north[:, 0] == other.north[:, 0])
    left = torch.minimum(found.confidence, 1 - path.confidence)
    return found._replace(confidence=torch.where(same, path.confidence, left))


def _reach(found: Found, flight: Sequence[int], moments: Sequence[float]) -> float | None:
    """Metres that the flight moves per unit of time: the median between sure neighbours."""
    east, north = found.peaks.east[:, 0], found.peaks.north[:, 0]
    speeds = [
        float(torch.hypot(east[b] - east[a], north[b] - north[a])) / max(moments[b] - moments[a], 1e-9)
        for a, b in pairwise(flight)
        if min(float(found.confidence[a]), float(found.confidence[b])) >= SURE
    ]
    return float(torch.tensor(speeds).median()) if len(speeds) >= LEAST_STEPS else None


def _smooth(
    found: Found,
    states: list[list[int]],
    flight: Sequence[int],
    paths: Paths,
    reach: float,
) -> list[torch.Tensor]:
    """Probability of each of a photo's states, given the whole flight; what is missing to 1 is "nowhere"."""
    alone = [_alone(found, photo, states[photo]) for photo in flight]
    gaps = [max(paths.moments[b] - paths.moments[a], 1e-9) for a, b in pairwise(flight)]
    steps = [
        _step(found.peaks, (a, states[a]), (b, states[b]), reach * gap, paths.area_m2)
        for (a, b), gap in zip(pairwise(flight), gaps, strict=True)
    ]
    forward, backward = [alone[0]], [torch.ones_like(alone[-1])]
    for step, own in zip(steps, alone[1:], strict=True):
        message = (forward[-1] @ step) * own
        forward.append(message / message.sum())
    for step, own in zip(reversed(steps), reversed(alone[1:]), strict=True):
        message = step @ (backward[-1] * own)
        backward.append(message / message.sum())
    both = [one * other for one, other in zip(forward, reversed(backward), strict=True)]
    return [(share / share.sum())[:-1] for share in both]


def _alone(found: Found, photo: int, states: list[int]) -> torch.Tensor:
    """Probability of each state, "nowhere" last, of the photo by itself."""
    sure = float(found.confidence[photo].clamp(1e-6, 1 - 1e-6))
    rivals = found.peaks.score[photo, states[1:]].double() / max(found.chance, 1e-9)
    other = (1 - sure) * (RIVALS if len(rivals) else 0.0)
    shares = torch.softmax(rivals, dim=0) * other
    return torch.cat([torch.tensor([sure]).double(), shares, torch.tensor([1 - sure - other]).double()])


def _step(
    peaks: Peaks, first: tuple[int, list[int]], second: tuple[int, list[int]], reach_m: float, area_m2: float
) -> torch.Tensor:
    """How much likelier two states are together than each by itself; 1 where one of them is nowhere.

    Neighbours lie a gap apart whose density in the plane falls exponentially, its mean twice `reach_m`.
    """
    (a, at), (b, to) = first, second
    reach_m = max(reach_m, 1.0)
    gap = torch.hypot(
        peaks.east[a, at][:, None] - peaks.east[b, to], peaks.north[a, at][:, None] - peaks.north[b, to]
    )
    density = (-gap / reach_m).exp() / (2 * torch.pi * reach_m**2)
    ratio = torch.ones(len(at) + 1, len(to) + 1, dtype=torch.float64)
    ratio[:-1, :-1] = (1 - STRAY) * density * area_m2 + STRAY
    return ratio
