"""Strips laid on each other: a circular search over yaw.

The columns of a panorama's cells and of an unrolled tile's are azimuths, so that a camera turned by some
sectors shows the strip rolled by as many. The score of a yaw is the sum of the inner products of the sectors
on each other, over the root of their number: a mask leaves out what a limited field of view does not show.
All yaws at a time are a circular correlation, which is a product in the frequencies of the azimuth.
"""

from collections.abc import Sequence

import numpy as np
import torch

from cvgl_ray.alignment.prior import PosePrior
from cvgl_ray.features.cells import Cells

NEAR_DEG = 15.0  # what is no other yaw


def score_strips(
    query: Cells,
    reference: Cells,
    prior: PosePrior,
    candidates: np.ndarray | None = None,
    *,
    device: torch.device | str = "cpu",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best yaw of each query with each of its candidates: score, heading and lead, [Q, k] each.

    query, reference: unit cells [Q, 1, C, 1, w] and [R, 1, C, 1, w], zero where masked; candidates [Q, k]
    rows of the reference, all of them where None. heading: by how many sectors the query was rolled to the
    left; lead: over the best yaw elsewhere. prior: see `poses.score_pairs`; of one width.
    """
    width = query.maps.shape[-1]
    count = query.masks[:, 0, 0].sum(-1).clamp(min=1).float()
    wanted, places = _wanted(candidates, len(reference))
    spectra = _spectra(reference.of(wanted), device)
    tried = np.flatnonzero(prior.heading > -np.inf)
    bonus = torch.full((width,), -torch.inf)
    bonus[torch.from_numpy(tried)] = prior.bonus(0, tried, np.zeros(1))[:, 0, 0]
    bonus = bonus.to(device)
    rows = []
    with torch.inference_mode():
        for number in range(len(query)):
            one = _spectra(query.of(slice(number, number + 1)), device)
            chosen = spectra
            if candidates is not None:
                at = places[candidates[number]]
                if not np.array_equal(at, np.arange(spectra.shape[1])):  # all of them need no copy
                    chosen = spectra[:, torch.from_numpy(at)]
            product = torch.bmm(chosen.conj(), one.transpose(1, 2))[..., 0]  # [f, k]
            sums = torch.fft.irfft(product.T, n=width)
            scores = sums * count[number if len(count) > 1 else 0].rsqrt() - float(prior.level[0])
            rows.append(_best(scores / float(prior.unit[0]) + bonus))
    score, heading, lead = (np.stack(column) for column in zip(*rows, strict=True))
    return score, heading, lead


def _wanted(candidates: np.ndarray | None, references: int) -> tuple[np.ndarray | slice, np.ndarray]:
    """The rows of the reference that are anyone's candidate, and the place of each row among them."""
    named = np.ones(references, dtype=bool)
    if candidates is not None:
        named[:] = False
        named[candidates] = True
    return slice(None) if named.all() else np.flatnonzero(named), np.cumsum(named) - 1


def _spectra(cells: Cells, device: torch.device | str) -> torch.Tensor:
    """Cells [N, 1, C, 1, w] in the frequencies of the azimuth: [w // 2 + 1, N, C] complex."""
    rows = cells.maps[:, 0, :, 0].to(device, torch.float32)
    return torch.fft.rfft(rows).permute(2, 0, 1).contiguous()


def _best(scores: torch.Tensor) -> Sequence[np.ndarray]:
    """Of scores [k, w]: the best, its yaw, and its lead over the best elsewhere."""
    width = scores.shape[1]
    top, heading = scores.max(1)
    steps = (torch.arange(width, device=scores.device) - heading[:, None]).abs()
    near = torch.minimum(steps, width - steps) * (360 / width) <= NEAR_DEG
    lead = top - scores.masked_fill(near, -torch.inf).max(1).values
    return top.cpu().numpy(), heading.cpu().numpy(), lead.cpu().numpy()
