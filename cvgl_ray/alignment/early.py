"""Candidates of single queries, best vector first, until one of those that were laid is clearly the best.

What is left to the references not laid yet is told before one looks. Each has the odds of its vector, times
what its cells are expected to make of these if it is wrong: a wrong pair's score is that of random pairs, of
mean 0 and deviation 1 by the prior's level and unit, so that is exp(g^2 / 2), g the log-odds that a unit of
the score adds. A query is done once these references have less than DOUBT of all odds together.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cvgl_ray.alignment.combine import Combination
from cvgl_ray.alignment.poses import Found

FIRST = 4  # candidates that every query is laid on; twice as many each time that this leaves doubt
DOUBT = 0.01  # the share of the odds below which nobody looks further

Lay = Callable[[np.ndarray, slice], Found]  # queries [n], columns of the candidates -> poses [n, columns]


@dataclass(frozen=True)
class Laid:
    """What became of the candidates [n, k]: laid [n, k] bool, poses of these, and everyone's log-odds."""

    laid: np.ndarray
    found: Found
    log_odds: np.ndarray


def laid_until_clear(
    similarities: np.ndarray, combination: Combination, lay: Lay, first: int = FIRST, doubt: float = DOUBT
) -> Laid:
    """Lay each query on its candidates until it is clear which is the best.

    similarities [n, k]: the vectors' scores, falling in each row; combination: of cells and vectors, in this
    order; first: candidates that are laid in any case; doubt: 0 lays all.
    """
    n, k = similarities.shape
    zero = np.zeros((n, k), np.float32)
    per_unit = combination.log_odds([np.ones(1), np.zeros(1)])[0]
    odds = combination.log_odds([zero, similarities]) + per_unit**2 / 2
    laid, found = np.zeros((n, k), bool), Found.empty((n, k))
    start, stop, asked = 0, min(k, first), np.arange(n)
    while len(asked) and start < k:
        part = slice(start, stop)
        poses = lay(asked, part)
        found.put((asked, part), poses)
        laid[asked, part] = True
        odds[asked, part] = combination.log_odds([poses.score, similarities[asked, part]])
        start, stop = stop, min(k, 2 * stop)
        weights = np.exp(odds[asked] - odds[asked].max(axis=1, keepdims=True))
        asked = asked[weights[:, start:].sum(axis=1) >= doubt * weights.sum(axis=1)]
    return Laid(laid, found, odds)
