"""What each half of the cells' channels says of pairs: the half models of an alignment, see em.judge.

Of squares both halves look where all channels together found a query to lie on a candidate: that costs one
look per candidate, and whether the candidate is right each tells by itself.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from cvgl_ray.alignment.aligner import Aligner, filled
from cvgl_ray.alignment.cell_adapter import CHUNK, aligned_pair
from cvgl_ray.alignment.cell_source import Picked, Source
from cvgl_ray.alignment.combine import Combination, combined
from cvgl_ray.alignment.poses import Found
from cvgl_ray.alignment.prior import PosePrior
from cvgl_ray.alignment.yaw import score_strips
from cvgl_ray.em.matching import PseudoLabels, label
from cvgl_ray.features.cells import Cells
from cvgl_ray.search.views import Matrix

ASKED = 2048  # queries; of more, so many are drawn: the score's standard error is at most 0.011
# All channels, the even ones, the odd ones, each with its share of the mean and of the variance of a score:
# halves that vary independently have half of each.
PARTS = ((1.0, slice(None)), (0.5, slice(0, None, 2)), (0.5, slice(1, None, 2)))


@dataclass(frozen=True)
class LaidHalves:
    """Scores of queries' candidates by all channels of the cells and by either half of them.

    asked [a]: rows of the queries; candidates [a, k]: rows of the references; scores [3, a, k]: by all
    channels, by the even ones, by the odd ones; combination, neighbours: how all rounds weigh cells and
    vectors against each other.
    """

    asked: np.ndarray
    candidates: np.ndarray
    scores: np.ndarray
    combination: Combination | None
    neighbours: int

    def labels(self, part: int, query: np.ndarray, reference: np.ndarray) -> PseudoLabels:
        """Mutual pairs of the queries asked, by a part of the cells and a model's vectors together.

        part: 0 for all channels, 1 and 2 for the halves; query [Nq, W], reference [Nr, W]: normalised.
        """
        query, count = query[self.asked], len(reference)
        cosines = torch.from_numpy(query) @ torch.from_numpy(reference).T
        cells = torch.from_numpy(filled(self.scores[part], self.candidates, count, None))
        total, _ = combined([cells, cosines], self.neighbours, self.combination)
        return label(Matrix(total, query, reference), np.arange(len(query)), np.arange(count))


def laid_halves(aligner: Aligner, neighbours: int, seed: int) -> LaidHalves:
    """Of the candidates that the aligner compared last, with the adapter that it has learned since.

    By the levels of then, before `Aligner.level` measures new ones: those tell of every width that was tried.
    """
    assert aligner.found is not None
    assert aligner.candidates is not None
    asked = np.sort(np.random.default_rng(seed).permutation(len(aligner.candidates))[:ASKED])
    candidates = aligner.candidates[asked]
    query, references = aligner.compared()
    if aligner.strip:
        [own], [theirs] = query.of(asked), references.of(np.arange(len(references)))
        scores = _searched(own, theirs, aligner.prior, candidates)
    else:
        poses = aligner.found.take((asked,))
        scores = _looked_at(Picked(query, asked), references, aligner.prior, poses, candidates)
    return LaidHalves(asked, candidates, scores, aligner.combination, neighbours)


def _searched(query: Cells, reference: Cells, prior: PosePrior, candidates: np.ndarray) -> np.ndarray:
    """Scores [3, a, k] of strips, whose yaws are quick to search: by each part of the channels anew."""
    found = []
    for share, channels in PARTS:
        one, other = (replace(cells, maps=cells.maps[:, :, channels]) for cells in (query, reference))
        shared = replace(prior, level=share * prior.level, unit=share**0.5 * prior.unit)
        found.append(score_strips(one, other, shared, candidates)[0])
    return np.stack(found)


def _looked_at(
    query: Source, references: Source, prior: PosePrior, poses: Found, candidates: np.ndarray
) -> np.ndarray:
    """Scores [3, a, k] of the candidates where they were found to lie, without what a pose is worth."""
    sums = np.zeros((len(PARTS), *candidates.shape), np.float32)
    for start in range(0, len(query), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(query)))
        named, places = np.unique(candidates[rows], return_inverse=True)
        [own], theirs = query.of(rows), references.of(named)
        sums[:, rows] = _sums(own, theirs, places.reshape(candidates[rows].shape), poses.take((rows,)))
    level, unit = prior.level[poses.width], prior.unit[poses.width]
    found = [
        (each - share * level) / (share**0.5 * unit) for each, (share, _) in zip(sums, PARTS, strict=True)
    ]
    return np.stack(found).astype(np.float32)


def _sums(query: Cells, references: list[Cells], candidates: np.ndarray, poses: Found) -> np.ndarray:
    """Scores as `poses` defines them, before levels, by each part of the channels: [3, q, k]."""
    sums = np.zeros((len(PARTS), *candidates.shape), np.float32)
    for row, column in np.ndindex(candidates.shape):
        pose, reference = poses.take((row, column)), int(candidates[row, column])
        one, other, both = aligned_pair(query, references, row, reference, pose)
        each = (one.float() * other.float()).sum((1, 2)) * float(both.sum().clamp(min=1)) ** -0.5
        sums[:, row, column] = [each[channels].sum() for _, channels in PARTS]
    return sums
