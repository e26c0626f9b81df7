"""What each half of the cells' channels says of pairs: the half models of an alignment, see em.judge.

Both halves look where all channels together found a query to lie on a candidate. So they cost one look per
candidate, and a pose that is wrong is as wrong for both; whether its candidate is right each tells by itself.
"""

from dataclasses import dataclass

import numpy as np
import torch

from cvgl_ray.alignment.aligner import Aligner, filled
from cvgl_ray.alignment.cell_adapter import CHUNK, aligned_pair
from cvgl_ray.alignment.combine import Combination, combined
from cvgl_ray.alignment.poses import Found
from cvgl_ray.em.matching import PseudoLabels, label
from cvgl_ray.features.cells import Cells
from cvgl_ray.search.views import Matrix

ASKED = 2048  # queries; of more, so many are drawn: the score's standard error is at most 0.011
CANDIDATES = 32  # of a query, the best, that the halves tell apart


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
    """Of the pairs that the aligner compared last, with the adapter and the levels that it has now."""
    assert aligner.found is not None
    assert aligner.candidates is not None
    count, k = aligner.found.score.shape
    asked = np.sort(np.random.default_rng(seed).permutation(count)[:ASKED])
    best = np.argsort(-aligner.found.score[asked], axis=1, kind="stable")[:, :CANDIDATES]
    poses = aligner.found.take((asked[:, None], best))
    candidates = aligner.candidates[asked[:, None], best]
    query, references = aligner.compared()
    scores = np.zeros((3, len(asked), min(k, CANDIDATES)), np.float32)
    for start in range(0, len(asked), CHUNK):
        rows = slice(start, start + CHUNK)
        named, places = np.unique(candidates[rows], return_inverse=True)
        [own], theirs = query.of(asked[rows]), references.of(named)
        scores[:, rows] = _sums(own, theirs, places.reshape(candidates[rows].shape), poses.take((rows,)))
    level, unit = aligner.prior.level[poses.width], aligner.prior.unit[poses.width]
    # Of two halves that vary independently each has half the whole's mean and half its variance.
    shares = np.array([1.0, 0.5, 0.5])[:, None, None]
    scores = ((scores - shares * level) / (np.sqrt(shares) * unit)).astype(np.float32)
    return LaidHalves(asked, candidates, scores, aligner.combination, neighbours)


def _sums(query: Cells, references: list[Cells], candidates: np.ndarray, poses: Found) -> np.ndarray:
    """Scores as `poses` defines them, before levels, by all, even and odd channels: [3, q, k]."""
    sums = np.zeros((3, *candidates.shape), np.float32)
    for row, column in np.ndindex(candidates.shape):
        pose, reference = poses.take((row, column)), int(candidates[row, column])
        one, other, both = aligned_pair(query, references, row, reference, pose)
        each = (one.float() * other.float()).sum((1, 2)) * float(both.sum().clamp(min=1)) ** -0.5
        sums[:, row, column] = each.sum(), each[::2].sum(), each[1::2].sum()
    return sums
