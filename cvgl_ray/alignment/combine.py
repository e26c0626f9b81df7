"""Vector and alignment together: how much each counts is told by the pairs on which they agree."""

from collections.abc import Sequence

import numpy as np
import torch

from cvgl_ray.search.csls import csls

ROUNDS = 3  # of pairs and weights
MIN_PAIRS = 8  # fewer tell nothing: then all count alike


def combined(scores: Sequence[torch.Tensor], neighbours: int = 10) -> tuple[torch.Tensor, np.ndarray]:
    """The weighted sum [Nq, Nr] of several scores of the same pairs, and the weights.

    Each is corrected for hubs (CSLS) and standardised over all pairs. The weights are those of Fisher's
    discriminant between the pairs that the sum itself finds mutual and all others, found by turns.
    """
    parts = torch.stack([standardised(csls(score, neighbours)) for score in scores])
    weights = torch.full((len(parts),), 1 / len(parts))
    for _ in range(ROUNDS if len(parts) > 1 else 0):
        queries, references = mutual(torch.einsum("s,sqr->qr", weights, parts))
        if len(queries) < MIN_PAIRS:
            break
        right = parts[:, queries, references]
        weights = torch.linalg.solve(torch.cov(parts.flatten(1)), right.mean(1) - parts.mean((1, 2))).clamp(
            min=0
        )
        weights = weights / weights.sum()
    return torch.einsum("s,sqr->qr", weights, parts), weights.numpy()


def mutual(scores: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns [p] of the pairs that are each other's best in a matrix [Nq, Nr]."""
    forth, back = scores.argmax(1), scores.argmax(0)
    rows = (back[forth] == torch.arange(len(forth))).nonzero()[:, 0]
    return rows.numpy(), forth[rows].numpy()


def standardised(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix about its mean, in standard deviations."""
    return (matrix - matrix.mean()) / matrix.std().clamp(min=1e-12)
