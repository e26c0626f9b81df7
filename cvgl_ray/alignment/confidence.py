"""How sure the search is of a photo, from the peaks of its own score and of its flight's, without any truth.

A photo that lies nowhere on the map still has a best peak. The largest of many scores whose tail falls
exponentially, as such maxima do, leads the second by an exponentially distributed gap; and k times the gap
between the k-th and the next is distributed alike (Renyi, Acta Math. Acad. Sci. Hung. 4, 1953). So the gaps
between a photo's *wrong* peaks tell how far a wrong best peak leads.
"""

import math

import torch

from cvgl_ray.alignment.photo_search import Peaks, distinct

RIVALS = 10  # peaks of a photo, each apart from the others, that the gaps are taken from
LEAST_RATIO = 3.0  # a right photo leads by at least so many times a wrong one's lead, on average
ROUNDS = 50
PSEUDO = 2.0  # photos, half of them right, that are added before their share is told
LEAST_WRONG = 0.03  # share of wrong photos, and of right ones, that is always expected


def apart(peaks: Peaks, distance_m: torch.Tensor, count: int = RIVALS) -> torch.Tensor:
    """Scores of a photo's best peaks each more than distance_m [N] from all before it, [N, count], falling.

    -inf where there are no more; peaks: sorted, the best first (see photo_search.merged).
    """
    scores = torch.full((len(peaks.score), count), -math.inf)
    for number, kept in enumerate(distinct(peaks, distance_m, count)):
        scores[number, : len(kept)] = peaks.score[number, kept]
    return scores


def leads(scores: torch.Tensor) -> torch.Tensor:
    """By how much the best peak beats the best elsewhere, [N]; 0 where a photo has no peak.

    A photo with a single peak leads by all of its score.
    """
    best, second = scores[:, 0], scores[:, 1].clamp(min=0.0)
    return torch.where(best.isfinite(), best - second, 0.0).clamp(min=0.0)


def chance_lead(scores: torch.Tensor) -> float:
    """The lead that a wrong best peak has on average: the mean of k times the k-th gap, k from 2 on.

    scores: see `apart`, of all photos of a flight; at least one photo needs three peaks, else infinite: then
    no lead says anything.
    """
    order = torch.arange(2, scores.shape[1], dtype=scores.dtype)
    gaps = (scores[:, 1:-1] - scores[:, 2:]) * order
    known = scores[:, 2:].isfinite()
    return float(gaps[known].mean()) if known.any() else math.inf


def confidence(lead: torch.Tensor, chance: float) -> torch.Tensor:
    """The probability [N] that each best peak is right, given the leads of all photos of a flight.

    Leads of wrong photos are exponential of mean `chance`, so half of them lie below its median, where hardly
    any right one does: that tells the share of wrong photos (Storey, JRSS B 64, 2002). Leads of right photos
    are gamma of shape 2, of a mean found by EM that is at least LEAST_RATIO times as large.
    """
    if not math.isfinite(chance) or not len(lead):
        return torch.zeros(len(lead))
    wrong_mean, lead = max(chance, 1e-9), lead.double()
    least = LEAST_RATIO * wrong_mean
    below = float((lead < wrong_mean * math.log(2)).sum())
    share = 1 - min(max((below + PSEUDO / 4) / ((len(lead) + PSEUDO) / 2), LEAST_WRONG), 1 - LEAST_WRONG)
    right_mean = max(2 * least, float(lead.mean()))
    right = torch.zeros_like(lead)
    for _ in range(ROUNDS):
        theta = right_mean / 2
        odds = share / (1 - share) * lead * wrong_mean / theta**2 * (lead / wrong_mean - lead / theta).exp()
        right = torch.where(odds.isfinite(), odds / (1 + odds), 1.0)
        # One photo's worth of a usual lead keeps the two kinds apart where all photos are wrong.
        right_mean = max(least, float(((right * lead).sum() + 2 * least) / (right.sum() + 1)))
    return right.float()
