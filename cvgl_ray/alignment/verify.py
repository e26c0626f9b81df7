"""Alignment proposes, the fit disposes: a photo's first peaks are fitted to the map, and the best stands.

The fit's score, the mean cosine of the photo's cells and those of the map under them once parts may shift,
tells right from wrong far better than the search's. At most one of a photo's peaks is right, so the fits of
all its others say how wrong peaks score on this map, by this network, without any truth.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from cvgl_ray.alignment.flight import Found, apart_m
from cvgl_ray.alignment.ground_fit import Ground, Pass, Refined, refine
from cvgl_ray.alignment.photo_search import brought_first, distinct
from cvgl_ray.alignment.plane import Pose, similarity
from cvgl_ray.alignment.scales import Scale

CANDIDATES = 4  # peaks of a photo that are fitted, each apart from the others
LEAST_UNSURE = 16  # photos that all candidates are fitted of, at least
PASSES = (Pass(224, 3, "similarity"), Pass(224, 2, "affine"))
# The largest of four normal scores, in standard deviations about their mean, where mean and deviation are
# taken from the three lower ones: its own mean and deviation, as those of Gumbel's distribution.
CHANCE_MEAN, CHANCE_SPREAD = 1.65, 0.85
RIGHT_MEAN, LEAST_RIGHT_MEAN = 7.0, 5.0  # of right fits, in the same unit: before any is seen, and at least
RIGHT_SPREAD = 0.3  # of their mean
PRIOR_MEAN, PRIOR_SPREAD, PRIOR_COUNT = 0.1, 0.035, 8.0  # of wrong fits, and how many fits that counts as
PSEUDO = 2.0  # photos that the prior share of right ones, a half, and their prior mean count as
ROUNDS = 50


def candidates(
    found: Found, scales: Sequence[Scale], headings: Sequence[float]
) -> tuple[list[list[int]], list[list[Pose]]]:
    """Of each photo the peaks that are to be fitted, the best first, and their poses; none where it has none.

    Of the surer half of the photos only the best is: the others' rivals tell enough of wrong fits.
    """
    count = len(found.confidence)
    unsure = set(found.confidence.argsort()[: max(LEAST_UNSURE, count // 2)].tolist())
    apart = distinct(found.peaks, apart_m(found.peaks, scales), CANDIDATES)
    chosen = [peaks if number in unsure else peaks[:1] for number, peaks in enumerate(apart)]
    poses = [
        [_pose(found, number, peak, scales, headings) for peak in peaks]
        for number, peaks in enumerate(chosen)
    ]
    return chosen, poses


def _pose(found: Found, number: int, peak: int, scales: Sequence[Scale], headings: Sequence[float]) -> Pose:
    east, north, scale, heading = (
        column[number, peak].item()
        for column in (found.peaks.east, found.peaks.north, found.peaks.scale, found.peaks.heading)
    )
    return similarity(east, north, headings[int(heading)], scales[int(scale)].side_m)


def with_fits(found: Found, chosen: Sequence[Sequence[int]], fits: Sequence[Sequence[Refined]]) -> Found:
    """What is found once peaks are fitted: the peak of the best fit is the first, and its fit says how sure.

    chosen, fits: by photo, the peaks that `candidates` chose and the fit of each.
    """
    best = [
        own[max(range(len(own)), key=lambda k: fitted[k].score)] if own else 0
        for own, fitted in zip(chosen, fits, strict=True)
    ]
    sure = torch.from_numpy(confidence(fits)).float()
    return found._replace(peaks=brought_first(found.peaks, best), confidence=sure)


def verify(
    rgb: np.ndarray,
    valid: np.ndarray,
    poses: Sequence[Pose],
    ground: Ground,
    attenuation: torch.Tensor,
) -> list[Refined]:
    """Each candidate's fit; see ground_fit.refine."""
    return [refine(rgb, valid, pose, ground, attenuation, passes=PASSES) for pose in poses]


def confidence(fits: Sequence[Sequence[Refined]]) -> np.ndarray:
    """The probability [N] that each photo's best fit is right, given the fits of all photos of a flight.

    The best of wrong fits follows Gumbel's distribution about the mean and spread of the others' scores, a
    right one a normal distribution further up; its mean and the share of right photos are found by EM.
    """
    scores = [sorted((fit.score for fit in photo), reverse=True) for photo in fits]
    wrong = np.array([score for photo in scores for score in photo[1:]])
    count = len(wrong) + PRIOR_COUNT
    mean = (wrong.sum() + PRIOR_COUNT * PRIOR_MEAN) / count
    spread = math.sqrt((((wrong - mean) ** 2).sum() + PRIOR_COUNT * PRIOR_SPREAD**2) / count)
    best = np.array([photo[0] if photo else -math.inf for photo in scores])
    beta = CHANCE_SPREAD * math.sqrt(6) / math.pi
    mode = CHANCE_MEAN - np.euler_gamma * beta
    z = np.maximum((best - mean) / spread, mode)  # what lies lower is no better sign of a right place
    by_chance = np.exp(-(z - mode) / beta - np.exp(-(z - mode) / beta)) / beta
    share, right_mean, right = 0.5, RIGHT_MEAN, np.zeros(len(z))
    for _ in range(ROUNDS):
        width = RIGHT_SPREAD * right_mean
        by_place = np.exp(-0.5 * ((z - right_mean) / width) ** 2) / (width * math.sqrt(2 * math.pi))
        odds = share * by_place / ((1 - share) * by_chance)
        right = np.where(z >= right_mean, 1.0, odds / (1 + odds))
        share = (right.sum() + PSEUDO / 2) / (len(z) + PSEUDO)
        right_mean = max(LEAST_RIGHT_MEAN, ((right * z).sum() + PSEUDO * RIGHT_MEAN) / (right.sum() + PSEUDO))
    return right
