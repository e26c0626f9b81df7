"""Two images' cells laid on each other: the score of a pair is that of its best pose.

A pose says which heading the query was turned to, how wide its ground is beside the reference's, and where
its middle lies. Headings are variants of the query; widths are variants of the reference, whose cells are
larger or smaller so that both images' cells cover as much ground; positions are shifts by whole cells.

The score of a pose is the sum of the inner products of the cells on each other, divided by the root of their
number: a mean of few cells is high by chance, and this one spreads alike however many there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from cvgl_ray.alignment.prior import PosePrior
from cvgl_ray.alignment.yaw import score_strips
from cvgl_ray.features.cells import Cells

OVERLAP = 0.65  # of the smaller image's cells, in each pose that is tried
NEAR_CELLS, NEAR_STEPS = 2, 1  # what is no other pose: so many cells, headings and widths away
BLOCK = 64  # references whose padded cells are held at a time: about 32 MB, of 96 channels in half precision


@dataclass(frozen=True)
class Found:
    """The best poses of pairs, arrays of one shape.

    score float32; heading, width: indices; row, column: of the query's middle, in shares of the reference's
    side from the reference's middle, down and to the right, float32; lead: of the best pose's score over that
    of the best pose elsewhere.
    """

    score: np.ndarray
    heading: np.ndarray
    width: np.ndarray
    row: np.ndarray
    column: np.ndarray
    lead: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence["Found"], axis: int = 0) -> "Found":
        """Several after each other, by one of their dimensions."""
        each = ([getattr(part, field.name) for part in parts] for field in fields(cls))
        return cls(*(np.concatenate(arrays, axis) for arrays in each))

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> "Found":
        """Of pairs that were not looked at: zeros."""
        whole, part = (np.zeros(shape, kind) for kind in (np.int64, np.float32))
        return cls(part, whole, whole.copy(), part.copy(), part.copy(), part.copy())

    def put(self, index: tuple[np.ndarray | slice, ...], poses: "Found") -> None:
        """Take over the entries at the given indices of each dimension."""
        for field in fields(self):
            getattr(self, field.name)[index] = getattr(poses, field.name)

    def pose(self, at: int | tuple[int, ...], headings: int, widths: Sequence[float]) -> dict[str, float]:
        """How one query lies on one reference, of so many headings over the circle and these ground widths.

        heading_deg: clockwise from the reference's top, where the query's top looks; width: of the query's
        ground over the reference's; down, right: of the query's middle from the reference's, in shares of its
        side.
        """
        turned = 360 * int(self.heading[at]) / headings
        return {
            "heading_deg": (360 - turned) % 360,
            "width": widths[int(self.width[at])],
            "down": round(float(self.row[at]), 4),
            "right": round(float(self.column[at]), 4),
        }

    def take(self, index: tuple[np.ndarray | slice | int, ...]) -> "Found":
        """The entries at the given indices of each dimension."""
        return Found(*(getattr(self, field.name)[index] for field in fields(self)))


def score_pairs(
    query: Cells,
    references: Sequence[Cells],
    prior: PosePrior,
    candidates: np.ndarray | None = None,
    *,
    overlap: float = OVERLAP,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Found:
    """The best pose of each query with each of its candidates: arrays [Q, k].

    query: unit cells [Q, H, C, n, n], zero where masked; references: of each width [R, 1, C, m, m];
    candidates [Q, k] rows of the references, all of them where None. The prior leaves out headings and widths
    and adds to the score what a pose is worth before one looks (see PosePrior). dtype: of the products.
    Strips have one width, and yaws for headings (see `yaw.score_strips`).
    """
    if query.strip:
        score, heading, lead = score_strips(query, references[0], prior, candidates, device=device)
        nowhere = np.zeros_like(score)
        return Found(score, heading, np.zeros_like(heading), nowhere, nowhere, lead)
    tried = [width for width in range(len(references)) if prior.width[width] > -np.inf]
    laid = partial(_laid, widths=tried, prior=prior, overlap=overlap, device=device, dtype=dtype)
    banks = [references[width] for width in tried]
    with torch.inference_mode():
        if candidates is None:
            firsts = range(0, len(banks[0]), BLOCK)
            blocks = ([cells.of(slice(first, first + BLOCK)) for cells in banks] for first in firsts)
            return Found.joined([laid(query, block) for block in blocks], axis=1)
        each = enumerate(candidates)
        return Found.joined(
            [laid(query.of(slice(row, row + 1)), [cells.of(few) for cells in banks]) for row, few in each]
        )


def _laid(
    query: Cells,
    references: Sequence[Cells],
    *,
    widths: Sequence[int],
    prior: PosePrior,
    overlap: float,
    device: torch.device | str,
    dtype: torch.dtype,
) -> Found:
    """Each query on each reference: arrays [Q, R]; references: of these widths alone."""
    pairs = zip(references, widths, strict=True)
    banks = [_Bank.of(query, cells, width, overlap, device) for cells, width in pairs]
    headings = np.flatnonzero(prior.heading > -np.inf)
    rows = []
    for number in range(len(query)):
        one = query.of(slice(number, number + 1))
        kernel = one.maps[0, headings].to(device, dtype)
        mask = one.masks[0, headings].to(device, torch.float32)
        rows.append(_best([bank.scores(kernel, mask, prior, headings) for bank in banks], banks, headings))
    return Found(*(np.stack([row[index] for row in rows]) for index in range(6)))


@dataclass(frozen=True)
class _Bank:
    """The references' cells of one width, padded so that the query's cells may hang over."""

    width: int
    maps: torch.Tensor  # [R, C, m + 2 p, m + 2 p]
    masks: torch.Tensor  # [R or 1, 1, m + 2 p, m + 2 p]
    least: torch.Tensor  # cells [1 or R, 1, 1, 1] that the overlap asks for, before the query's own mask
    offsets: np.ndarray  # of the query's middle for each shift, in shares of the reference's side
    overlap: float

    @classmethod
    def of(
        cls,
        query: Cells,
        cells: Cells,
        width: int,
        overlap: float,
        device: torch.device | str,
    ) -> "_Bank":
        n, m = query.maps.shape[-1], cells.maps.shape[-1]
        pad = max(0, n - m) + int((1 - overlap) * min(n, m))
        masks = F.pad(cells.masks[:, :1].float().to(device), (pad,) * 4)
        offsets = (np.arange(m + 2 * pad - n + 1) - pad + (n - m) / 2) / m
        least = masks.sum((1, 2, 3), keepdim=True)
        maps = F.pad(cells.maps[:, 0].to(device), (pad,) * 4)
        return cls(width, maps.contiguous(memory_format=torch.channels_last), masks, least, offsets, overlap)

    def scores(
        self,
        kernel: torch.Tensor,
        mask: torch.Tensor,
        prior: PosePrior,
        headings: np.ndarray,
    ) -> torch.Tensor:
        """Scores [R, H, o, o] of all poses of this width; -inf where too few cells lie on each other."""
        count = F.conv2d(self.masks, mask[:, None])
        whole = torch.minimum(self.least, mask.sum((1, 2))[None, :, None, None])
        enough = count >= self.overlap * whole - 0.5
        sums = F.conv2d(self.maps.to(kernel.dtype), kernel).float()
        bonus = prior.bonus(self.width, headings, self.offsets).to(sums.device)
        scores = sums * count.clamp(min=1).rsqrt() - float(prior.level[self.width])
        scores = scores / float(prior.unit[self.width]) + bonus
        return scores.masked_fill(~enough, -torch.inf)


def _best(maps: list[torch.Tensor], banks: list[_Bank], headings: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of one query: score, heading, width, row, column and lead of its candidates, [k] each."""
    peaks = torch.stack([scores.flatten(1).max(1).values for scores in maps])  # [W, k]
    top, which = peaks.max(0)
    found = [np.zeros(len(top), kind) for kind in (np.int64, np.int64, np.float32, np.float32)]
    places = np.zeros((2, len(top)), np.float32)
    for number, (scores, bank) in enumerate(zip(maps, banks, strict=True)):
        mine = (which == number).cpu().numpy()
        if not mine.any():
            continue
        side = scores.shape[-1]
        flat = scores[torch.from_numpy(mine)].flatten(1).argmax(1).cpu().numpy()
        heading, row, column = flat // side**2, flat // side % side, flat % side
        found[0][mine], found[1][mine] = heading, bank.width
        found[2][mine], found[3][mine] = row, column
        places[0, mine], places[1, mine] = bank.offsets[row], bank.offsets[column]
    lead = top.cpu().numpy() - _elsewhere(maps, banks, found, places, len(headings))
    return top.cpu().numpy(), headings[found[0]], found[1], places[0], places[1], lead.astype(np.float32)


def _elsewhere(
    maps: list[torch.Tensor], banks: list[_Bank], found: list[np.ndarray], places: np.ndarray, headings: int
) -> np.ndarray:
    """The best score of a pose that is not near the best one: [k] float32, -inf where there is none."""
    best = np.full(len(found[0]), -np.inf, np.float32)
    steps = np.abs(found[0][:, None] - np.arange(headings))
    near_heading = np.minimum(steps, headings - steps) <= NEAR_STEPS
    for scores, bank in zip(maps, banks, strict=True):
        cell = bank.offsets[1] - bank.offsets[0] if len(bank.offsets) > 1 else 1.0
        near = [np.abs(bank.offsets[None] - place[:, None]) <= NEAR_CELLS * cell + 1e-6 for place in places]
        near_width = np.abs(found[1] - bank.width) <= NEAR_STEPS
        same = (
            (near_heading & near_width[:, None])[:, :, None, None]
            & near[0][:, None, :, None]
            & near[1][:, None, None, :]
        )
        other = scores.masked_fill(torch.from_numpy(same).to(scores.device), -torch.inf)
        best = np.maximum(best, other.flatten(1).max(1).values.cpu().numpy())
    return best
