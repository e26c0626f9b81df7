"""Vector and alignment together: how much each counts is told by the pairs on which they agree."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cvgl_ray.search.csls import csls

ROUNDS = 3  # of pairs and weights
MIN_PAIRS = 8  # fewer tell nothing: then all count alike


@dataclass(frozen=True)
class Combination:
    """How several scores of a pair are weighed against each other.

    weights [S]: of the scores in standard deviations, with sum 1; deviations [S]: of the corrected scores
    over all pairs; gain: what a unit of the weighted sum adds to the log-odds that a pair is right, by
    Fisher's discriminant of two normal distributions.
    """

    weights: np.ndarray
    deviations: np.ndarray
    gain: float

    def log_odds(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """Of pairs by their scores, which may be less the references' hubness; up to a constant per query."""
        shares = self.weights / np.maximum(self.deviations, 1e-12)
        total: np.ndarray = self.gain * sum(
            share * score for share, score in zip(shares, scores, strict=True)
        )
        return total


def combined(
    scores: Sequence[torch.Tensor], neighbours: int = 10, known: Combination | None = None
) -> tuple[torch.Tensor, Combination]:
    """The weighted sum [Nq, Nr] of several scores of the same pairs, and how they were weighed.

    Each is corrected for hubs (CSLS) and standardised over all pairs. The weights are those of Fisher's
    discriminant between the pairs that the sum itself finds mutual and all others, found by turns; or
    `known`'s.
    """
    corrected = [csls(score, neighbours) for score in scores]
    deviations = np.array([float(score.std()) for score in corrected])
    parts = torch.stack([standardised(score) for score in corrected])
    weights, gain = torch.full((len(parts),), 1 / len(parts)), 1.0
    if known is not None:
        weights, gain = torch.from_numpy(known.weights).float(), known.gain
    for _ in range(ROUNDS if known is None else 0):
        queries, references = mutual(torch.einsum("s,sqr->qr", weights, parts))
        if len(queries) < MIN_PAIRS:
            break
        lead = parts[:, queries, references].mean(1) - parts.mean((1, 2))
        solved = torch.linalg.solve(torch.cov(parts.flatten(1)).reshape(len(parts), -1), lead).clamp(min=0)
        gain = float(solved.sum())
        weights = solved / gain
    total = torch.einsum("s,sqr->qr", weights, parts)
    return total, Combination(weights.double().numpy(), deviations, gain)


def mutual(scores: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns [p] of the pairs that are each other's best in a matrix [Nq, Nr]."""
    forth, back = scores.argmax(1), scores.argmax(0)
    rows = (back[forth] == torch.arange(len(forth))).nonzero()[:, 0]
    return rows.numpy(), forth[rows].numpy()


def standardised(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix about its mean, in standard deviations."""
    return (matrix - matrix.mean()) / matrix.std().clamp(min=1e-12)
